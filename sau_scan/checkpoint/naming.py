"""Which files of a diffusers folder are of use: weights, those that diffusers would load by default, and texts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
WEIGHT_NAMES = frozenset({".safetensors", *PICKLES})
# Other names that pickles go by; none is read, but what is called so is examined as one.
OTHER_PICKLES = frozenset({".dat", ".data", ".joblib", ".p"})
# Components that turn no prompt into a picture are not worth opening a pickle for.
BYSTANDERS = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
OTHER_WEIGHTS = frozenset({".msgpack", ".h5", ".onnx", ".pb", ".gguf", ".npz", ".npy", ".tflite", ".xml"})
CODE = frozenset({".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".ipynb", ".whl", ".egg"})
# Configurations, vocabularies, models of sentencepiece, templates: what tokenizers and modules are built from.
TEXTS = frozenset({".json", ".txt", ".model", ".jinja"})
# What people are to read of a model, and what git is to know of its files; a name's only dots are those of a version.
_CARDS = re.compile(
    r"(README|LICEN[CS]E|COPYING|NOTICE)([\w-]|(?<=\d)\.(?=\d))*(\.(md|txt|rst|html))?|\.gitattributes", re.IGNORECASE
)
ARCHIVES = frozenset({".zip", ".7z", ".tar", ".gz", ".xz", ".bz2", ".zst", ".rar"})


@dataclass
class Choice:
    """``weights``: component -> its files; ``unused``: weight file -> why diffusers would not load it."""

    weights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)


def components_of(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Component -> (library, class) for the entries of ``model_index.json`` that name one."""
    return {
        name: (value[0], value[1])
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)
    }


def left_unopened(relpath: str) -> str | None:
    """Why a file of this name is never opened, or None."""
    suffix = PurePosixPath(relpath).suffix.lower()
    if suffix in PICKLES:
        return "a pickle, which could run code and is not needed"
    if suffix in OTHER_WEIGHTS:
        return "weights in a format that is not loaded"
    if suffix in CODE:
        return "code, which is never run"
    if suffix in ARCHIVES:
        return "an archive, which is not unpacked"
    return None


def is_text(relpath: str, components: Collection[str]) -> bool:
    """Whether a component is built from this file; a list of shards goes with its shards."""
    folder, _, file = relpath.rpartition("/")
    return folder in components and PurePosixPath(file).suffix.lower() in TEXTS and ".index." not in file


def is_card(relpath: str) -> bool:
    """Whether it is the model's card, its licence, or the like."""
    return _CARDS.fullmatch(relpath) is not None


def choose_weights(
    components: dict[str, tuple[str, str]], names: list[str], variant: str | None, *, bystanders: bool = False
) -> Choice:
    """The files that diffusers would load for each component, and all others with the reason.

    Safetensors go before pickles; those of ``bystanders`` count only where it is said. An index of shards stands first
    in a component's files; its shards follow.
    """
    choice = Choice()
    tensors = [name for name in names if PurePosixPath(name).suffix.lower() in (".safetensors", ".bin")]
    for component, (library, _) in components.items():
        ours = library == "diffusers"
        chosen = _chosen(f"{component}/{'diffusion_pytorch_model' if ours else 'model'}", names, variant, "safetensors")
        if not chosen and (bystanders or component not in BYSTANDERS):
            stem = f"{component}/{'diffusion_pytorch_model' if ours else 'pytorch_model'}"
            chosen = _chosen(stem, names, variant, "bin")
        if chosen:
            choice.weights[component] = chosen
    used = {name for files in choice.weights.values() for name in files}
    for name in tensors:
        if name not in used:
            choice.unused[name] = _why_unused(name, components)
    return choice


def _chosen(stem: str, names: list[str], variant: str | None, ending: str) -> tuple[str, ...]:
    """With ``variant``, its files where there are any, else the plain ones: as diffusers falls back."""
    for suffix in [f".{variant}", ""] if variant else [""]:
        index = f"{stem}.{ending}.index{suffix}.json"
        single = f"{stem}{suffix}.{ending}"
        files = [name for name in (index, single) if name in names]
        files += [name for name in names if index in names and _is_shard(name, stem, suffix, ending)]
        if files:
            return tuple(files)
    return ()


def _is_shard(name: str, stem: str, suffix: str, ending: str) -> bool:
    """Both spellings: ``stem.fp16-00001-of-00002`` and ``stem-00001-of-00002.fp16``."""
    middle = name.removeprefix(stem).removesuffix(f".{ending}")
    if not name.startswith(stem) or middle == name:
        return False
    body = middle.removeprefix(suffix) if middle.startswith(suffix) else middle.removesuffix(suffix)
    parts = body.split("-")
    return len(parts) == 4 and parts[0] == "" and parts[2] == "of" and parts[1].isdigit() and parts[3].isdigit()


def _why_unused(name: str, components: dict[str, tuple[str, str]]) -> str:
    folder, _, file = name.rpartition("/")
    pickled = left_unopened(name)
    if pickled:
        return pickled
    if folder not in components:
        return "not part of the pipeline that model_index.json names"
    middle = file.removesuffix(".safetensors").split(".")
    if len(middle) > 1:
        return f"a variant that is not loaded by default; --variant {middle[-1]} scans it"
    return "not a weight file that diffusers loads by default"


# diffusers before 0.18 named the attention of the VAE so; it converts such files while loading.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# T5's table of words has two names; transformers reads the one that is called shared.
_T5_TABLE = "encoder.embed_tokens.weight"


def canonical(parameter: str) -> str:
    """A parameter's name in one spelling, whatever library version wrote it."""
    if parameter == _T5_TABLE:
        return "shared.weight"
    parts = parameter.removeprefix("text_model.").split(".")
    if len(parts) > 3 and "attentions" in parts:
        parts[-2] = _OLD_ATTENTION.get(parts[-2], parts[-2])
    return ".".join(parts)


def is_derived(parameter: str) -> bool:
    """Whether a stored tensor is one that current libraries compute instead of loading."""
    return parameter.endswith("embeddings.position_ids") or parameter == _T5_TABLE
