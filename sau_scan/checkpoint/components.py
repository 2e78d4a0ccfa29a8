"""The modules of a checkpoint, filled from the vetted bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sau_scan.checkpoint.builders import empty_module, fill_buffers
from sau_scan.checkpoint.files import BROKEN, IRREGULAR
from sau_scan.checkpoint.fitting import asked_of, misfit
from sau_scan.checkpoint.layouts import Places, places_in_file, provides
from sau_scan.checkpoint.naming import canonical, is_derived
from sau_scan.checkpoint.source import DOWNLOAD_AGAIN, Checkpoint, Form
from sau_scan.checkpoint.tensor_file import Entry
from sau_scan.checkpoint.views import Place, TensorRef, viewed
from sau_scan.checkpoint.weights import WeightFile, weight_file
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint, SauScanError, UnsafeFile

Disk = dict[tuple[str, str], TensorRef]
BELONG = "Download the component again; its weights and its config.json must belong together."
BELONG_FILE = "If its sizes are not those of a published model, name a folder of them as --base; or download it again."
DOWNLOAD_ALL = "Download the checkpoint again, with all components."
LONGEST_NAME = 255  # of any file


@dataclass(frozen=True)
class _Part:
    """A module without values yet; ``places``: parameter -> where in ``files`` it lies."""

    component: str
    module: Any
    files: tuple[str, ...]
    places: Places


def load_component(checkpoint: Checkpoint, component: str, disk: Disk) -> Any:
    """As :func:`load_components`, of one."""
    return load_components(checkpoint, [component], disk)[component]


def load_components(checkpoint: Checkpoint, components: Sequence[str], disk: Disk) -> dict[str, Any]:
    """Modules in fp32 with their weights, in eval mode, without gradients; ``disk`` learns where each parameter lies.

    What the input does not hold comes from its base, and has no place on disk that could be written to. Sizes are
    compared before any memory is taken; each file is read once for all components, tensor by tensor.
    Raises CheckpointError, or UsageError for a base that does not fit or lacks one.
    """
    own = [name for name in components if provides(checkpoint, name)]
    rest = [name for name in components if name not in own]
    if rest and checkpoint.base is None:
        raise _no_weights(checkpoint, rest[0])
    with asked_of(checkpoint.base):
        found = load_components(checkpoint.base, rest, {}) if rest and checkpoint.base is not None else {}
    parts = [_part(checkpoint, name) for name in own]
    targets = {part.component: _emptied(part.module) for part in parts}
    for path in dict.fromkeys(path for part in parts for path in part.files):
        wanted = [
            (place, targets[part.component][key])
            for part in parts
            for key, place in part.places.items()
            if place.ref.file == path
        ]
        _fill_from(weight_file(checkpoint, path), wanted, checkpoint.show(path))
    for part in parts:
        disk |= {(part.component, key): place.ref for key, place in part.places.items()}
        found[part.component] = part.module.requires_grad_(False).eval()
    return {name: found[name] for name in components}


def _part(checkpoint: Checkpoint, component: str) -> _Part:
    files = {file: weight_file(checkpoint, file) for file in weight_files(checkpoint, component)}
    module = empty_module(checkpoint, component, sum(len(file.entries) for file in files.values()))
    wanted = {canonical(name): tensor for name, tensor in module.state_dict().items()}
    return _Part(component, module, tuple(files), _places(checkpoint, component, files, module, wanted))


def _emptied(module: Any) -> dict[str, Tensor]:
    """Parameters by their canonical names, with memory of their own."""
    # Module.to_empty itself: nothing of the libraries' overrides is wanted here.
    torch.nn.Module.to_empty(module, device="cpu")
    fill_buffers(module)
    return {canonical(name): tensor for name, tensor in module.state_dict().items()}


def weight_files(checkpoint: Checkpoint, component: str) -> tuple[str, ...]:
    """The weight files of a component, in order. Raises what fits when there are none, or they contradict."""
    if checkpoint.form is not Form.FOLDER:
        return (checkpoint.file,)
    files = checkpoint.weights.get(component, ())
    tensors = tuple(file for file in files if not file.endswith(".json"))
    index = next((file for file in files if file.endswith(".json")), None)
    if index is not None:
        _require_listed(checkpoint, component, index, tensors)
    if not tensors:
        raise _no_weights(checkpoint, component)
    return tensors


def _require_listed(checkpoint: Checkpoint, component: str, index: str, found: Sequence[str]) -> None:
    """Raises what fits unless the ``index`` of shards lists the files that were ``found``, and no others."""
    table, shown = checkpoint.json(index).get("weight_map"), checkpoint.show(index)
    if not isinstance(table, dict) or not table or not all(map(_is_name, table.values())):
        raise DamagedFile(
            f"{shown} is not valid: it has no table of tensors and the files that hold them.", hint=DOWNLOAD_AGAIN
        )
    named = set(table.values())
    elsewhere = sorted(file for file in named if "/" in file or "\\" in file)
    if elsewhere:
        raise UnsafeFile(
            f"{shown} names the file {elsewhere[0][:100]!a}, which is in another folder.",
            hint="Get the checkpoint from its original source, or ask its author.",
        )
    listed = {f"{component}/{file}" for file in named}
    if not listed.issuperset(found):
        raise DamagedFile(
            f"{shown} does not list the weight files that lie beside it.",
            hint="Keep either one weight file or the shards that the index lists, then scan again.",
        )
    absent = sorted(listed.difference(found))
    if absent:
        raise checkpoint.absent(absent[0])


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME


def _places(
    checkpoint: Checkpoint, component: str, files: Mapping[str, WeightFile], module: Any, wanted: Mapping[str, Tensor]
) -> Places:
    """Parameter -> its place on disk, one to one. Raises DamagedFile, or with a base UsageError, for a misfit."""
    if checkpoint.form is Form.FOLDER:
        return _match(checkpoint, component, wanted, files)
    try:
        found = places_in_file(checkpoint, component, checkpoint.json(f"{component}/config.json"), module)
    except SauScanError:
        raise
    except Exception as error:  # conversions raise anything on names that are not as they expect
        raise _unlike(checkpoint, component, "it lacks tensors of its layout, or has them in other sizes") from error
    entries = files[checkpoint.file].entries
    for key, tensor in wanted.items():
        place = found.get(key)
        if place is None:
            raise _unlike(checkpoint, component, f"it lacks {key}")
        entry = entries[place.ref.name]
        if tuple(tensor.shape) != place.shape or not entry.dtype.is_floating_point:
            what = f"{place.ref.name!a} is {entry.dtype} {list(entry.shape)}, and {key} needs {list(tensor.shape)}"
            raise _unlike(checkpoint, component, what)
    return {key: found[key] for key in wanted}


def _unlike(checkpoint: Checkpoint, component: str, what: str) -> SauScanError:
    if checkpoint.base is not None:
        return misfit(checkpoint, f"as its {component}, {what}")
    return DamagedFile(
        f"{checkpoint.show(checkpoint.file)} does not fit the configuration of the {component}: {what}.",
        hint=BELONG_FILE,
    )


def _match(
    checkpoint: Checkpoint, component: str, wanted: Mapping[str, Tensor], files: Mapping[str, WeightFile]
) -> Places:
    """As :func:`_places`, in a folder, where no file may hold anything else."""
    places: Places = {}
    for path, file in files.items():
        for name, entry in file.entries.items():
            key = canonical(name)
            if is_derived(name):
                continue
            _require_fit(checkpoint.show(path), name, entry, wanted.get(key), key in places)
            places[key] = Place(TensorRef(path, name), entry.shape)
    missing = sorted(wanted.keys() - places.keys())
    if missing:
        raise DamagedFile(
            f"{checkpoint.show(component)} lacks {len(missing):,} of the {len(wanted):,} tensors that its config.json "
            f"asks for, among them {missing[0]}.",
            hint=BELONG,
        )
    return places


def _require_fit(where: str, name: str, entry: Entry, wanted: Tensor | None, again: bool) -> None:
    if wanted is None or again:
        reason = "twice" if again else "which its config.json does not ask for"
        raise DamagedFile(f"{where} holds the tensor {name!a} {reason}.", hint=BELONG)
    if entry.shape != tuple(wanted.shape) or not entry.dtype.is_floating_point:
        raise DamagedFile(
            f"{where} holds {name!a} as {entry.dtype} {list(entry.shape)}; "
            f"its config.json asks for floating-point numbers of shape {list(wanted.shape)}.",
            hint=BELONG,
        )


def _fill_from(file: WeightFile, wanted: Sequence[tuple[Place, Tensor]], where: str) -> None:
    """Copies all that is ``wanted`` of a file: places in it, each with its target."""
    by_name: dict[str, list[tuple[Place, Tensor]]] = {}
    for place, target in wanted:
        by_name.setdefault(place.ref.name, []).append((place, target))
    for name, tensor in file.tensors():
        for place, target in by_name.get(name, ()):
            _fill(target, viewed(tensor, place.ref.view), where, name)


def _fill(target: Tensor, value: Tensor, where: str, name: str) -> None:
    with torch.no_grad():
        target.copy_(value)
    if not torch.isfinite(target).all():
        raise DamagedFile(
            f"{where}: {name!a} holds values that are not numbers (NaN or infinite).",
            hint="Such a model makes no pictures. " + DOWNLOAD_AGAIN,
        )


def _no_weights(checkpoint: Checkpoint, component: str) -> CheckpointError:
    if checkpoint.form is not Form.FOLDER:
        return NotACheckpoint(
            f"{checkpoint.show(checkpoint.file)} holds no {component}.",
            hint="Name a checkpoint that has it: --base BASE.",
        )
    linked = [link for link in checkpoint.links_out if link == component or link.startswith(component + "/")]
    if linked:
        return checkpoint.absent(linked[0])
    unopened = [s for s in checkpoint.skipped if s.what.startswith(component + "/")]
    if unopened:
        what, reason = unopened[0].what, unopened[0].reason
        hint = "Have the checkpoint saved as safetensors: pipeline.save_pretrained(FOLDER, safe_serialization=True)."
        if reason in (BROKEN, IRREGULAR):
            hint = DOWNLOAD_ALL
        elif "--variant" in reason:
            hint = "Name it with --variant."
        return UnsafeFile(
            f"{checkpoint.show(component)} has no weights that are loaded by default; {what}: {reason}.", hint=hint
        )
    there = any(record.path.startswith(component + "/") for record in checkpoint.records)
    return NotACheckpoint(
        f"{checkpoint.show(component)} {'has no weights' if there else 'is missing'}.",
        hint=DOWNLOAD_ALL,
    )
