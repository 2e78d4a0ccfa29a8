"""A private folder with the verified files of a commit: what the hub's cache holds, without the links it is made of.

Hard links beside the cache's own files, so that nothing is copied; copies where there can be none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sau_scan.checkpoint.hub.client import HubFile, Source
from sau_scan.checkpoint.hub.refusals import Repository, changed, unwritable
from sau_scan.errors import DamagedFile, UnsafeFile
from sau_scan.findings import escape
from sau_scan.options import Progress
from sau_scan.shell import ascii_command, word

_MEGABYTE = 10**6


def private_folder(repository: Repository) -> Path:
    """A new folder, of this user alone; on the cache's disk if that can be written to. Raises WriteError."""
    try:
        repository.storage.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".sau-scan-", dir=repository.storage))
    except OSError:  # a cache may be mounted to be read only
        try:
            return Path(tempfile.mkdtemp(prefix="sau-scan-"))
        except OSError as error:
            raise unwritable(repository, error) from error


@dataclass(frozen=True)
class Transfer:
    """From a source into a private folder."""

    repository: Repository
    source: Source
    commit: str
    folder: Path
    progress: Progress

    def place_all(self, files: Sequence[HubFile]) -> None:
        """Those that are not there yet, with progress in megabytes."""
        size = sum(file.size for file in files)
        self.progress.stage("hub", size // _MEGABYTE)
        meter = _Megabytes(self.progress)
        for file in files:
            if not (self.folder / file.path).exists():
                self.place(file, meter)
        words = f"{len(files):,} files, {size / _MEGABYTE:,.1f} MB"
        self.progress.done(f"{words} of {self.repository.id} at commit {self.commit[:12]}")

    def place(self, file: HubFile, meter: _Megabytes | None = None) -> None:
        """One file, verified. Raises HubError, DamagedFile, UnsafeFile or WriteError."""
        cached, fresh = self.source.fetch(self.commit, file, meter.add if meter else lambda count: None)
        target = self.folder / file.path
        try:
            blob = cached.resolve(strict=True)
            if not blob.is_relative_to(self.repository.storage.parent.resolve()):
                raise UnsafeFile(
                    f"{escape(str(cached))} is a link that leaves the cache, and is not followed.",
                    hint=f"rm {ascii_command(word(str(cached)))}, and start again.",
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(blob, target)
            if not _fits(target, file):
                raise self._unfit(file, cached, blob, fresh)
        except OSError as error:
            raise unwritable(self.repository, error) from error

    def _unfit(self, file: HubFile, cached: Path, blob: Path, fresh: bool) -> DamagedFile:
        if fresh:
            # Left in the cache, it would be taken for the real one by every program.
            for path in (cached, blob):
                with suppress(OSError):
                    path.unlink()
            return changed(self.repository, file.path)
        return DamagedFile(
            f"{self.repository.show(file.path)} in the cache is not the file that its commit lists.",
            hint=f"rm {ascii_command(word(str(blob)))}, and start again.",
        )


class _Megabytes:
    """Bytes that came, told in whole megabytes."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._bytes = progress, 0

    def add(self, count: int) -> None:
        before = self._bytes // _MEGABYTE
        self._bytes += count
        if self._bytes // _MEGABYTE > before:
            self._progress.advance(self._bytes // _MEGABYTE - before)


def _link_or_copy(blob: Path, target: Path) -> None:
    try:
        os.link(blob, target)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(blob, target)


def _fits(path: Path, file: HubFile) -> bool:
    """Whether size and hash are the listed ones."""
    if path.stat().st_size != file.size:
        return False
    if not file.digest:
        return True
    # Git hashes a small file with its kind and size in front.
    digest = hashlib.sha256() if len(file.digest) == 64 else hashlib.sha1(b"blob %d\0" % file.size)
    with path.open("rb") as stream:
        hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest() == file.digest
