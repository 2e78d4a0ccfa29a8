"""A server, a repository or a cache that lies: nothing of it is taken, and nothing of it is left."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from sau_scan.checkpoint.hub import Hub
from sau_scan.errors import DamagedFile, HubError, NotACheckpoint, UnsafeFile
from tests.checkpoint.hub.conftest import UNET, Fetch, refused
from tests.hub_server import FakeHub, Lie, files_below


@pytest.mark.parametrize(
    ("path", "lie"),
    [
        (UNET, Lie(tag="0" * 64)),
        (UNET, Lie(tag="../../../../x")),
        (UNET, Lie(size=5)),
        (UNET, Lie(commit="0" * 40)),
        (UNET, Lie(content=b"short")),
        ("unet/config.json", Lie(content=b"{}")),
        ("unet/config.json", Lie(tag="0" * 40)),
    ],
)
def test_answers_that_do_not_fit_the_commit(
    hub: FakeHub, folder: dict[str, bytes], fetch: Fetch, place: Hub, path: str, lie: Lie
) -> None:
    hub.lies[path] = lie
    refused(DamagedFile, f"org/name/{path} as fetched is not", lambda: fetch("org/name"))
    assert not [*(place.cache or Path()).rglob(".sau-scan-*")]
    hub.lies.clear()
    assert files_below(fetch("org/name").root) == folder  # nothing wrong is left in the cache


@pytest.mark.parametrize("extra", [0, 50_000_000])
def test_bytes_of_another_file(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch, extra: int) -> None:
    wrong = bytes([folder[UNET][0] ^ 1]) + folder[UNET][1:] + bytes(extra)
    hub.lies[UNET] = Lie(content=wrong)
    refused(DamagedFile, "size or hash differ", lambda: fetch("org/name"))
    hub.lies.clear()
    assert (fetch("org/name").root / UNET).read_bytes() == folder[UNET]


def test_a_file_that_never_ends(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch) -> None:
    hub.lies[UNET] = Lie(endless=400)
    refused(DamagedFile, "size or hash differ", lambda: fetch("org/name"))
    assert 0 < hub.megabytes < 200


def test_a_commit_that_is_another(hub: FakeHub, fetch: Fetch) -> None:
    commit = hub.repo("org/name").push({"a.ckpt": b""})
    hub.repo("org/name").branches["0" * 40] = commit
    refused(HubError, "does not answer as the hub does", lambda: fetch("org/name", "0" * 40))


@pytest.mark.parametrize("offline", [False, True])
def test_a_cache_that_was_tampered_with(folder: dict[str, bytes], fetch: Fetch, place: Hub, offline: bool) -> None:
    snapshot = fetch("org/name")
    blob = snapshot.folder.parent / "blobs" / hashlib.sha256(folder[UNET]).hexdigest()
    snapshot.close()
    blob.write_bytes(b"x" * len(folder[UNET]))
    refused(DamagedFile, "in the cache is not the file", lambda: fetch("org/name", offline=offline))
    assert blob.exists()  # it is for the owner of the cache to remove


def test_a_link_out_of_the_cache(folder: dict[str, bytes], fetch: Fetch, tmp_path: Path) -> None:
    first = fetch("org/name")
    pointer = first.folder.parent / "snapshots" / first.commit / UNET
    (tmp_path / "secret").write_bytes(folder[UNET])
    pointer.unlink()
    pointer.symlink_to(tmp_path / "secret")
    refused(UnsafeFile, "leaves the cache", lambda: fetch("org/name"))
    refused(UnsafeFile, "leaves the cache", lambda: fetch("org/name", offline=True))


def test_too_large_is_refused_before_anything_is_fetched(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch) -> None:
    hub.lies = {UNET: Lie(listed=2**40), "model_index.json": Lie()}
    refused(NotACheckpoint, "1,024 GiB to scan", lambda: fetch("org/name"))
    assert hub.fetched() == ["model_index.json"]
    hub.lies = {"model_index.json": Lie(listed=2**30)}
    refused(DamagedFile, "no configuration is so large", lambda: fetch("org/name"))
    hub.repo("org/many").push({f"{number}.bin": b"" for number in range(10_001)})
    refused(NotACheckpoint, "more than 10,000 files", lambda: fetch("org/many"))


def test_hostile_names_stay_on_the_hub(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch, tmp_path: Path) -> None:
    index = json.loads(folder["model_index.json"]) | {"..": ["diffusers", "X"], "/tmp": ["diffusers", "X"]}
    bad = {"../config.json": b"{}", "/tmp/config.json": b"{}", "unet/a\x1b.json": b"{}", "unet/..\\x.json": b"{}"}
    hub.repo("org/name").push(folder | bad | {"model_index.json": json.dumps(index).encode()})
    got = fetch("org/name")
    assert files_below(got.root).keys() == folder.keys()
    told = {skipped.what for skipped in got.left if "lead out of the folder" in skipped.reason}
    assert told == {"../config.json", "/tmp/config.json", r"unet/a\x1b.json", r"unet/..\\x.json"}


@pytest.mark.parametrize("index", [b"[]", b"{", b"\xff"])
def test_an_index_that_is_none(hub: FakeHub, fetch: Fetch, index: bytes) -> None:
    hub.repo("org/name").push({"model_index.json": index, "unet/x.safetensors": b""})
    refused(DamagedFile, "JSON", lambda: fetch("org/name"))


@pytest.mark.parametrize("answer", [{}, {"sha": "main"}, {"sha": "../../x"}, {"sha": "0" * 40, "siblings": [{}]}, []])
def test_a_server_that_is_no_hub(hub: FakeHub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    hub.repo("org/name").push({"a.ckpt": b""})
    monkeypatch.setattr("tests.hub_server.json.dumps", lambda value: json.JSONEncoder().encode(answer))
    refused(HubError, "does not answer as the hub does", lambda: fetch("org/name"))
