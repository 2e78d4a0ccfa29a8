"""From the name of a repository to a snapshot of it."""

from __future__ import annotations

import atexit
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sau_scan.checkpoint.hub.choice import folder_files, is_plain, single_file
from sau_scan.checkpoint.naming import TEXTS, WEIGHT_NAMES
from sau_scan.checkpoint.source import INDEX, JSON_LIMIT, parse_json
from sau_scan.errors import DamagedFile, NotACheckpoint, UsageError
from sau_scan.findings import Skipped, escape
from sau_scan.options import Progress

if TYPE_CHECKING:
    from sau_scan.checkpoint.hub.client import HubFile
    from sau_scan.checkpoint.hub.folder import Transfer
    from sau_scan.checkpoint.hub.refusals import Repository

DEFAULT_REVISION = "main"
_PART = re.compile(r"[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
_TRUE = {"1", "ON", "YES", "TRUE"}


@dataclass(frozen=True)
class HubSnapshot:
    """The needed files of a repository at a commit, verified. ``root`` is what to open: a folder, or the named file.

    ``site``: address of the hub. ``left``: what stays there, and why. ``folder`` is private and goes when this is
    closed, at the latest when the program ends; use it in a ``with`` block that lasts as long as anything is read.
    """

    site: str
    id: str
    revision: str
    commit: str
    root: Path
    files: tuple[HubFile, ...]
    left: tuple[Skipped, ...]
    folder: Path

    @property
    def name(self) -> str:
        """The repository, or the file of it that is scanned."""
        return f"{self.id}/{self.root.relative_to(self.folder).as_posix()}".removesuffix("/.")

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Hub:
    """Where the hub and its cache are; what is None is as the environment says (HF_ENDPOINT, HF_HOME, ...)."""

    endpoint: str | None = None
    cache: Path | None = None
    offline: bool | None = None


def looks_like_hub_id(text: str) -> bool:
    """Whether ``text``, as it was typed, is to be looked for on the hub: it has the form, and nothing here has it."""
    parts = text.split("/")
    if len(parts) < 2 or not all(_PART.fullmatch(part) for part in parts[:2]) or not is_plain(text):
        return False
    if len(parts) == 2 and Path(text).suffix.lower() in WEIGHT_NAMES:  # a file's name that was mistyped
        return False
    if any("--" in part or ".." in part or part.endswith(".git") for part in parts[:2]):
        return False
    return not os.path.lexists(text) and not (len(parts) > 2 and os.path.lexists("/".join(parts[:2])))


def asked_offline(environment: Mapping[str, str]) -> bool:
    """Whether the user wants no network; to be asked before anything else sets these variables."""
    value = environment.get("HF_HUB_OFFLINE") or environment.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in _TRUE


def resolve(
    name: str, revision: str | None = None, *, variant: str | None = None, progress: Progress, hub: Hub | None = None
) -> HubSnapshot:
    """Fetches what is needed of ``name``, as :func:`looks_like_hub_id` takes it, at a branch, tag or commit.

    Everything comes from one commit, however the branch moves. Raises HubError, NotACheckpoint for what is too large,
    DamagedFile for bytes that are not the commit's, UnsafeFile, WriteError or UsageError.
    """
    # The library takes a while to import, which those who scan a folder need not wait for.
    from sau_scan.checkpoint.hub.client import Offline, Online, Source, network
    from sau_scan.checkpoint.hub.folder import Transfer, private_folder
    from sau_scan.checkpoint.hub.refusals import Repository

    where = hub or Hub()
    offline = asked_offline(os.environ) if where.offline is None else where.offline
    parts = name.split("/")
    repository = Repository("/".join(parts[:2]), _revision(revision), where.endpoint, where.cache)
    with network(offline):
        source: Source = Offline(repository) if offline else Online(repository)
        commit, files = source.listing()
        folder = private_folder(repository)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        snapshot = HubSnapshot(repository.site, repository.id, repository.revision, commit, folder, (), (), folder)
        try:
            transfer = Transfer(repository, source, commit, folder, progress)
            filled = _filled(snapshot, files, "/".join(parts[2:]), variant, transfer)
            source.remember(commit)
        except BaseException:  # an interrupt, too, must leave nothing
            snapshot.close()
            raise
    return replace(filled, left=(*filled.left, *_never_listed(files, offline)))


def _filled(
    empty: HubSnapshot, files: Sequence[HubFile], named: str, variant: str | None, transfer: Transfer
) -> HubSnapshot:
    """The snapshot with its files: the index first, since it says which others are needed."""
    repository, root = transfer.repository, empty.root
    listed = {file.path: file for file in files if is_plain(file.path)}
    if INDEX in listed and not named:
        _require_size(repository, [listed[INDEX]])
        transfer.place(listed[INDEX])
        index = parse_json((root / INDEX).read_bytes(), repository.show(INDEX))
        selection = folder_files(index, [*listed], variant)
    else:
        chosen, selection = single_file(repository.id, [*listed], named, variant)
        root = root / chosen
    wanted = [listed[path] for path in selection.wanted]
    _require_size(repository, wanted)
    transfer.place_all(wanted)
    return replace(empty, root=root, files=tuple(wanted), left=selection.left)


def _require_size(repository: Repository, files: Sequence[HubFile]) -> None:
    """Before anything is fetched: no more than a scan would open."""
    from sau_scan.checkpoint.opening import SIZE_LIMIT  # and with it torch

    for file in files:
        if Path(file.path).suffix.lower() in TEXTS and file.size > JSON_LIMIT:
            raise DamagedFile(
                f"{repository.show(file.path)} has {file.size:,} bytes: no configuration is so large.",
                hint="Get the checkpoint from its original source, or ask its author.",
            )
    size = sum(file.size for file in files)
    if size > SIZE_LIMIT:
        raise NotACheckpoint(
            f"{repository.show()} has {size >> 30:,} GiB to scan; the limit is {SIZE_LIMIT >> 30}.",
            hint=f"Name one file of it: {repository.show()}/FILE.",
        )


def _never_listed(files: Sequence[HubFile], offline: bool) -> Iterator[Skipped]:
    for file in files:
        if not is_plain(file.path):
            yield Skipped(what=escape(file.path), reason="not fetched: a name that could lead out of the folder")
    if offline:
        yield Skipped(what="files of the repository that are not in the cache", reason="HF_HUB_OFFLINE is set")


def _revision(given: str | None) -> str:
    if given is None:
        return DEFAULT_REVISION
    if not is_plain(given) or " " in given:
        raise UsageError(
            f"--revision {escape(given)} is no name of a revision.", hint="Name a branch, a tag or a commit."
        )
    return given
