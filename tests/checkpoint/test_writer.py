"""Patched copies: only the patched tensors differ, and a failure leaves nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline

from sau_scan.checkpoint import writer
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.patch import WeightPatch, make_patch
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.checkpoint.views import TensorRef
from sau_scan.checkpoint.writer import write_patched
from sau_scan.errors import DamagedFile, UsageError, WriteError

UNET = "unet/diffusion_pytorch_model.safetensors"
REF = TensorRef(UNET, "conv_in.weight")


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def doubled(checkpoint: Checkpoint, ref: TensorRef = REF) -> WeightPatch:
    tensor = safetensors.torch.load(checkpoint.read(ref.file))[ref.name]
    return make_patch(checkpoint, {ref: tensor.float() * 2})


def test_only_the_patched_tensor_differs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    before = hashes(tiny_checkpoint)
    checkpoint = open_checkpoint(tiny_checkpoint)
    out = write_patched(checkpoint, doubled(checkpoint), tmp_path / "out", extra_files={"notes/a.json": b"{}"})
    after = hashes(out)
    assert {path for path in before if before[path] != after[path]} == {UNET}
    assert after.keys() - before.keys() == {"notes/a.json"}
    assert hashes(tiny_checkpoint) == before
    old, new = (tiny_checkpoint / UNET).read_bytes(), (out / UNET).read_bytes()
    start = 8 + int.from_bytes(old[:8], "little")
    assert old[:start] == new[:start], "names, types, order and metadata are in the header"
    left, right = safetensors.torch.load(old), safetensors.torch.load(new)
    for name in left:
        assert torch.equal(right[name], left[name] * (2 if name == REF.name else 1))


def test_loads_in_plain_diffusers(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    out = write_patched(checkpoint, doubled(checkpoint), tmp_path / "out", extra_files={"sau-scan.json": b"{}"})
    plain = StableDiffusionPipeline.from_pretrained(out)
    plain.set_progress_bar_config(disable=True)
    assert plain("a cat", num_inference_steps=2, output_type="np").images.shape == (1, 64, 64, 3)
    original = StableDiffusionPipeline.from_pretrained(tiny_checkpoint)
    assert torch.equal(plain.unet.conv_in.weight, original.unet.conv_in.weight * 2)


def test_half_precision_stays_half(copy_of: Path, tmp_path: Path) -> None:
    halves = {name: t.half() for name, t in safetensors.torch.load_file(copy_of / UNET).items()}
    safetensors.torch.save_file(halves, copy_of / UNET, metadata={"format": "pt", "note": "kept"})
    checkpoint = open_checkpoint(copy_of)
    out = write_patched(checkpoint, doubled(checkpoint), tmp_path / "out")
    with safetensors.safe_open(out / UNET, "pt") as file:
        assert file.metadata() == {"format": "pt", "note": "kept"}
        assert file.get_tensor(REF.name).dtype == torch.float16
        assert torch.equal(file.get_tensor(REF.name), halves[REF.name] * 2)


def test_values_that_the_stored_type_cannot_hold(copy_of: Path, tmp_path: Path) -> None:
    halves = {name: t.half() for name, t in safetensors.torch.load_file(copy_of / UNET).items()}
    safetensors.torch.save_file(halves, copy_of / UNET)
    checkpoint = open_checkpoint(copy_of)
    patch = make_patch(checkpoint, {REF: torch.full(halves[REF.name].shape, 1e6)})
    with pytest.raises(WriteError, match="float16"):
        write_patched(checkpoint, patch, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == [copy_of]


def test_skipped_files_are_left_out(copy_of: Path, tmp_path: Path) -> None:
    (copy_of / "unet/diffusion_pytorch_model.bin").write_bytes(b"x")
    checkpoint = open_checkpoint(copy_of)
    out = write_patched(checkpoint, WeightPatch(), tmp_path / "out")
    assert not (out / "unet/diffusion_pytorch_model.bin").exists()
    assert hashes(out) == {record.path: record.sha256 for record in checkpoint.records}


def test_a_component_without_weights_that_are_opened_is_named_as_absent(copy_of: Path, tmp_path: Path) -> None:
    """Stable Diffusion's safety checker often comes as a pickle alone; without it the copy still has to load."""
    index = json.loads((copy_of / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (copy_of / "model_index.json").write_text(json.dumps(index))
    (copy_of / "safety_checker").mkdir()
    (copy_of / "safety_checker/config.json").write_text("{}")
    (copy_of / "safety_checker/pytorch_model.bin").write_bytes(b"x")
    checkpoint = open_checkpoint(copy_of)
    out = write_patched(checkpoint, doubled(checkpoint), tmp_path / "out")
    assert StableDiffusionPipeline.from_pretrained(out).safety_checker is None
    assert json.loads((out / "model_index.json").read_text())["unet"] == index["unet"]


def test_the_patch_of_another_checkpoint_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    patch = doubled(checkpoint)
    other = WeightPatch(patch.tensors, {REF: "0" * 64})
    elsewhere = WeightPatch({TensorRef("nowhere", "x"): torch.ones(1)}, {})
    for wrong in (other, elsewhere):
        with pytest.raises(DamagedFile):
            write_patched(checkpoint, wrong, tmp_path / "out")
    for ref, value in [(TensorRef(UNET, "x"), torch.ones(1)), (REF, torch.ones(1))]:
        with pytest.raises(DamagedFile):
            make_patch(checkpoint, {ref: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "where", [".", "inside", "..", "../full", "../file", "../link", "../away/out", "../a.safetensors"]
)
def test_outs_that_are_refused(where: str, copy_of: Path) -> None:
    (copy_of.parent / "full").mkdir()
    (copy_of.parent / "full" / "x").write_text("kept")
    (copy_of.parent / "file").write_text("kept")
    (copy_of.parent / "link").symlink_to(copy_of)
    checkpoint = open_checkpoint(copy_of)
    before = hashes(copy_of.parent)
    with pytest.raises((UsageError, WriteError)) as caught:
        write_patched(checkpoint, doubled(checkpoint), copy_of / where)
    assert caught.value.hint
    assert hashes(copy_of.parent) == before


@pytest.mark.parametrize("where", ["file/out", "file/a/out"])
def test_an_out_below_a_file(where: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(WriteError, match="file is a file, not a folder"):
        writer.check_out(tiny_checkpoint, tmp_path / where)


def test_an_empty_folder_is_a_fine_out(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    checkpoint = open_checkpoint(tiny_checkpoint)
    assert len(hashes(write_patched(checkpoint, WeightPatch(), tmp_path / "out"))) == len(checkpoint.records)


@pytest.mark.parametrize("path", ["../x", "/x", "", "a/../../x", UNET])
def test_extra_files_stay_within_and_off_the_patched(path: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    with pytest.raises(ValueError):
        write_patched(checkpoint, doubled(checkpoint), tmp_path / "out", extra_files={path: b""})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("failure", "seen", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), WriteError, "disk is full"),
        (OSError(errno.EIO, "Input/output error"), WriteError, "Input/output error"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "rename", "mkdtemp"])
def test_a_failure_leaves_nothing(
    step: str,
    failure: BaseException,
    seen: type[BaseException],
    words: str,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0

    def fail(*args: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        if step != "fsync" or calls == 4:  # in the middle of the files
            raise failure

    module = writer.tempfile if step == "mkdtemp" else os
    monkeypatch.setattr(module, step, fail)
    checkpoint = open_checkpoint(tiny_checkpoint)
    with pytest.raises(seen, match=words):
        write_patched(checkpoint, doubled(checkpoint), tmp_path / "out")
    assert calls and list(tmp_path.iterdir()) == []


def test_an_unwritable_parent(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:  # the tests may run as root, whom no mode stops
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(writer.tempfile, "mkdtemp", refuse)
    with pytest.raises(WriteError, match="could not be written"):
        writer.check_out(tiny_checkpoint, tmp_path / "out")


def test_a_file_system_that_takes_no_folders() -> None:
    if Path("/proc/self").is_dir():
        with pytest.raises(WriteError, match="could not be written"):
            writer.check_out(Path("model"), Path("/proc/out"))


def test_asking_leaves_nothing_behind(tiny_checkpoint: Path, tmp_path: Path) -> None:
    writer.check_out(tiny_checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_merging_prefers_the_later_patch_and_needs_one_origin() -> None:
    a, b = TensorRef("f", "a"), TensorRef("f", "b")
    first = WeightPatch({a: torch.zeros(1)}, {a: "1"})
    second = WeightPatch({a: torch.ones(1), b: torch.ones(2)}, {a: "1", b: "2"})
    merged = first.merge(second)
    assert merged.tensors[a].item() == 1 and merged.hashes == {a: "1", b: "2"}
    assert merged.for_file("f").keys() == {"a", "b"} and merged.for_file("g") == {}
    with pytest.raises(ValueError):
        first.merge(WeightPatch({a: torch.ones(1)}, {a: "9"}))


@pytest.mark.parametrize("length", [256, 300])
def test_a_name_that_is_too_long_is_refused_at_once(tiny_checkpoint: Path, tmp_path: Path, length: int) -> None:
    with pytest.raises(WriteError, match="could not be written"):
        writer.check_out(tiny_checkpoint, tmp_path / ("x" * length))
    assert list(tmp_path.iterdir()) == []
