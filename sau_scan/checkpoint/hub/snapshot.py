"""From the name of a repository to a snapshot of it."""

from __future__ import annotations

import atexit
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sau_scan.checkpoint.hub.choice import folder_files, is_plain, single_file
from sau_scan.checkpoint.hub.naming import DEFAULT_REVISION, HubName
from sau_scan.checkpoint.naming import TEXTS
from sau_scan.checkpoint.source import INDEX, JSON_LIMIT, parse_json
from sau_scan.errors import DamagedFile, NotACheckpoint, UsageError
from sau_scan.findings import Skipped, escape
from sau_scan.options import Progress

if TYPE_CHECKING:
    from sau_scan.checkpoint.hub.client import HubFile
    from sau_scan.checkpoint.hub.folder import Transfer
    from sau_scan.checkpoint.hub.refusals import Repository

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


def asked_offline(environment: Mapping[str, str]) -> bool:
    """Whether the user wants no network; to be asked before anything else sets these variables."""
    value = environment.get("HF_HUB_OFFLINE") or environment.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in _TRUE


def resolve(
    name: str, revision: str | None = None, *, variant: str | None = None, progress: Progress, hub: Hub | None = None
) -> HubSnapshot:
    """Fetches what is needed of ``name``, as :func:`looks_like_hub_id` takes it, at a branch, tag or commit.

    What is asked for, and of whom, is told before anything is. Everything comes from one commit, however the branch
    moves. Raises HubError, NotACheckpoint for what is too large, DamagedFile for bytes that are not the commit's,
    UnsafeFile, WriteError or UsageError.
    """
    # The library takes a while to import, which those who scan a folder need not wait for.
    from sau_scan.checkpoint.hub.client import Offline, Online, Source, network
    from sau_scan.checkpoint.hub.folder import Transfer, private_folder
    from sau_scan.checkpoint.hub.refusals import Repository

    where = hub or Hub()
    offline = asked_offline(os.environ) if where.offline is None else where.offline
    named = HubName.of(name)
    repository = Repository(named.id, _revision(named, revision), where.endpoint, where.cache)
    place = "the cache" if offline else repository.site
    why = f"{escape(name)} names the hub" if named.revision else f"no path here is called {named.id}"
    progress.plan(f"{why}: fetch it at {repository.revision} from {place}")
    with network(offline):
        source: Source = Offline(repository) if offline else Online(repository)
        commit, files = source.listing()
        folder = private_folder(repository)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        snapshot = HubSnapshot(repository.site, repository.id, repository.revision, commit, folder, (), (), folder)
        try:
            transfer = Transfer(repository, source, commit, folder, progress)
            filled = _filled(snapshot, files, named.file, variant, transfer)
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


def _revision(named: HubName, given: str | None) -> str:
    if named.revision and given not in (None, named.revision):
        raise UsageError(
            f"{escape(str(named))} names another revision than --revision {escape(given or '')}.", hint="Name one."
        )
    revision = named.revision or DEFAULT_REVISION if given is None else given
    if not is_plain(revision) or " " in revision:
        raise UsageError(
            f"--revision {escape(revision)} is no name of a revision.", hint="Name a branch, a tag or a commit."
        )
    return revision
