"""Which files of a repository are needed: those that diffusers would load, or the one file that was named.

Nothing else is fetched, and code never; what stays on the hub is listed with the reason, so that reports can say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sau_scan.checkpoint.adapters.peft import ADAPTER_WEIGHTS
from sau_scan.checkpoint.naming import WEIGHT_NAMES, choose_weights, components_of, is_text, left_unopened
from sau_scan.checkpoint.source import ADAPTER_CONFIG, INDEX
from sau_scan.errors import NotOnHub
from sau_scan.findings import Skipped, escape

# What diffusers and peft look for where no file is named, best first; ``{}`` is where a variant's name goes.
USUAL = (
    "pytorch_lora_weights{}.safetensors",
    "adapter_model{}.safetensors",
    "learned_embeds{}.safetensors",
    "diffusion_pytorch_model{}.safetensors",
    "model{}.safetensors",
    "pytorch_lora_weights{}.bin",
    "adapter_model{}.bin",
    "learned_embeds{}.bin",
)
COMPANIONS = (ADAPTER_CONFIG, "config.json")
_MOST_SHOWN = 6


@dataclass(frozen=True)
class Selection:
    """``wanted``: paths to fetch; ``left``: what stays on the hub, and why."""

    wanted: tuple[str, ...]
    left: tuple[Skipped, ...]


def folder_files(index: Mapping[str, Any], names: Sequence[str], variant: str | None) -> Selection:
    """What diffusers would load of a pipeline's folder. ``index``: ``model_index.json`` as data."""
    components = components_of(index)
    choice = choose_weights(components, [*names], variant)
    weights = {name for files in choice.weights.values() for name in files}
    wanted = [name for name in names if name == INDEX or name in weights or is_text(name, components)]
    return Selection(tuple(wanted), _left(names, {*wanted}, choice.unused))


def single_file(repository: str, names: Sequence[str], named: str, variant: str | None) -> tuple[str, Selection]:
    """The file of weights that was ``named``, or without a name the only one, or the one that diffusers would load.

    Files of configuration beside it are wanted, too. Raises NotOnHub.
    """
    chosen = named or _only(repository, names, variant)
    if chosen not in names or PurePosixPath(chosen).suffix.lower() not in WEIGHT_NAMES:
        reason = "has no file" if chosen not in names else "has no weights that can be opened in"
        raise NotOnHub(f"{escape(repository)} {reason} {escape(chosen)}.", hint=_offer(repository, names))
    beside = [str(PurePosixPath(chosen).with_name(name)) for name in COMPANIONS]
    wanted = (chosen, *(name for name in beside if name in names))
    return chosen, Selection(wanted, _left(names, {*wanted}, {}))


def is_plain(name: str) -> bool:
    """Whether a path from a foreign list may become a path on this machine; only such names come into a choice."""
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & {*parts} and len(name) < 1024


def _only(repository: str, names: Sequence[str], variant: str | None) -> str:
    _require_alone(repository, names)
    for pattern in USUAL:
        for suffix in [f".{variant}", ""] if variant else [""]:
            if pattern.format(suffix) in names:
                return pattern.format(suffix)
    top = [name for name in _weights(names) if "/" not in name]
    for kind in (".safetensors", None):
        found = [name for name in top if kind is None or name.lower().endswith(kind)]
        if len(found) == 1:
            return found[0]
    many = "several files of weights" if top else "no file of weights at its top"
    raise NotOnHub(f"{escape(repository)} has no {INDEX}, and {many}.", hint=_offer(repository, names))


def _require_alone(repository: str, names: Sequence[str]) -> None:
    """Of what PEFT wrote, its only weights are taken, as with a folder here: programs differ in which they take."""
    adapter = next((name for name in ADAPTER_WEIGHTS if name in names and ADAPTER_CONFIG in names), None)
    other = next((name for name in _weights(names) if name != adapter), None)
    if adapter and other:
        shown = escape(repository)
        raise NotOnHub(
            f"{shown} holds {adapter} and {escape(other)}; programs differ in which they take.",
            hint=f"Name the file that you use: {shown}/{adapter} --base BASE.",
        )


def _weights(names: Sequence[str]) -> list[str]:
    return [name for name in names if PurePosixPath(name).suffix.lower() in WEIGHT_NAMES]


def _offer(repository: str, names: Sequence[str]) -> str:
    there = _weights(names)
    if not there:
        return "It has no weights; check the name and the --revision."
    shown = ", ".join(escape(name) for name in there[:_MOST_SHOWN])
    more = f" and {len(there) - _MOST_SHOWN:,} more" if len(there) > _MOST_SHOWN else ""
    return f"Name one, as in: sau-scan detect {escape(repository)}/{escape(there[0])}. It has {shown}{more}."


def _left(names: Sequence[str], wanted: set[str], unused: Mapping[str, str]) -> tuple[Skipped, ...]:
    """Weights, code and archives one by one; pictures, texts and the like as a number."""
    left = [name for name in names if name not in wanted]
    reasons = {name: unused.get(name) or _why_left(name) for name in left}
    told = [Skipped(what=escape(name), reason=f"not fetched: {why}") for name, why in reasons.items() if why]
    others = sum(1 for why in reasons.values() if why is None)
    if others:
        told.append(Skipped(what=f"{others:,} other files on the hub", reason="not fetched: not needed for a picture"))
    return tuple(told)


def _why_left(name: str) -> str | None:
    suffix = PurePosixPath(name).suffix.lower()
    return left_unopened(name) or ("not what was named" if suffix in WEIGHT_NAMES else None)
