"""Which files of a repository are fetched."""

from __future__ import annotations

import pytest

from sau_scan.errors import NotOnHub
from tests.checkpoint.hub.conftest import LORA, UNET, Fetch, refused
from tests.hub_server import FakeHub, files_below


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
        (["adapter_model.bin", "optimizer.bin"], "adapter_model.bin"),
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
    ("adapter", "other"),
    [
        ("adapter_model.safetensors", LORA),
        ("adapter_model.bin", "decoy.safetensors"),
        ("adapter_model.safetensors", "last/optimizer.pt"),
    ],
)
def test_what_peft_wrote_is_not_chosen_among_other_weights(
    hub: FakeHub, fetch: Fetch, adapter: str, other: str
) -> None:
    """diffusers prefers its own name to PEFT's, and PEFT its own to any other."""
    hub.repo("org/lora").push({"adapter_config.json": b"{}", adapter: b"w", other: b"o"})
    refused(NotOnHub, f"{adapter} and {other}; programs differ", lambda: fetch("org/lora"))
    assert hub.fetched() == []
    assert fetch(f"org/lora/{adapter}").root.read_bytes() == b"w"


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


def test_an_index_that_names_nothing(hub: FakeHub, fetch: Fetch) -> None:
    hub.repo("org/name").push({"model_index.json": b'{"unet": 3, "vae": ["a"]}', "unet/x.safetensors": b""})
    assert [file.path for file in fetch("org/name").files] == ["model_index.json"]
