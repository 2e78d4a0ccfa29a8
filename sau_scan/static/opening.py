"""Opens a checkpoint and examines its files in one pass over their bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from os.path import exists, isdir  # unlike Path's, they raise nothing
from pathlib import Path, PurePosixPath

from sau_scan.checkpoint.naming import WEIGHT_NAMES, choose_weights, components_of
from sau_scan.checkpoint.opening import open_base, open_checkpoint
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.errors import CheckpointError, SauScanError, UnsafeFile
from sau_scan.findings import FileRecord, Finding, Location, Skipped, escape, shown
from sau_scan.static.facts import blocks
from sau_scan.static.vetting import vet_file
from sau_scan.static.watch import Watch

# A checkpoint, and what was found about its files.
Opened = tuple[Checkpoint, list[Finding | Skipped]]


@dataclass(frozen=True)
class Vetted:
    """What the files gave of an input that cannot be opened; ``read``: how many there were; ``records``: its own."""

    notes: tuple[Finding | Skipped, ...]
    read: int
    records: tuple[FileRecord, ...] = ()


def open_vetted(path: Path | str, *, variant: str | None = None, base: Path | Checkpoint | None = None) -> Opened:
    """The checkpoint, and what was found about its files and its base's. Where a finding :func:`blocks`, it must not be
    loaded.

    ``base``: a path, or what was vetted before, of which no more is told. Raises as :func:`open_checkpoint`. What the
    files gave all the same is the error's ``partial``, a :class:`Vetted`.
    """
    path = Path(path)
    if base is None:
        return _watched(path, lambda watch: open_checkpoint(path, variant=variant, watch=watch))
    where = base.root if isinstance(base, Checkpoint) else base
    try:
        whole, notes = (base, []) if isinstance(base, Checkpoint) else _opened_base(base, variant)
    except SauScanError as error:
        if isinstance(error.partial, Vetted):
            own = vet_file(path) if exists(path) else []
            error.partial = Vetted((*own, *(in_base(n, where) for n in error.partial.notes)), error.partial.read)
        raise
    of_base = [in_base(note, where) for note in (*notes, *whole.skipped)]
    try:
        checkpoint, found = _watched(path, lambda watch: open_checkpoint(path, base=whole, watch=watch))
    except SauScanError as error:
        if isinstance(error.partial, Vetted):
            known = error.partial
            error.partial = replace(known, notes=(*known.notes, *of_base), read=known.read + len(whole.records))
        raise
    return checkpoint, [*found, *of_base]


def _opened_base(path: Path, variant: str | None) -> Opened:
    return _watched(path, lambda watch: open_base(path, variant, watch))


def in_base(note: Finding | Skipped, base: Path) -> Finding | Skipped:
    """``note`` about a file of ``base``, told of an input that is used with it."""
    if isinstance(note, Skipped):
        folder = base if isdir(base) else base.parent
        return note.model_copy(update={"what": f"{escape(str(folder))}/{note.what}"})
    place = note.location and Location(path=note.location.path, tensor=note.location.tensor, base=str(base))
    return note.model_copy(update={"location": place})


def require_harmless(checkpoint: Checkpoint, found: Iterable[Finding]) -> None:
    """Raises UnsafeFile where one of the findings forbids that anything is loaded."""
    danger = next((f for f in found if blocks(f)), None)
    if danger is None:
        return
    where = danger.location.path if danger.location else "a file"
    told = f"is not loaded: {shown(where)}: {danger.title}."
    if danger.location is not None and danger.location.base is not None:
        hint = "Scan the base by itself first, and use a clean one."
        raise UnsafeFile(f"--base: {shown(danger.location.base)} {told}", hint=hint)
    if PurePosixPath(where).suffix.lower() in WEIGHT_NAMES:
        wanted = "weights as safetensors"
    else:
        told, wanted = f"{told} {danger.behaviour}", "whole checkpoint"
    raise UnsafeFile(f"{checkpoint.show('')} {told}", hint=f"Get the {wanted} from a source that you trust.")


def _watched(path: Path, opening: Callable[[Watch], Checkpoint]) -> tuple[Checkpoint, list[Finding | Skipped]]:
    watch = Watch.of(path)
    try:
        checkpoint = opening(watch)
    except SauScanError as error:
        # It may have ended before any file was read.
        if isinstance(error, CheckpointError) or isinstance(error.__cause__, CheckpointError):
            watch.read_rest(path)
        error.partial = Vetted(tuple(watch.results()), watch.files_read, tuple(watch.records))
        raise
    notes = watch.results()
    weighty = _loaded(checkpoint) | watch.denied  # others than who scans may read these, and load them
    return checkpoint, [_weighed(note, weighty) for note in notes]


def _loaded(checkpoint: Checkpoint) -> set[str]:
    """The files of weights that a pipeline would load, whether or not the scan does."""
    names = [*(record.path for record in checkpoint.records), *(skipped.what for skipped in checkpoint.skipped)]
    choice = choose_weights(components_of(checkpoint.index), names, checkpoint.variant, bystanders=True)
    return {checkpoint.file, *(name for files in choice.weights.values() for name in files)}


def _weighed(note: Finding | Skipped, weighty: Collection[str]) -> Finding | Skipped:
    """An unreadable file leaves a scan incomplete where a pipeline would load it."""
    return note.model_copy(update={"planned": note.what in weighty}) if isinstance(note, Skipped) else note
