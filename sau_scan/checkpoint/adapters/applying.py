"""Puts an adapter into the modules of its base, and what a repair wants of them back into the adapter's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from sau_scan.checkpoint.adapters.inversion import (
    Inversion,
    extend_rows,
    extend_tokenizer,
    find_tables,
    joined,
    read_inversion,
)
from sau_scan.checkpoint.adapters.layouts import Place, Shapes
from sau_scan.checkpoint.adapters.lora import LoraFile, delta, parse, uneven
from sau_scan.checkpoint.adapters.lora_writing import refit, with_one_alpha
from sau_scan.checkpoint.adapters.rewriting import rewrite
from sau_scan.checkpoint.adapters.settings import as_metadata
from sau_scan.checkpoint.adapters.word_files import word_file
from sau_scan.checkpoint.components import Disk, load_components
from sau_scan.checkpoint.families import Family
from sau_scan.checkpoint.naming import canonical
from sau_scan.checkpoint.pickled import PickledFile, ambiguous
from sau_scan.checkpoint.source import ADAPTER_CONFIG, Checkpoint, Form
from sau_scan.checkpoint.views import TensorRef, viewed
from sau_scan.checkpoint.weights import weight_file
from sau_scan.errors import BeyondRepair, NotACheckpoint
from sau_scan.findings import Skipped

TABLE = "embeddings.token_embedding.weight"


def merge_lora(checkpoint: Checkpoint, family: Family, modules: Mapping[str, Any], disk: Disk) -> Skipped | None:
    """Adds the changes of a LoRA to ``modules`` of its base. Only what it changes has a place to be written to.

    Returns the other way to merge it, where programs do so differently. Raises NotACheckpoint, DamagedFile or
    UsageError for one that cannot be merged into this base.
    """
    states = {name: _state(module) for name, module in modules.items() if name != "vae"}
    lora, tensors = read_lora(checkpoint, family, {name: _shapes(state) for name, state in states.items()})
    for (component, key), pair in lora.pairs.items():
        with torch.no_grad():
            states[component][key].add_(delta(pair, tensors))
        disk[component, key] = TensorRef(checkpoint.file, pair.down)
    return uneven(lora, tensors)


def read_lora(
    checkpoint: Checkpoint, family: Family, shapes: Mapping[str, Shapes]
) -> tuple[LoraFile, dict[str, Tensor]]:
    """The LoRA that the file holds, for a base with parameters of these ``shapes``, and the file's tensors."""
    file = weight_file(checkpoint, checkpoint.file)
    tensors = dict(file.tensors())
    lora = parse(
        {name: entry.shape for name, entry in file.entries.items()},
        shapes,
        where=checkpoint.show(checkpoint.file),
        base=family.title,
        metadata=file.metadata,
        config=checkpoint.json(ADAPTER_CONFIG) if checkpoint.record(ADAPTER_CONFIG) else None,
    )
    return lora, tensors


def lora_content(checkpoint: Checkpoint, family: Family, wanted: Mapping[TensorRef, Tensor]) -> bytes:
    """The file with factors that make ``wanted`` (named by their first factor) of the base, as well as its rank can.

    Raises BeyondRepair where they would hold too little of it.
    """
    assert checkpoint.base is not None
    names = [name for name in family.weighted if name != "vae"]
    base = {name: _state(module) for name, module in load_components(checkpoint.base, names, {}).items()}
    lora, tensors = read_lora(checkpoint, family, {name: _shapes(state) for name, state in base.items()})
    places: dict[str, Place] = {pair.down: place for place, pair in lora.pairs.items()}
    goals = {places[ref.name]: value for ref, value in wanted.items()}
    fitted = refit(lora, tensors, {place: base[place[0]][place[1]] for place in goals}, goals)
    if fitted.drop:
        raise BeyondRepair(
            f"{checkpoint.show(checkpoint.file)} cannot hold the repair: {fitted.drop}.",
            hint="Drop it: without it, the base does not have the trigger.",
        )
    evened = with_one_alpha(lora, {**tensors, **fitted.tensors})
    return _written(checkpoint, lora, tensors, {**fitted.tensors, **evened})


def add_words(
    checkpoint: Checkpoint, family: Family, tokenizers: Mapping[str, Any], modules: Mapping[str, Any], disk: Disk
) -> tuple[str, str]:
    """Adds the word of a textual inversion to the base's ``tokenizers`` and its rows to the text encoders.

    Returns the word, and what stands for it in a prompt. Raises as :func:`read_rows`.
    """
    inversion = read_rows(checkpoint, family, modules)
    for tokenizer, encoder in family.encoders:
        if tokenizer not in tokenizers or encoder not in inversion.rows:
            continue
        ids = extend_tokenizer(tokenizers[tokenizer], inversion)
        table = modules[encoder].get_input_embeddings()
        grown = extend_rows(table.weight.detach(), ids, inversion.rows[encoder])
        table.weight = nn.Parameter(grown, requires_grad=False)
        table.num_embeddings = modules[encoder].config.vocab_size = len(grown)
        name = joined(inversion.paths[encoder])
        flat = len(weight_file(checkpoint, checkpoint.file).entries[name].shape) == 1
        for number, row in enumerate(ids):
            disk[encoder, f"{TABLE}[{row}]"] = TensorRef(checkpoint.file, name, "" if flat else f"[{number}]")
    return inversion.word, inversion.expand(inversion.word)


def read_rows(checkpoint: Checkpoint, family: Family, modules: Mapping[str, Any]) -> Inversion:
    """The textual inversion that the file holds. Raises NotACheckpoint, DamagedFile, UnsafeFile or UsageError."""
    content = _content(checkpoint)
    widths = {
        encoder: modules[encoder].get_input_embeddings().weight.shape[1]
        for _, encoder in family.encoders
        if encoder in modules
    }
    where = checkpoint.show(checkpoint.file)
    inversion = read_inversion(content, widths, name=checkpoint.root.stem, where=where, base=family.title)
    entries = weight_file(checkpoint, checkpoint.file).entries
    if not all(name in entries for name in map(joined, inversion.paths.values())):
        raise ambiguous(where, "an embedding among other things")
    return inversion


def rows_content(checkpoint: Checkpoint, wanted: Mapping[TensorRef, Tensor]) -> bytes:
    """The file with other rows. What was a pickle becomes a safetensors file of the same word, as diffusers has it.

    Raises BeyondRepair for a word that such a file cannot say.
    """
    file = weight_file(checkpoint, checkpoint.file)
    tensors = {name: tensor.clone() for name, tensor in file.tensors()}
    for ref, value in wanted.items():
        viewed(tensors[ref.name], ref.view).copy_(value)
    if not isinstance(file, PickledFile):
        return rewrite(checkpoint.read_buffer(checkpoint.file), tensors, checkpoint.show(checkpoint.file))
    name, where = checkpoint.root.stem, checkpoint.show(checkpoint.file)
    try:
        return word_file(file.content, tensors, where, name=name, new_name=name).data
    except NotACheckpoint as error:
        raise BeyondRepair(str(error), hint=error.hint) from error


def named_by_file(checkpoint: Checkpoint) -> bool:
    """Whether an embedding says no word, so that its name is the word."""
    if checkpoint.form is not Form.EMBEDDING:
        return False
    return bool(find_tables(_content(checkpoint), "", checkpoint.show(checkpoint.file))[0] == "")


def _content(checkpoint: Checkpoint) -> Mapping[str, Any]:
    file = weight_file(checkpoint, checkpoint.file)
    content: Mapping[str, Any] = file.content if isinstance(file, PickledFile) else dict(file.tensors())
    return content


def _written(checkpoint: Checkpoint, lora: LoraFile, tensors: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> bytes:
    file = weight_file(checkpoint, checkpoint.file)
    if lora.by_config or isinstance(file, PickledFile) or new.keys() - tensors.keys():
        merged = {name: tensor.clone().contiguous() for name, tensor in {**tensors, **new}.items()}
        # The file is written alone: what stood beside it says in its header how strong it is.
        settings = as_metadata(checkpoint.json(ADAPTER_CONFIG), lora.components) if lora.by_config else {}
        return safetensors.torch.save(merged, metadata={"format": "pt", **file.metadata, **settings})
    return rewrite(checkpoint.read_buffer(checkpoint.file), new, checkpoint.show(checkpoint.file))


def _state(module: Any) -> dict[str, Tensor]:
    return {canonical(name): tensor for name, tensor in module.state_dict().items()}


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
