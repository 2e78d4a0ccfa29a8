"""The watch: what it is fed, in whatever chunks, gives the same findings as what it reads itself."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sau_scan.errors import NotACheckpoint
from sau_scan.findings import Finding, Skipped
from sau_scan.static import Vetted, Watch, open_vetted, vet_file
from tests.static.makers import MAKERS, SYSTEM, packed, saved

CHUNKED = ["nan-weights", "dead-weights", "tokenizer-two", "torch-zip-system", "header-gap", "metadata-code", "folder"]


def feed(watch: Watch, path: Path, size: int) -> None:
    """As whoever hashes does it: with one buffer, which is written over again and again."""
    data, buffer = path.read_bytes(), bytearray(size)
    with path.open("rb") as file:
        sink = watch.begin(str(path.relative_to(watch.root)), len(data), file)
        for start in range(0, len(data), size):
            part = data[start : start + size]
            buffer[: len(part)] = part
            sink.update(memoryview(buffer)[: len(part)])
        sink.end(hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("maker", CHUNKED)
@pytest.mark.parametrize("size", [1_001, 65_536])
def test_chunks_change_nothing(maker: str, size: int, tmp_path: Path, tiny_checkpoint: Path) -> None:
    path = MAKERS[maker](tmp_path, tiny_checkpoint)
    watch = Watch.of(path)
    for file in [path] if watch.alone else [file for file in path.rglob("*") if file.is_file()]:
        feed(watch, file, size)
    assert watch.results() == vet_file(path)


def test_files_that_were_not_fed_are_read(copy_of: Path) -> None:
    (copy_of / ".hidden").mkdir()
    (copy_of / ".hidden/data.pkl").write_bytes(SYSTEM)
    (found,) = Watch(copy_of).results()
    assert isinstance(found, Finding) and found.id == "file/pickle-danger"
    assert found.location is not None and found.location.path == ".hidden/data.pkl"


def test_a_pickle_is_found_in_an_archive_that_is_too_large_to_keep(tmp_path: Path) -> None:
    path = large_archive(tmp_path / "model.ckpt")
    assert [one.id for one in vet_file(path) if isinstance(one, Finding)] == ["file/pickle-danger"]


def large_archive(path: Path) -> Path:
    path.write_bytes(packed({"x/data/0": bytes(70 * 2**20), "x/data.pkl": SYSTEM}))
    return path


def test_a_large_file_in_a_hidden_folder_is_read(copy_of: Path) -> None:
    (copy_of / ".x").mkdir()
    large_archive(copy_of / ".x/evil.ckpt")
    (found,) = Watch(copy_of).results()
    assert isinstance(found, Finding) and found.id == "file/pickle-danger"


@pytest.mark.parametrize("swapped", [True, False])
def test_a_large_file_is_examined_as_it_was_hashed(swapped: bool, tmp_path: Path) -> None:
    """Another file of that name is never looked at; a change of the same one is noticed."""
    path, watch = large_archive(tmp_path / "model.ckpt"), Watch(tmp_path, alone=True)
    data = path.read_bytes()
    with path.open("rb") as file:
        sink = watch.begin(path.name, len(data), file)
        sink.update(memoryview(data))
        if swapped:
            path.unlink()
            path.write_bytes(b"N.")
        else:
            with path.open("r+b") as changed:
                changed.seek(-40, io.SEEK_END)
                changed.write(b"changed")
        sink.end()
    found = [one for one in watch.results() if isinstance(one, Finding)]
    assert [one.id for one in found] == ["file/pickle-danger" if swapped else "file/analyser-failed"]
    assert swapped or "changed while it was examined" in found[0].behaviour


@pytest.mark.parametrize("modern", [True, False])
def test_a_large_honest_pickle_of_tensors_is_no_more_than_a_pickle(modern: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(saved({"a": torch.rand(18 * 2**20)}, _use_new_zipfile_serialization=modern))
    assert [one.id for one in vet_file(path) if isinstance(one, Finding)] == ["file/pickle"]


def test_what_is_not_there_is_a_finding(tmp_path: Path) -> None:
    (found,) = vet_file(tmp_path / "nothing.bin")
    assert isinstance(found, Finding) and found.id == "file/analyser-failed"


def test_what_may_not_be_read_accuses_nobody(tmp_path: Path, deny: Callable[[Path], None]) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(SYSTEM)
    deny(path)
    with pytest.raises(NotACheckpoint, match="cannot be read: Permission denied") as caught:
        open_vetted(path)
    assert isinstance(caught.value.partial, Vetted)
    (skipped,) = caught.value.partial.notes
    assert isinstance(skipped, Skipped) and skipped.reason == "cannot be read: Permission denied"


def test_what_may_not_be_read_leaves_a_scan_incomplete(copy_of: Path, deny: Callable[[Path], None]) -> None:
    """Whoever loads the folder may be another than who scans it."""
    hidden = copy_of / "unet/.y/pytorch_model.bin"
    hidden.parent.mkdir()
    hidden.write_bytes(SYSTEM)
    deny(hidden)
    (note,) = open_vetted(copy_of)[1]
    assert isinstance(note, Skipped) and note.planned and "Permission denied" in note.reason


def test_what_may_not_be_looked_into_leaves_a_scan_incomplete(copy_of: Path, deny: Callable[[Path], None]) -> None:
    hidden = copy_of / "unet/.y"
    hidden.mkdir()
    deny(hidden)
    (note,) = open_vetted(copy_of)[1]
    assert isinstance(note, Skipped) and note.planned and note.what == "unet/.y/"
