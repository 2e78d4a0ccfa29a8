"""What the hub, or the cache of what was fetched from it, says and gives: a commit, its files, their bytes.

The library does the transfer and keeps its cache as every other program does. What it does not compare is compared
here: that all answers speak of one commit, and that sizes and hashes are those of the commit's own list.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from os.path import isdir, isfile  # unlike Path's, they raise nothing
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

from sau_scan.checkpoint.files import FILE_LIMIT
from sau_scan.checkpoint.hub.refusals import Repository, TooMuch, changed, no_hub, translated
from sau_scan.errors import HubUnreachable, NotACheckpoint
from sau_scan.findings import escape

SECONDS = 30.0  # for an answer; files have the library's own limits
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class HubFile:
    """``digest``: sha256 of the content (64 digits), or of small files git's sha1 (40), or empty where unknown."""

    path: str
    size: int
    digest: str


class Source(Protocol):
    """Either of the two places that files come from."""

    def listing(self) -> tuple[str, tuple[HubFile, ...]]:
        """The commit, and its files."""

    def fetch(self, commit: str, file: HubFile, advance: Callable[[int], None]) -> tuple[Path, bool]:
        """A file of that commit in the cache, and whether it came just now; ``advance`` is told the bytes."""

    def remember(self, commit: str) -> None:
        """All that is needed is in the cache: offline, the revision shall stand for this commit."""


class Online:
    """The hub itself."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def listing(self) -> tuple[str, tuple[HubFile, ...]]:
        """One answer for both, so that a branch cannot move in between. Raises HubError, or NotACheckpoint."""
        there = self._repository
        with translated(there):
            info = HfApi(endpoint=there.endpoint).model_info(
                there.id, revision=there.revision, files_metadata=True, timeout=SECONDS
            )
        commit, siblings = str(info.sha), info.siblings or []
        asked = there.revision if _COMMIT.fullmatch(there.revision) else commit
        if not _COMMIT.fullmatch(commit) or commit != asked:
            raise no_hub(there)
        if len(siblings) > FILE_LIMIT:
            raise NotACheckpoint(f"{there.show()} holds more than {FILE_LIMIT:,} files.", hint="Name one of them.")
        with translated(there):
            return commit, tuple(_listed(sibling) for sibling in siblings)

    def fetch(self, commit: str, file: HubFile, advance: Callable[[int], None]) -> tuple[Path, bool]:
        """From the cache if it is there. Raises HubError, DamagedFile or WriteError."""
        there = self._repository
        cached = try_to_load_from_cache(there.id, file.path, cache_dir=there.cache, revision=commit)
        if isinstance(cached, str):
            advance(file.size)
            return Path(cached), False
        with translated(there, file.path):
            self._require_same(commit, file)
            path = hf_hub_download(
                there.id,
                file.path,
                revision=commit,
                cache_dir=there.cache,
                endpoint=there.endpoint,
                tqdm_class=_meter(file.size, advance),
            )
        return Path(path), True

    def remember(self, commit: str) -> None:
        """As the library does when it is given a branch; a cache that is read only stays as it is."""
        ref = self._repository.storage / "refs" / self._repository.revision
        with suppress(OSError):
            if commit != self._repository.revision:
                ref.parent.mkdir(parents=True, exist_ok=True)
                ref.write_text(commit, "ascii")

    def _require_same(self, commit: str, file: HubFile) -> None:
        """What the file's own address says of it; the library makes a path of that tag."""
        there = self._repository
        url = hf_hub_url(there.id, file.path, revision=commit, endpoint=there.endpoint)
        said = get_hf_file_metadata(url, timeout=SECONDS, endpoint=there.endpoint)
        if (said.commit_hash, said.size, said.etag) != (commit, file.size, file.digest or said.etag):
            raise changed(there, file.path)
        if not re.fullmatch(r"[\w-]+", said.etag or ""):
            raise no_hub(there)


class Offline:
    """The cache alone. Its list is what was fetched before, which may not be all that the hub has."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def listing(self) -> tuple[str, tuple[HubFile, ...]]:
        """Raises HubUnreachable where the revision was never fetched."""
        there = self._repository
        commit = there.revision if _COMMIT.fullmatch(there.revision) else self._ref()
        folder = there.storage / "snapshots" / commit
        if not commit or not isdir(folder):
            raise HubUnreachable(
                f"{there.show()} at revision {escape(there.revision)} is not in the cache, and HF_HUB_OFFLINE is set.",
                hint="Unset HF_HUB_OFFLINE to fetch it, or set HF_HOME to the cache that has it.",
            )
        found = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
        return commit, tuple(_cached(folder, path) for path in sorted(found) if isfile(path))

    def remember(self, commit: str) -> None: ...

    def fetch(self, commit: str, file: HubFile, advance: Callable[[int], None]) -> tuple[Path, bool]:
        advance(file.size)
        return self._repository.storage / "snapshots" / commit / file.path, False

    def _ref(self) -> str:
        try:
            commit = (self._repository.storage / "refs" / self._repository.revision).read_text("ascii").strip()
        except (OSError, ValueError):
            return ""
        return commit if _COMMIT.fullmatch(commit) else ""


@contextmanager
def network(offline: bool) -> Iterator[None]:
    """The library reads its switch once, when it is imported; the commands keep it off for all but this block.

    Its log would show words of the server as they come; what matters of it is in our errors.
    """
    log = logging.getLogger("huggingface_hub")
    before, level = constants.HF_HUB_OFFLINE, log.level
    constants.HF_HUB_OFFLINE = offline
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        constants.HF_HUB_OFFLINE = before
        log.setLevel(level)


def _listed(sibling: Any) -> HubFile:
    digest, size = (sibling.lfs.sha256, sibling.lfs.size) if sibling.lfs else (sibling.blob_id, sibling.size)
    if type(size) is not int or size < 0 or not isinstance(sibling.rfilename, str):
        raise ValueError("a file without a size")
    return HubFile(sibling.rfilename, size, digest if _DIGEST.fullmatch(digest or "") else "")


def _cached(folder: Path, path: Path) -> HubFile:
    """The cache names what a snapshot links to by its hash; where it has copies instead, nothing is known of them."""
    name = path.readlink().name if path.is_symlink() else ""
    relpath = path.relative_to(folder).as_posix()
    return HubFile(relpath, path.stat().st_size, name if _DIGEST.fullmatch(name) else "")


def _meter(limit: int, advance: Callable[[int], None]) -> type:
    """What the library takes for a progress bar: it counts, and stops a server that never does."""

    class Meter:
        total: int | None = None

        def __init__(self, **options: object) -> None:
            self.n = 0

        def __enter__(self) -> Meter:
            return self

        def __exit__(self, *error: object) -> None: ...

        def update(self, count: float | None = 1) -> None:
            self.n += int(count or 0)
            if self.n > limit:
                raise TooMuch
            advance(int(count or 0))

        def update_transfer(self, count: float | None = 1) -> None: ...
        def set_postfix_str(self, *words: object, **options: object) -> None: ...
        def set_transfer_postfix_str(self, *words: object, **options: object) -> None: ...
        def refresh(self) -> None: ...
        def close(self) -> None: ...

    return Meter
