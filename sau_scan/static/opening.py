"""Opens a checkpoint and examines its files in one pass over their bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sau_scan.checkpoint.opening import open_base, open_checkpoint
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.errors import CheckpointError, SauScanError, UnsafeFile
from sau_scan.findings import Finding, Skipped, escape
from sau_scan.static.facts import blocks
from sau_scan.static.watch import Watch


@dataclass(frozen=True)
class Vetted:
    """What the files gave of an input that cannot be opened; ``read``: how many there were."""

    notes: tuple[Finding | Skipped, ...]
    read: int


def open_vetted(
    path: Path | str, *, variant: str | None = None, base: Path | Checkpoint | None = None
) -> tuple[Checkpoint, list[Finding | Skipped]]:
    """The checkpoint, and what was found about its files. Where a finding :func:`blocks`, it must not be loaded.

    ``base``: a path, or what was vetted before. Raises as :func:`open_checkpoint`; UnsafeFile for a dangerous base.
    What the files gave all the same is the error's ``partial``, a :class:`Vetted`.
    """
    watch = Watch.of(Path(path))
    try:
        whole = _vetted_base(base, variant) if isinstance(base, Path) else base
        checkpoint = open_checkpoint(path, variant=variant, base=whole, watch=watch)
    except SauScanError as error:
        if isinstance(error, CheckpointError):  # it may have ended before any file was read
            watch.read_rest(Path(path))
        error.partial = Vetted(tuple(watch.results()), watch.files_read)
        raise
    return checkpoint, watch.results()


def require_harmless(checkpoint: Checkpoint, found: Iterable[Finding]) -> None:
    """Raises UnsafeFile where one of the findings forbids that anything is loaded."""
    danger = next((f for f in found if blocks(f)), None)
    if danger is not None:
        where = danger.location.path if danger.location else "a file"
        raise UnsafeFile(
            f"{checkpoint.show('')} is not loaded: {escape(where)}: {danger.title}.",
            hint="Get the weights as safetensors from a source that you trust.",
        )


def _vetted_base(path: Path, variant: str | None) -> Checkpoint:
    watch = Watch.of(path)
    whole = open_base(path, variant, watch)
    try:
        require_harmless(whole, (f for f in watch.results() if isinstance(f, Finding)))
    except UnsafeFile as error:
        raise UnsafeFile(f"--base: {error}", hint="Scan the base by itself first, and use a clean one.") from error
    return whole
