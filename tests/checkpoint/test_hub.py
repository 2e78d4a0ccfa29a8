"""The hub: names, choice, transfer, and everything that can go wrong with them, against a server of our own."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sau_scan.checkpoint.hub import Hub, HubSnapshot, asked_offline, from_address, looks_like_hub_id, resolve
from sau_scan.checkpoint.hub import snapshot as snapshots
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.errors import (
    DamagedFile,
    HubError,
    HubUnreachable,
    NoAccess,
    NotACheckpoint,
    NotOnHub,
    SauScanError,
    UnsafeFile,
    UsageError,
    WriteError,
)
from tests.hub_server import FakeHub, Lie, files_below, serving

UNET = "unet/diffusion_pytorch_model.safetensors"
LORA = "pytorch_lora_weights.safetensors"
Fetch = Callable[..., HubSnapshot]


class Silent:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.total = self.units = 0
        self.summary = ""
        self.said: list[str] = []

    def plan(self, text: str) -> None:
        self.said.append(text)

    def stage(self, name: str, total: int) -> None:
        self.total = total

    def advance(self, units: int = 1) -> None:
        self.units += units

    def done(self, summary: str) -> None:
        self.summary = summary


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving() as server:
        yield server


@pytest.fixture
def place(hub: FakeHub, tmp_path: Path) -> Hub:
    return Hub(endpoint=hub.endpoint, cache=tmp_path / "cache", offline=False)


@pytest.fixture
def fetch(place: Hub) -> Iterator[Fetch]:
    """:func:`resolve` from the server; what it gave is cleared away."""
    given: list[HubSnapshot] = []

    def call(name: str, revision: str | None = None, *, variant: str | None = None, **changes: object) -> HubSnapshot:
        where = replace(place, **changes)  # type: ignore[arg-type]
        given.append(resolve(name, revision, variant=variant, progress=Silent(), hub=where))
        return given[-1]

    yield call
    for snapshot in given:
        snapshot.close()


@pytest.fixture
def folder(hub: FakeHub, tiny_checkpoint: Path) -> dict[str, bytes]:
    """The files of ``org/name`` on the server."""
    files = files_below(tiny_checkpoint)
    hub.repo("org/name").push(files)
    return files


def refused(kind: type[SauScanError], words: str, call: Callable[[], object]) -> None:
    """``call`` raises exactly this kind, with these words, and a hint."""
    with pytest.raises(kind, match=words) as caught:
        call()
    assert type(caught.value) is kind and caught.value.hint and caught.value.exit_code in (2, 3)


@pytest.mark.parametrize(
    ("text", "is_id"),
    [
        ("org/name", True),
        ("org/name/file.safetensors", True),
        ("org/a.b_c-1/sub/file.ckpt", True),
        ("name", False),
        ("./org/name", False),
        ("/org/name", False),
        ("org/name/", False),
        ("org//name", False),
        ("org/../name", False),
        ("org/name/../x", False),
        ("~/name", False),
        ("org/name.safetensors", False),
        ("org/na--me", False),
        ("org/n\u0430me", False),
        ("org/name/a\\b", False),
        ("https://huggingface.co/org/name", False),
        ("org/name@v1", True),
        ("org/name@refs%2Fpr%2F1/file.safetensors", True),
        ("org/name@", False),
        ("org@v1/name", False),
        ("huggingface.co/org/name", False),
        ("hf.co/org", False),
    ],
)
def test_names(text: str, is_id: bool) -> None:
    assert looks_like_hub_id(text) is is_id


def test_what_could_be_a_path_here_is_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert looks_like_hub_id("build/model") and looks_like_hub_id("build/model/x.ckpt")
    Path("build").mkdir()
    assert not looks_like_hub_id("build/model") and not looks_like_hub_id("build/model/x.ckpt")
    assert looks_like_hub_id("build/model@main")
    Path("build/model@main").mkdir()
    assert not looks_like_hub_id("build/model@main")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://huggingface.co/org/name", "org/name@main"),
        ("https://hf.co/org/name/", "org/name@main"),
        ("https://huggingface.co/org/name/tree/v1", "org/name@v1"),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F1", "org/name@refs%2Fpr%2F1"),
        ("https://huggingface.co/org/name/blob/main/a/b.ckpt", "org/name@main/a/b.ckpt"),
        ("https://huggingface.co/org/name/resolve/v1/b.ckpt?download=true", "org/name@v1/b.ckpt"),
        ("huggingface.co/org/name", "org/name@main"),
        ("hf.co/org/name/blob/v1/b.ckpt", "org/name@v1/b.ckpt"),
        ("org/name", "org/name"),
    ],
)
def test_addresses(address: str, name: str) -> None:
    assert from_address(address) == name and looks_like_hub_id(name)


@pytest.mark.parametrize(
    "address",
    ["https://example.org/org/name", "https://huggingface.co/datasets/a/b", "https://huggingface.co/org", "hf.co/org"],
)
def test_nothing_else_is_fetched(address: str) -> None:
    with pytest.raises(ValueError, match="download it first"):
        from_address(address)


@pytest.mark.parametrize(
    "path", ["..%2F..%2Fetc/passwd", "org/..", "org/na%2Fme", "a%2Fb/name", "org/name/blob/main/..%2Fx.bin", "org/a--b"]
)
def test_an_address_is_a_name_of_the_hub_or_nothing(path: str) -> None:
    with pytest.raises(ValueError, match="no address of a model"):
        from_address(f"https://huggingface.co/{path}")


def test_an_address_never_means_what_lies_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("org/name@main").mkdir(parents=True)
    with pytest.raises(ValueError, match="under that name"):
        from_address("https://huggingface.co/org/name")


def test_a_revision_in_the_name(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch) -> None:
    old = hub.repo("org/name").branches["main"]
    hub.repo("org/name").push(folder | {UNET: b"new"})
    hub.repo("org/name").branches["refs/pr/1"] = old
    assert fetch(f"org/name@{old}").commit == fetch("org/name@refs%2Fpr%2F1").commit == old
    assert fetch(f"org/name@{old}/{UNET}").root.read_bytes() == folder[UNET]
    refused(UsageError, "another revision", lambda: fetch("org/name@v1", "v2"))


def test_what_is_fetched_from_where_is_told_before(hub: FakeHub, place: Hub) -> None:
    progress = Silent()
    with pytest.raises(NotOnHub):
        resolve("org/missing", "v1", progress=progress, hub=place)
    assert progress.said == [f"no path here is called org/missing: fetch it at v1 from {hub.endpoint}"]


@pytest.mark.parametrize(("value", "is_offline"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_the_wish_for_no_network(value: str, is_offline: bool) -> None:
    assert asked_offline({"HF_HUB_OFFLINE": value}) is asked_offline({"TRANSFORMERS_OFFLINE": value}) is is_offline


def test_only_what_diffusers_would_load_is_fetched(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch) -> None:
    unneeded = {
        "README.md": b"about",
        "pictures/1.png": b"picture",
        "v1.safetensors": b"weights",
        "v1.ckpt": b"pickle",
        "unet/diffusion_pytorch_model.bin": b"pickle",
        "unet/diffusion_pytorch_model.fp16.safetensors": b"variant",
        "unet/model.py": b"code",
        "other/config.json": b"{}",
    }
    commit = hub.repo("org/name").push(folder | unneeded)
    got = fetch("org/name")
    assert files_below(got.root) == folder
    assert not {*hub.fetched()} & {*unneeded}
    assert (got.site, got.name, got.revision, got.commit) == (hub.endpoint, "org/name", "main", commit)
    left = {skipped.what: skipped.reason for skipped in got.left}
    assert left["unet/model.py"] == "not fetched: code, which is never run"
    assert left.keys() >= {name for name in unneeded if not name.endswith((".md", ".png", ".json"))}
    assert left["3 other files on the hub"]


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


def test_variants(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch) -> None:
    half = UNET.replace(".safetensors", ".fp16.safetensors")
    hub.repo("org/name").push(folder | {half: b"half"})
    names = {file.path for file in fetch("org/name", variant="fp16").files}
    assert half in names and UNET not in names


def test_pickles_only_where_there_is_nothing_better(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch) -> None:
    pickle = UNET.replace(".safetensors", ".bin")
    hub.repo("org/name").push({path: data for path, data in folder.items() if path != UNET} | {pickle: b"pickle"})
    assert pickle in {file.path for file in fetch("org/name").files}


def test_shards_come_with_their_index(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch) -> None:
    stem = "unet/diffusion_pytorch_model"
    shards = {f"{stem}-00001-of-00002.safetensors": b"1", f"{stem}-00002-of-00002.safetensors": b"2"}
    shards[f"{stem}.safetensors.index.json"] = b"{}"
    hub.repo("org/name").push({path: data for path, data in folder.items() if path != UNET} | shards)
    assert {file.path for file in fetch("org/name").files} >= {*shards}


def test_one_file_by_its_name(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch) -> None:
    hub.repo("org/name").push(folder | {"old/v1.ckpt": b"pickle"})
    got = fetch("org/name/old/v1.ckpt")
    assert got.root == got.folder / "old/v1.ckpt" and got.root.read_bytes() == b"pickle"
    assert got.name == "org/name/old/v1.ckpt" and hub.fetched() == ["old/v1.ckpt"]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["style.safetensors", "style.ckpt", "README.md"], "style.safetensors"),
        (["style.pt"], "style.pt"),
        ([LORA, "other.safetensors", "checkpoint-500/" + LORA], LORA),
        (["learned_embeds.bin", "optimizer.bin"], "learned_embeds.bin"),
    ],
)
def test_the_file_of_a_repository_without_an_index(hub: FakeHub, fetch: Fetch, names: list[str], chosen: str) -> None:
    hub.repo("org/lora").push({name: name.encode() for name in names})
    got = fetch("org/lora")
    assert got.root.read_bytes() == chosen.encode() and hub.fetched() == [chosen]


def test_a_configuration_beside_the_file_comes_along(hub: FakeHub, fetch: Fetch) -> None:
    hub.repo("org/lora").push({"a/adapter_model.safetensors": b"w", "a/adapter_config.json": b"{}", "config.json": b""})
    got = fetch("org/lora/a/adapter_model.safetensors")
    assert files_below(got.folder).keys() == {"a/adapter_model.safetensors", "a/adapter_config.json"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("org/many", "no model_index.json, and several files"),
        ("org/many/c.safetensors", "has no file c.safetensors"),
        ("org/many/readme.md", "no weights that can be opened"),
        ("org/none", "no file of weights at its top"),
    ],
)
def test_a_file_must_be_named_where_several_fit(hub: FakeHub, fetch: Fetch, name: str, words: str) -> None:
    hub.repo("org/many").push({"a.safetensors": b"", "b.safetensors": b"", "readme.md": b""})
    hub.repo("org/none").push({"readme.md": b"", "sub/\x1b.ckpt": b""})
    refused(NotOnHub, words, lambda: fetch(name))
    with pytest.raises(NotOnHub) as caught:
        fetch("org/many")
    assert "org/many/a.safetensors" in caught.value.hint


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


@pytest.mark.parametrize("revision", ["", "../main", "a b", "/main", "x\x1b"])
def test_no_name_of_a_revision(fetch: Fetch, revision: str) -> None:
    refused(UsageError, "no name of a revision", lambda: fetch("org/name", revision))


def test_what_is_not_there(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch) -> None:
    refused(NotOnHub, "neither a path on this machine nor a repository", lambda: fetch("org/missing"))
    refused(NotOnHub, "has no revision v9", lambda: fetch("org/name", "v9"))
    refused(NotOnHub, "has no revision", lambda: fetch("org/name", "0" * 40))


def test_private_and_gated(
    hub: FakeHub, folder: dict[str, bytes], fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repo("org/name").private = True
    hub.repo("org/gated").push(folder)
    hub.repo("org/gated").gated = True
    refused(NotOnHub, "org/name is neither", lambda: fetch("org/name"))
    refused(NoAccess, "org/gated is gated", lambda: fetch("org/gated"))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(NoAccess, "not shown to this token", lambda: fetch("org/name"))
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert fetch("org/name").files and fetch("org/gated").files
    # The store of large files is another host: the token is none of its business.
    served = [line for line in hub.requests if line.startswith("GET") and "/resolve/" in line]
    assert all(line.endswith(" token") != line.split()[1].endswith(".safetensors") for line in served)


def test_offline(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch) -> None:
    refused(HubUnreachable, "not in the cache", lambda: fetch("org/name", offline=True))
    online = fetch("org/name")
    hub.requests.clear()
    for revision in (None, online.commit):
        got = fetch("org/name", revision, offline=True)
        assert got.commit == online.commit and files_below(got.root) == folder
        assert "HF_HUB_OFFLINE" in got.left[-1].reason
    refused(HubUnreachable, "at revision v2 is not in the cache", lambda: fetch("org/name", "v2", offline=True))
    assert not hub.requests


def test_no_network(folder: dict[str, bytes], fetch: Fetch) -> None:
    fetch("org/name")
    # What was fetched before may be out of date: it is for the user to say that it will do.
    refused(HubUnreachable, "cannot be reached", lambda: fetch("org/name", endpoint="http://127.0.0.1:9"))


def test_the_library_stays_offline_but_for_the_named(
    folder: dict[str, bytes], fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("org/name").files and constants.HF_HUB_OFFLINE
    refused(NotOnHub, "org/missing", lambda: fetch("org/missing"))
    assert constants.HF_HUB_OFFLINE


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


def test_an_index_that_names_nothing(hub: FakeHub, fetch: Fetch) -> None:
    hub.repo("org/name").push({"model_index.json": b'{"unet": 3, "vae": ["a"]}', "unet/x.safetensors": b""})
    assert [file.path for file in fetch("org/name").files] == ["model_index.json"]


@pytest.mark.parametrize("answer", [{}, {"sha": "main"}, {"sha": "../../x"}, {"sha": "0" * 40, "siblings": [{}]}, []])
def test_a_server_that_is_no_hub(hub: FakeHub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    hub.repo("org/name").push({"a.ckpt": b""})
    monkeypatch.setattr("tests.hub_server.json.dumps", lambda value: json.JSONEncoder().encode(answer))
    refused(HubError, "does not answer as the hub does", lambda: fetch("org/name"))


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


SCRIPT = """
import sys
from sau_scan.checkpoint.hub import looks_like_hub_id, resolve
assert looks_like_hub_id("org/name") and "huggingface_hub" not in sys.modules and "torch" not in sys.modules
from tests.checkpoint.test_hub import Silent
with resolve("org/name", progress=Silent()) as got:
    print(got.commit, got.folder)
"""


def test_the_environment_is_honoured(hub: FakeHub, folder: dict[str, bytes], tmp_path: Path) -> None:
    hub.repo("org/name").private = True
    names = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_TOKEN": hub.token}

    def run(**more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=os.environ | names | more, capture_output=True, text=True, check=True
        )
        assert not done.stderr
        return done.stdout

    printed = run()
    commit, place = printed.split()
    assert commit == hub.repo("org/name").branches["main"] and place.startswith(str(tmp_path / "hub"))
    hub.requests.clear()
    assert run(HF_HUB_OFFLINE="1").split()[0] == commit and not hub.requests
    assert not Path(place).exists()
