"""Downloads that went wrong are told for what they are, whatever the format, and accuse nobody."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sau_scan.convert import convert
from sau_scan.errors import DamagedFile
from sau_scan.findings import Finding, Severity, Skipped
from sau_scan.options import ScanOptions
from sau_scan.scan import detect
from sau_scan.static import open_vetted, pickles, vet_file, zips
from tests.corpus.zips import marked_zip, torch_entries, zip_bytes
from tests.static.makers import SYSTEM, edit_json, packed, saved

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 4265380512\n"
PAGE = b'\xef\xbb\xbf\n<!DOCTYPE html>\n<html class=""><head><title>404</title></head><body>Not found</body></html>'
NAMES = ("model.safetensors", "model.ckpt", "model.pt", "model.bin")
LEFT = {
    "git": (POINTER, "Git LFS pointer", "git lfs pull"),
    "page": (PAGE, "web page", "Download it again"),
    "answer": (b'{"error":"Repository not found"}', "a text, not weights", "Download it again"),
    "empty": (b"", "is empty", "Download it again"),
    "zeros": (bytes(5000), "nothing but zeros", "Download it again"),
}
STATE = {f"model.diffusion_model.{n}.weight": torch.randn(64, 64) for n in range(4)}
WHOLE = {
    "model.safetensors": safetensors.torch.save(STATE),
    "model.ckpt": saved(STATE),
    "model.bin": saved(STATE),
    "model.pt": saved(STATE, _use_new_zipfile_serialization=False),
}


def refused(path: Path) -> DamagedFile:
    """What a scan says, and that nothing is found in the file that would be an accusation."""
    results = vet_file(path)
    assert not [r for r in results if isinstance(r, Finding) and r.severity is not Severity.INFO]
    with pytest.raises(DamagedFile) as caught:
        detect(path, ScanOptions())
    assert caught.value.exit_code == 3 and path.name in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("left", LEFT)
def test_what_is_left_in_place_of_weights(left: str, name: str, tmp_path: Path) -> None:
    content, words, hint = LEFT[left]
    (tmp_path / name).write_bytes(content)
    error = refused(tmp_path / name)
    assert words in str(error) and hint in error.hint
    assert any(isinstance(r, Skipped) and words in r.reason for r in vet_file(tmp_path / name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.004, 0.5, 0.999])
def test_a_cut_download(share: float, name: str, tmp_path: Path) -> None:
    data = WHOLE[name]
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    error = refused(tmp_path / name)
    assert "cut short" in str(error) and "Download it again" in error.hint


@pytest.mark.parametrize("left", LEFT)
def test_convert_tells_what_it_is_instead(left: str, tmp_path: Path) -> None:
    content, words, hint = LEFT[left]
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(DamagedFile, match=words) as caught:
        convert(tmp_path / "model.ckpt", tmp_path / "new.safetensors")
    assert hint in caught.value.hint and [*tmp_path.iterdir()] == [tmp_path / "model.ckpt"]
    (tmp_path / "model.ckpt").write_bytes(WHOLE["model.ckpt"][:5000])
    with pytest.raises(DamagedFile, match="cut short") as caught:
        convert(tmp_path / "model.ckpt", tmp_path / "new.safetensors")
    assert "Download it again" in caught.value.hint


def test_a_folder_of_pointers(copy_of: Path) -> None:
    unet = copy_of / "unet/diffusion_pytorch_model.safetensors"
    unet.write_bytes(POINTER)
    with pytest.raises(DamagedFile, match="Git LFS pointer") as caught:
        detect(copy_of)
    assert "git lfs pull" in caught.value.hint
    shutil.copy(unet, copy_of / "unet/diffusion_pytorch_model.fp16.safetensors")
    assert not [result for result in vet_file(copy_of) if isinstance(result, Finding)]


@pytest.mark.parametrize("left", [*(content for content, *_ in LEFT.values()), WHOLE["model.safetensors"][:-9]])
def test_what_a_pipeline_would_load_leaves_the_scan_incomplete(left: bytes, copy_of: Path) -> None:
    edit_json(copy_of / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    (copy_of / "safety_checker").mkdir()
    safe, variant = "safety_checker/model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"
    for name in (safe, variant):
        (copy_of / name).write_bytes(left)
    assert planned(copy_of) == {safe: True, variant: False}


def test_a_pickle_that_only_a_pipeline_would_load(copy_of: Path) -> None:
    edit_json(copy_of / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    pickled = copy_of / "safety_checker/pytorch_model.bin"
    pickled.parent.mkdir()
    pickled.write_bytes(WHOLE["model.ckpt"][:-200])
    assert planned(copy_of) == {"safety_checker/pytorch_model.bin": True}
    (pickled.parent / "model.safetensors").write_bytes(WHOLE["model.safetensors"])
    assert planned(copy_of) == {"safety_checker/pytorch_model.bin": False}


def planned(folder: Path) -> dict[str, bool]:
    """What is skipped, and whether the scan is incomplete for it."""
    return {note.what: note.planned for note in open_vetted(folder)[1] if isinstance(note, Skipped)}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("model.bin", SYSTEM),  # a pickle that is a text
        ("model.safetensors", SYSTEM),
        ("model.pt", packed({"x/data.pkl": SYSTEM, "x/data/0": bytes(99)})[:-30]),
        ("model.pt", b"\x80\x02cposix\nsystem\nq\0X\x09\0\0\0tr"),
        ("model.bin", PAGE + packed({"x/data.pkl": SYSTEM})),
        ("model.safetensors", bytes(5000) + packed({"x/data.pkl": SYSTEM})),
        ("model.bin", marked_zip(SYSTEM)),  # torch finds its end
        ("model.bin", marked_zip(SYSTEM, method=8)),
    ],
)
def test_nothing_hides_behind_a_broken_download(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert "file/pickle-danger" in [result.id for result in vet_file(tmp_path / name) if isinstance(result, Finding)]


def ids(path: Path) -> set[str]:
    return {result.id for result in vet_file(path) if isinstance(result, Finding)}


def test_what_the_cut_does_not_explain_is_told(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(zip_bytes(*torch_entries(SYSTEM, method=99)).split(b"PK\x01\x02")[0])
    assert "file/archive-broken" in ids(file)
    file.write_bytes(zip_bytes(*torch_entries(b"\x80\x02}q\0")).split(b"PK\x01\x02")[0])
    assert "file/pickle-broken" in ids(file)


def test_all_of_an_archive_without_end_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(packed({"x/data/0": bytes(999), "x/data.pkl": SYSTEM}).split(b"PK\x01\x02")[0])
    monkeypatch.setattr(zips, "WHOLE", 64)
    assert "file/pickle-danger" in ids(file)
    monkeypatch.setattr(zips, "MOST_ENTRIES", 1)
    assert "file/analyser-failed" in ids(file)


def test_entries_of_unknown_size_end_where_the_next_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch writes them; or the first pickle would seem as large as the file, and not to be looked at to its end."""
    monkeypatch.setattr(pickles, "WHOLE", 2**20)
    file = tmp_path / "model.ckpt"
    file.write_bytes(saved({str(n): torch.randn(2**18) for n in range(9)})[: -(2**20)])
    assert ids(file) <= {"file/pickle"}
