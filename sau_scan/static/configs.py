"""Configurations: classes and code that they name, adapters they pull in, and sizes that the weights contradict."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from sau_scan.checkpoint.families import FAMILIES, foreign_classes
from sau_scan.checkpoint.naming import CODE
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.findings import Severity
from sau_scan.static.facts import Fact
from sau_scan.static.folder import INDEX, Folder

About = Iterator[tuple[str, Fact]]
# Fields of a configuration through which the usual libraries import code or fetch something.
REACHING_FIELDS = ("auto_map", "custom_pipeline", "custom_pipelines", "custom_code", "trust_remote_code")
KERNEL_FIELDS = ("_attn_implementation", "attn_implementation", "_attn_implementation_internal")
LIBRARIES = frozenset({"diffusers", "transformers", "stable_diffusion", "optimum", "onnxruntime"})
_CLASS = re.compile(r"[A-Z]\w+")


def check_code(folder: Folder) -> About:
    """Files of code; worse where diffusers looks for it: beside the index, or in a component's folder."""
    for path in folder.paths:
        if PurePosixPath(path).suffix.lower() in CODE:
            parent = path.rpartition("/")[0]
            loadable = parent in folder.index or (parent == "" and PurePosixPath(path).stem == "pipeline")
            yield (
                path,
                Fact(
                    "code",
                    "A program that loads this folder with custom code allowed would run it; it was not run here.",
                    None if loadable else Severity.MEDIUM,
                ),
            )


def check_classes(folder: Folder) -> About:
    """Classes in the index that are not the libraries' own."""
    if INDEX not in folder.texts:
        return
    named = folder.index.get("_class_name")
    if not isinstance(named, str) or not _CLASS.fullmatch(named):
        yield (
            INDEX,
            Fact(
                "foreign-class", f"The index asks for the pipeline {_short(named)}, which is not a class of diffusers."
            ),
        )
    for component, shown in _foreign(folder, named).items():
        yield (
            INDEX,
            Fact(
                "foreign-class",
                f"For {ascii(component)[:60]} the index asks for {shown[:120]}: diffusers would import it, "
                "and with it code of the author's choice.",
            ),
        )


def _foreign(folder: Folder, named: Any) -> dict[str, str]:
    family = next((family for family in FAMILIES if family.pipeline == named), None)
    if family is not None:
        return foreign_classes(Checkpoint(folder.root, folder.index, (), ()), family)
    return {
        component: ascii(value)
        for component, value in folder.index.items()
        if not component.startswith("_") and isinstance(value, list) and not _ordinary(value)
    }


def _ordinary(value: list[Any]) -> bool:
    """A class of a known library; for pipelines that are not in our tables."""
    if len(value) != 2 or any(isinstance(part, (list, dict)) for part in value):
        return all(isinstance(part, (int, float, str)) for part in value) and len(value) != 2
    library, name = value
    return value == [None, None] or (library in LIBRARIES and isinstance(name, str) and bool(_CLASS.fullmatch(name)))


def check_fields(folder: Folder) -> About:
    """Fields that make libraries import or fetch something."""
    for path in folder.texts:
        if path.endswith(("config.json", INDEX)):
            reaching = sorted(_reaching(folder.json(path)))
            if reaching:
                yield (
                    path,
                    Fact(
                        "config-code",
                        f"The fields {', '.join(reaching)} make libraries import code or fetch it; ignored here.",
                    ),
                )


def _reaching(config: dict[str, Any]) -> Iterator[str]:
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in parts:
        for key in REACHING_FIELDS:
            if part.get(key):
                yield key
        for key in KERNEL_FIELDS:
            if "/" in str(part.get(key, "")):
                yield key


def check_adapters(folder: Folder) -> About:
    """Adapters that transformers adds to a component without being asked."""
    for path in folder.paths:
        parent, _, name = path.rpartition("/")
        if name == "adapter_config.json" and parent in folder.index:
            yield (
                path,
                Fact(
                    "hidden-adapter",
                    "transformers adds this adapter to the component whenever peft is installed; it was not scanned.",
                ),
            )


# Component, field of its config.json, end of a tensor's name, and which of its dimensions must be that large.
SIZES = (
    ("text_encoder", "vocab_size", "token_embedding.weight", 0),
    ("text_encoder", "hidden_size", "token_embedding.weight", 1),
    ("text_encoder", "max_position_embeddings", "position_embedding.weight", 0),
    ("text_encoder_2", "vocab_size", "token_embedding.weight", 0),
    ("text_encoder_2", "hidden_size", "token_embedding.weight", 1),
    ("unet", "in_channels", "conv_in.weight", 1),
    ("unet", "out_channels", "conv_out.weight", 0),
    ("unet", "cross_attention_dim", "attn2.to_k.weight", 1),
    ("vae", "latent_channels", "post_quant_conv.weight", 1),
)


def check_sizes(folder: Folder) -> About:
    """Sizes that the configuration and the weights state differently."""
    for component, name, tensor, dimension in SIZES:
        path = f"{component}/config.json"
        stated = folder.json(path).get(name)
        for found, shape in folder.shapes(component).items():
            if type(stated) is int and found.endswith(tensor) and len(shape) > dimension and shape[dimension] != stated:
                shown = ascii(found)[1:-1][:80]
                sentence = f"It states {name} {stated:,}; {shown} in the weights has {shape[dimension]:,}."
                yield path, Fact("config-mismatch", sentence)
                break


def check_shards(folder: Folder) -> About:
    """Indexes of shards that do not describe the files beside them."""
    for path in folder.texts:
        if not path.endswith(".index.json"):
            continue
        table = folder.json(path).get("weight_map")
        parent = path.rpartition("/")[0]
        if not isinstance(table, dict) or not all(isinstance(file, str) for file in table.values()):
            yield path, Fact("config-mismatch", "It has no table of tensors and files.")
            continue
        outside = sorted(file for file in set(table.values()) if "/" in file or "\\" in file)
        if outside:
            sentence = f"It names the file {_short(outside[0])}, which is in another folder."
            yield path, Fact("link-outside", sentence, command="less {path}")
        wrong = [
            name
            for name, file in table.items()
            if (header := folder.headers.get(f"{parent}/{file}".lstrip("/"))) is not None
            and not header.facts
            and name not in {tensor.name for tensor in header.tensors}
        ]
        if wrong:
            yield path, Fact("config-mismatch", f"It places {_short(wrong[0])} in a file that does not hold it.")


# Parts of a name that belong into an adapter, not into the weights of a component.
_ADAPTER_PARTS = ("lora_up", "lora_down", "lora_A", "lora_B", "lora_linear_layer", "hada_w", "lokr_w")


def check_unexpected(folder: Folder) -> About:
    """Tensors of adapters among the weights of a component, which loaders may apply or pass over."""
    for path, header in folder.headers.items():
        if path.split("/")[0] not in folder.index or "lora" in path.lower():
            continue
        odd = [one.name for one in header.tensors if any(part in one.name for part in _ADAPTER_PARTS)]
        if odd:
            yield (
                path,
                Fact(
                    "unexpected-tensor",
                    f"{len(odd):,} tensors are an adapter's, such as {_short(odd[0])}.",
                    tensor=odd[0],
                ),
            )


def _short(value: Any) -> str:
    return ascii(value)[:100]
