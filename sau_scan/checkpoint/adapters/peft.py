"""A folder that PEFT wrote: one file of weights, and settings that say how strong they are."""

from __future__ import annotations

from os.path import exists  # unlike Path's, it raises nothing
from pathlib import Path, PurePosixPath

from sau_scan.checkpoint.files import listing
from sau_scan.checkpoint.naming import WEIGHT_NAMES
from sau_scan.checkpoint.source import ADAPTER_CONFIG, INDEX
from sau_scan.errors import UsageError
from sau_scan.findings import escape
from sau_scan.shell import ascii_command, word

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")  # as PEFT looks for them


def adapter_in(folder: Path) -> Path | None:
    """The file of weights in a folder that PEFT wrote."""
    if exists(folder / INDEX) or not exists(folder / ADAPTER_CONFIG):
        return None
    return next((folder / name for name in ADAPTER_WEIGHTS if exists(folder / name)), None)


def require_alone(adapter: Path) -> None:
    """Raises UsageError where other weights lie in the folder: programs differ in which they take."""
    names, _, skipped = listing(adapter.parent)
    others = {*names, *(note.what for note in skipped)} - {adapter.name}
    weights = sorted(name for name in others if PurePosixPath(name).suffix.lower() in WEIGHT_NAMES)
    if weights:
        raise UsageError(
            f"{escape(str(adapter.parent))} holds {adapter.name} and {escape(weights[0])}; programs differ in which "
            "they take.",
            hint=f"Name the file that you use: {ascii_command(word(str(adapter)))} --base BASE.",
        )
