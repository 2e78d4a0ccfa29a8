"""Names and addresses of what lies on the hub, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from sau_scan.checkpoint.hub import from_address, looks_like_hub_id
from sau_scan.errors import UsageError
from tests.checkpoint.hub.conftest import UNET, Fetch, refused
from tests.hub_server import FakeHub


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
        ("https://huggingface.co/org/name", "org/name"),
        ("https://hf.co/org/name/", "org/name"),
        ("https://huggingface.co/org/name.pt", "org/name.pt@main"),
        ("https://huggingface.co/org/name/tree/v1", "org/name@v1"),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F1", "org/name@refs%2Fpr%2F1"),
        ("https://huggingface.co/org/name/blob/main/a/b.ckpt", "org/name@main/a/b.ckpt"),
        ("https://huggingface.co/org/name/resolve/v1/b.ckpt?download=true", "org/name@v1/b.ckpt"),
        ("huggingface.co/org/name", "org/name"),
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
    Path("org/name").mkdir(parents=True)
    assert from_address("https://huggingface.co/org/name") == "org/name@main"
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
    assert fetch(from_address("huggingface.co/org/name"), old).commit == old


@pytest.mark.parametrize("revision", ["", "../main", "a b", "/main", "x\x1b"])
def test_no_name_of_a_revision(fetch: Fetch, revision: str) -> None:
    refused(UsageError, "no name of a revision", lambda: fetch("org/name", revision))
