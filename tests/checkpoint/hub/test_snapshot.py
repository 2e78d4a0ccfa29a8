"""A snapshot: one commit, fetched once, in a folder that comes and goes; and disks that do not play along."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from sau_scan.checkpoint.hub import Hub, resolve
from sau_scan.checkpoint.hub import snapshot as snapshots
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.errors import NotOnHub, WriteError
from tests.checkpoint.hub.conftest import LORA, UNET, Fetch, Silent, refused
from tests.hub_server import FakeHub, files_below


def test_what_is_fetched_from_where_is_told_before(hub: FakeHub, place: Hub) -> None:
    progress = Silent()
    with pytest.raises(NotOnHub):
        resolve("org/missing", "v1", progress=progress, hub=place)
    assert progress.said == [f"no path here is called org/missing: fetch it at v1 from {hub.endpoint}"]


def test_a_snapshot_opens_like_any_folder(folder: dict[str, bytes], fetch: Fetch) -> None:
    checkpoint = open_checkpoint(fetch("org/name").root)
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in folder.items()}
    assert {record.path: record.sha256 for record in checkpoint.records} == digests
    assert not checkpoint.links_out and not checkpoint.skipped


def test_nothing_is_fetched_or_copied_twice(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch, place: Hub) -> None:
    assert fetch("org/name").commit == fetch("org/name").commit
    assert sorted(hub.fetched()) == sorted(folder)
    blobs = [path for path in (place.cache or Path()).rglob("blobs/*") if path.stat().st_nlink == 3]
    assert len(blobs) == len({*folder.values()})


def test_a_closed_snapshot_leaves_the_cache_alone(folder: dict[str, bytes], fetch: Fetch) -> None:
    with fetch("org/name") as got:
        blobs = got.folder.parent / "blobs"
    assert not got.folder.exists() and len([*blobs.iterdir()]) == len({*folder.values()})


def test_progress_counts_megabytes(hub: FakeHub, place: Hub) -> None:
    hub.repo("org/lora").push({LORA: bytes(3_500_000)})
    progress = Silent()
    with resolve("org/lora", progress=progress, hub=place) as got:
        assert progress.total == progress.units == 3
        assert progress.summary == f"1 files, 3.5 MB of org/lora at commit {got.commit[:12]}"


def test_a_branch_that_moves_meanwhile_changes_nothing(
    hub: FakeHub, folder: dict[str, bytes], fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, repo = hub.repo("org/name").branches["main"], hub.repo("org/name")
    choose = snapshots.folder_files

    def moving(*given: object) -> object:
        repo.push(folder | {UNET: b"another"})
        return choose(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshots, "folder_files", moving)
    got = fetch("org/name")
    assert got.commit == before != repo.branches["main"] and (got.root / UNET).read_bytes() == folder[UNET]


def test_revisions(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch) -> None:
    old, new = hub.repo("org/name").branches["main"], hub.repo("org/name").push(folder | {UNET: b"new"})
    hub.repo("org/name").branches["refs/pr/1"] = old
    assert (fetch("org/name").commit, fetch("org/name", old).commit) == (new, old)
    got = fetch("org/name", "refs/pr/1")
    assert (got.revision, got.commit) == ("refs/pr/1", old)


def test_full_and_read_only_disks(
    folder: dict[str, bytes], fetch: Fetch, place: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*given: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", full)
        refused(WriteError, "The disk is full", lambda: fetch("org/name"))
    blocked = tmp_path / "file"
    blocked.touch()
    refused(WriteError, "cannot be written", lambda: fetch("org/name", cache=blocked / "cache"))


def test_copies_where_there_can_be_no_links(
    folder: dict[str, bytes], fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr("sau_scan.checkpoint.hub.folder.os.link", refuse)
    got = fetch("org/name")
    assert files_below(got.root) == folder and (got.root / UNET).stat().st_nlink == 1


def test_an_interrupt_leaves_nothing(
    folder: dict[str, bytes], fetch: Fetch, place: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.file_download.http_get", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch("org/name")
    assert not [
        path for path in (place.cache or Path()).rglob("*") if path.name.startswith(".sau") or "incom" in path.name
    ]
