"""Opening a folder: what is hashed, what is skipped, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from sau_scan.checkpoint.files import opened
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint, UnsafeFile
from sau_scan.findings import Finding
from sau_scan.static import open_vetted
from sau_scan.static.vetting import vet_file
from tests.conftest import Lock

UNET = "unet/diffusion_pytorch_model.safetensors"


def reasons(path: Path, **options: str) -> dict[str, str]:
    return {skipped.what: skipped.reason for skipped in open_checkpoint(path, **options).skipped}


def test_every_file_is_hashed_and_read_back(tiny_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    on_disk = {str(p.relative_to(tiny_checkpoint)) for p in tiny_checkpoint.rglob("*") if p.is_file()}
    assert {record.path for record in checkpoint.records} == on_disk
    assert checkpoint.skipped == ()
    for record in checkpoint.records:
        data = checkpoint.read(record.path)
        assert data == (tiny_checkpoint / record.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (record.size, record.sha256)


@pytest.mark.parametrize("make", ["missing", "empty", "file", "no_index", "nested", "long"])
def test_not_a_checkpoint(make: str, tmp_path: Path, tiny_checkpoint: Path) -> None:
    path = tmp_path / "model"
    if make == "file":
        path.write_bytes(b"x")
    elif make == "long":
        path = tmp_path / ("x" * 5000)
    elif make != "missing":
        path.mkdir()
    if make == "no_index":
        (path / "README.md").write_text("nothing")
    if make == "nested":
        shutil.copytree(tiny_checkpoint, path / "inner")
    with pytest.raises(NotACheckpoint) as caught:
        open_checkpoint(path)
    assert caught.value.hint
    if make == "nested":
        assert "inner" in caught.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe{}", b"[" * 100_000, b"null", b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_an_index_that_is_not_json(content: bytes, copy_of: Path) -> None:
    (copy_of / "model_index.json").write_bytes(content)
    with pytest.raises(DamagedFile):
        open_checkpoint(copy_of)


def test_a_folder_that_may_not_be_entered(copy_of: Path, tiny_checkpoint: Path, lock: Lock) -> None:
    lock(copy_of)
    with pytest.raises(NotACheckpoint, match="Permission denied"):
        open_checkpoint(copy_of, base=tiny_checkpoint)


def test_a_changed_file_is_not_read(copy_of: Path) -> None:
    checkpoint = open_checkpoint(copy_of)
    data = bytearray((copy_of / UNET).read_bytes())
    data[-1] ^= 1
    (copy_of / UNET).write_bytes(data)
    with pytest.raises(DamagedFile, match="changed"):
        checkpoint.read(UNET)


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"x"])
def test_a_file_of_another_size_is_not_read(change, copy_of: Path) -> None:  # type: ignore[no-untyped-def]
    checkpoint = open_checkpoint(copy_of)
    (copy_of / UNET).write_bytes(change((copy_of / UNET).read_bytes()))
    with pytest.raises(DamagedFile, match="changed"):
        checkpoint.read(UNET)


def test_a_file_swapped_for_a_link_or_pipe_is_not_read(copy_of: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(copy_of)
    outside = tmp_path / "outside"
    shutil.move(copy_of / UNET, outside)
    (copy_of / UNET).symlink_to(outside)
    with pytest.raises(UnsafeFile):
        checkpoint.read(UNET)
    (copy_of / UNET).unlink()
    os.mkfifo(copy_of / UNET)
    with pytest.raises(UnsafeFile):
        checkpoint.read(UNET)
    (copy_of / UNET).unlink()
    with pytest.raises(CheckpointError):
        checkpoint.read(UNET)


def test_links_are_followed_inside_and_refused_outside(copy_of: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (copy_of / "out.json").symlink_to(secret)
    (copy_of / "in.json").symlink_to(copy_of / "model_index.json")
    (copy_of / "broken.json").symlink_to(copy_of / "nowhere")
    (copy_of / "loop").symlink_to(copy_of)
    (copy_of / "root").symlink_to("/")
    checkpoint = open_checkpoint(copy_of)
    assert checkpoint.links_out == ("out.json", "root")
    assert checkpoint.read("in.json") == checkpoint.read("model_index.json")
    assert {"out.json", "broken.json", "loop", "root"} <= {skipped.what for skipped in checkpoint.skipped}
    with pytest.raises(UnsafeFile, match="leaves the folder"):
        checkpoint.read("out.json")
    with pytest.raises(UnsafeFile):
        checkpoint.read("root/etc/passwd")


def test_a_snapshot_of_the_hubs_cache_is_its_blobs(copy_of: Path, tmp_path: Path) -> None:
    snapshot = cached(copy_of, tmp_path / "hub/models--org--name")
    checkpoint = open_checkpoint(snapshot)
    assert not checkpoint.links_out and not checkpoint.skipped
    assert checkpoint.records == open_checkpoint(copy_of).records
    assert vet_file(snapshot) == []


@pytest.mark.parametrize("where", ["models--org--name/refs/x", "models--org--name/blobs/x/y", "models--other/blobs/x"])
def test_links_of_a_snapshot_lead_to_its_blobs_only(where: str, copy_of: Path, tmp_path: Path) -> None:
    snapshot = cached(copy_of, tmp_path / "models--org--name")
    secret = tmp_path / where
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text("{}")
    (snapshot / "direct.json").symlink_to(secret)
    (tmp_path / "models--org--name/blobs/link").symlink_to(secret)
    (snapshot / "around.json").symlink_to("../../blobs/link")
    assert open_checkpoint(snapshot).links_out == ("around.json", "direct.json")
    assert [note.id for note in vet_file(snapshot) if isinstance(note, Finding)] == ["file/link-outside"] * 2
    (snapshot / UNET).unlink()
    (snapshot / UNET).symlink_to(secret)
    with pytest.raises(UnsafeFile, match="leaves the folder"), opened(snapshot, UNET):
        pass


def test_what_a_snapshot_hides_is_read_as_in_a_copy(copy_of: Path, tmp_path: Path) -> None:
    """Its files are links, which a listing passes over; those that no listing shows are read, too."""
    for name in (".x/evil.pkl", "unet/.y/pytorch_model.bin", "unet/e\x1bvil.bin", "a/b/c/d/e/f/g/h/deep.pkl"):
        (copy_of / name).parent.mkdir(parents=True, exist_ok=True)
        (copy_of / name).write_bytes(b"cposix\nsystem\n(Vtrue\ntR.")
    snapshot = cached(copy_of, tmp_path / "models--org--name")
    told = [
        [(n.id, n.location and n.location.path) for n in open_vetted(f)[1] if isinstance(n, Finding)]
        for f in (copy_of, snapshot)
    ]
    assert told[0] == told[1]
    assert [rule for rule, _ in told[1]].count("file/pickle-danger") == 4


def test_a_folder_among_the_blobs_is_none_of_a_snapshots_files(copy_of: Path, tmp_path: Path) -> None:
    snapshot = cached(copy_of, tmp_path / "models--org--name")
    (tmp_path / "models--org--name/blobs/d").mkdir()
    (snapshot / "safety_checker").symlink_to("../../blobs/d")
    found = [note for note in open_vetted(snapshot)[1] if isinstance(note, Finding)]
    assert [note.id for note in found] == ["file/link-outside"]


def cached(folder: Path, repository: Path) -> Path:
    """A folder as the hub's client lays it out: blobs, and links to them."""
    snapshot = repository / "snapshots/abc"
    (repository / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        shutil.copy(path, repository / f"blobs/{number}")
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(repository / f"blobs/{number}", link.parent))
    return snapshot


def test_an_index_that_leaves_the_folder(copy_of: Path, tmp_path: Path) -> None:
    shutil.move(copy_of / "model_index.json", tmp_path / "index.json")
    (copy_of / "model_index.json").symlink_to(tmp_path / "index.json")
    with pytest.raises(UnsafeFile):
        open_checkpoint(copy_of)


@pytest.mark.parametrize("path", ["../copy/model_index.json", "/etc/passwd", "nothing"])
def test_paths_outside_the_records_are_refused(path: str, copy_of: Path) -> None:
    with pytest.raises(CheckpointError):
        open_checkpoint(copy_of).read(path)


def test_other_weights_are_skipped_with_a_reason(copy_of: Path) -> None:
    unused = [
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "text_encoder/pytorch_model.bin",
        "text_encoder/diffusion_pytorch_model.safetensors",
        "lora.safetensors",
        "v1-5.ckpt",
        "unet/pipeline.py",
    ]
    for path in unused:
        (copy_of / path).write_bytes(b"x")
    os.mkfifo(copy_of / "pipe")
    (copy_of / ".git").mkdir()
    (copy_of / ".git" / "config").write_text("x")
    (copy_of / "tab\there.json").write_text("x")
    got = reasons(copy_of)
    assert set(got) == {*unused, "pipe", ".git", "tab\\there.json"}
    assert "pickle" in got["unet/diffusion_pytorch_model.bin"]
    assert "--variant fp16" in got["unet/diffusion_pytorch_model.fp16.safetensors"]
    assert "code" in got["unet/pipeline.py"]


def test_a_variant_replaces_the_plain_weights_where_there_is_one(copy_of: Path) -> None:
    fp16 = copy_of / "unet/diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(copy_of / UNET, fp16)
    checkpoint = open_checkpoint(copy_of, variant="fp16")
    assert checkpoint.weights["unet"] == ("unet/diffusion_pytorch_model.fp16.safetensors",)
    assert checkpoint.weights["text_encoder"] == ("text_encoder/model.safetensors",)
    assert [skipped.what for skipped in checkpoint.skipped] == [UNET]
    with pytest.raises(NotACheckpoint, match="variant"):
        open_checkpoint(copy_of, variant="fp8")


def test_components_cannot_be_named_out_of_the_folder(copy_of: Path) -> None:
    index = json.loads((copy_of / "model_index.json").read_text())
    index["../copy/unet"] = ["diffusers", "UNet2DConditionModel"]
    (copy_of / "model_index.json").write_text(json.dumps(index))
    assert "../copy/unet" not in open_checkpoint(copy_of).weights


def test_sparse_giants_are_not_hashed(copy_of: Path) -> None:
    with (copy_of / "giant.dat").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(NotACheckpoint, match="GiB"):
        open_checkpoint(copy_of)
