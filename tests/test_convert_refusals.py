"""convert says of what it refuses what it is, and what helps."""

from __future__ import annotations

import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sau_scan.checkpoint import pickled
from sau_scan.checkpoint.tensor_file import is_safetensors
from sau_scan.convert import convert
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint, SauScanError, UnsafeFile, UsageError
from sau_scan.findings import Finding
from sau_scan.static import open_vetted
from sau_scan.static.vetting import vet_file


def refusal(source: Path, kind: type[SauScanError] | tuple[type[SauScanError], ...]) -> str:
    """The words of the error, with its hint."""
    target = source.parent / "new.safetensors"
    with pytest.raises(kind) as caught:
        convert(source, target)
    assert type(caught.value) in (kind if isinstance(kind, tuple) else (kind,)) and not target.exists()
    return f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("content", [{"a": 1}, [[["deep"]]]])
@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_a_pickle_of_others(tmp_path: Path, content: Any, protocol: int) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    assert "a pickle, but none that torch.save wrote" in refusal(tmp_path / "a.pkl", NotACheckpoint)


@pytest.mark.parametrize("name", ["a.ckpt", "a.txt", "a.safetensors"])
@pytest.mark.parametrize("kind", ["tar", "page", "text", "safetensors"])
def test_what_is_something_else_has_one_exit_code(tmp_path: Path, name: str, kind: str) -> None:
    """Whatever it is called; a tar is one of torch's oldest files."""
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    with tarfile.open(tmp_path / "tar", "w") as tar:
        tar.add(tmp_path / "a.pt", "a.pt")
    (tmp_path / "page").write_text("<!doctype html><p>Please log in.")
    (tmp_path / "text").write_text("Weights of a model, in words.")
    save_file({"a": torch.ones(3)}, tmp_path / "safetensors")
    (tmp_path / kind).rename(tmp_path / name)
    with pytest.raises(CheckpointError) as caught:
        convert(tmp_path / name, tmp_path / "new.safetensors")
    assert caught.value.exit_code == 3 and caught.value.hint
    assert not (tmp_path / "new.safetensors").exists()


def test_a_tar(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    with tarfile.open(tmp_path / "a.ckpt", "w") as tar:
        tar.add(tmp_path / "a.pt", "a.pt")
    assert "tar archive" in refusal(tmp_path / "a.ckpt", NotACheckpoint)


@pytest.mark.parametrize("inner", ["a.pt", "a.safetensors", ""])
def test_a_zip(tmp_path: Path, inner: str) -> None:
    """Undamaged, and no file of torch's; a scan says the same."""
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    save_file({"a": torch.ones(3)}, tmp_path / "a.safetensors")
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        if inner:
            archive.write(tmp_path / inner, inner)
    assert "is a zip archive, not weights. Unpack it" in refusal(tmp_path / "a.ckpt", NotACheckpoint)
    with pytest.raises(NotACheckpoint, match="is a zip archive, not weights"):
        open_vetted(tmp_path / "a.ckpt")


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_of_torch_stays_that(tmp_path: Path, zipped: bool, protocol: int) -> None:
    source = tmp_path / "a.ckpt"
    torch.save({"a": torch.ones(300)}, source, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with source.open("r+b") as file:
        if zipped:
            file.seek(source.read_bytes().index(b"data.pkl") + 40)
            file.write(b"\xff" * 4)
        else:
            file.truncate(source.stat().st_size - 600)
    told = refusal(source, (DamagedFile, UnsafeFile))
    assert "none that torch.save wrote" not in told and "zip archive" not in told


@pytest.mark.parametrize(("name", "advice"), [("a.ckpt", "rename it"), ("a.safetensors", "scan it")])
def test_safetensors(tmp_path: Path, name: str, advice: str) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / name)
    told = refusal(tmp_path / name, NotACheckpoint)
    assert "is a safetensors file already" in told and advice in told


def test_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Weights of a model, in words.")
    assert "is not a file of pickled weights" in refusal(tmp_path / "a.txt", NotACheckpoint)


def test_a_pickle_that_reads_as_safetensors(tmp_path: Path) -> None:
    """Its first bytes are a length and a brace, and opcodes that come to nothing."""
    data = b"\x80\x02\x8a\x05\1\2\0\0{0" + b"cposix\nsystem\nX\2\0\0\0id\x85R." + bytes(100)
    (tmp_path / "a.ckpt").write_bytes(data)
    assert is_safetensors(data)
    told = refusal(tmp_path / "a.ckpt", UnsafeFile)
    assert "posix.system" in told and "rename" not in told


def test_a_pickle_called_safetensors_is_not_sent_here(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "a.safetensors")
    found = [note for note in vet_file(tmp_path / "a.safetensors") if isinstance(note, Finding)]
    assert {"file/pickle", "file/disguised"} == {note.id for note in found}
    assert not any("convert" in note.next_step for note in found)
    assert "not what its name says" in refusal(tmp_path / "a.safetensors", UnsafeFile)


def test_what_is_no_file_is_not_to_be_removed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a regular file") as caught:
        convert("/dev/null", tmp_path / "new.safetensors")
    assert caught.value.hint == "Name a file of pickled weights."
    assert "folder" not in refusal(tmp_path / "none.ckpt", NotACheckpoint)


def test_tensors_that_differ_only_in_the_kind_of_their_key(tmp_path: Path) -> None:
    torch.save({1: torch.ones(2), "1": torch.zeros(2)}, tmp_path / "a.pt")
    assert "two tensors called '1'" in refusal(tmp_path / "a.pt", UnsafeFile)


def test_tensors_without_data(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2, device="meta")}, tmp_path / "a.pt")
    assert "holds 'a' without data" in refusal(tmp_path / "a.pt", NotACheckpoint)


@pytest.mark.parametrize("operand", ["99999999999", "1114112", "999", "72"])
def test_a_name_that_reads_as_a_refusal_of_torch(tmp_path: Path, operand: str) -> None:
    module = f"pytorch_lightning.callbacks.Unsupported operand {operand}"
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}c" + module.encode() + b"\nModelCheckpoint\nK\x01s.")
        file.writestr("archive/byteorder", "little")
        file.writestr("archive/version", "3\n")
    assert f"plain values ({module}.Mo" in refusal(tmp_path / "a.ckpt", UnsafeFile)


@pytest.mark.parametrize("operand", ["256", "999", "1114112", "99999999999"])
def test_an_operand_that_is_no_byte(operand: str) -> None:
    assert "more than tensors" in str(pickled._refused("x", f"WeightsUnpickler error: Unsupported operand {operand}"))
    assert "opcode PERSID," in str(pickled._refused("x", "WeightsUnpickler error: Unsupported operand 80"))
