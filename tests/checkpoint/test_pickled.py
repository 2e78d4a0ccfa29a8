"""Pickles of tensors: one rule says which they are, and what is loaded is what was hashed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint import opening, pickled, source
from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.pickled import PickledFile, weights
from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.checkpoint.strays import strays
from sau_scan.checkpoint.weights import weight_file
from sau_scan.errors import DamagedFile, NotACheckpoint, SauScanError, UnsafeFile
from sau_scan.findings import FileRecord
from sau_scan.static import open_vetted
from tests.single_files import single_file

STATE = {"a": torch.arange(4.0), "b": torch.ones(2, 3)}


def opened(path: Path, content: Any, **options: Any) -> PickledFile:
    """As after a scan of its opcodes that found nothing."""
    torch.save(content, path, **options)
    record = FileRecord(path=path.name, size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    return PickledFile(Checkpoint(path, {}, (record,), (), form=Form.SINGLE, vetted=True), path.name)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (STATE, ["a", "b"]),
        ({"state_dict": STATE, "step": 1}, ["a", "b"]),
        ({"model": {"state_dict": STATE, "x": torch.ones(1)}, "ema": {"y": torch.ones(1)}}, ["a", "b"]),
        ({"unet": STATE, "n": None}, ["unet.a", "unet.b"]),
        (
            {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(2, 4)}, 3: torch.ones(1)},
            ["string_to_param.*"],
        ),
    ],
)
def test_which_tensors_there_are(content: Any, names: list[str], tmp_path: Path) -> None:
    assert [*opened(tmp_path / "x.ckpt", content).entries] == names
    found, dropped, _ = weights(content, "x")
    assert [*found] == names and bool(dropped) is (content is not STATE)


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        ({"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}}, UnsafeFile, "two tensors called 'a.b'"),
        ({"state_dict": STATE, "model": STATE}, UnsafeFile, "weights under 'state_dict' and under 'model'"),
        ({"z": torch.ones(2, 2).to_sparse()}, NotACheckpoint, "sparse"),
        ({"z": torch.ones(1, device="meta")}, NotACheckpoint, "holds 'z'"),
        ({"z": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, NotACheckpoint, "'z' as nested float32"),
        ({"z": torch.ones(1).expand(2**40)}, UnsafeFile, "repeat the same memory"),
        (torch.ones(2), NotACheckpoint, "no tensors with names"),
    ],
)
def test_a_scan_refuses_what_convert_refuses(
    content: Any, kind: type[SauScanError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words):
        _ = opened(tmp_path / "x.ckpt", content).entries


def spoil(path: Path) -> None:
    """Writes into the file itself: who has it mapped or open sees it."""
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))


def test_nothing_is_unpickled_that_was_not_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.ckpt"
    file = opened(path, STATE)
    torch.save({"a": torch.zeros(4), "b": torch.zeros(2, 3)}, path)
    monkeypatch.setattr(pickled.torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    for look in (lambda: file.entries, lambda: file.content, lambda: [*file.tensors()]):
        with pytest.raises(DamagedFile, match="changed"):
            look()


def test_a_file_put_in_the_place_of_another_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, load = tmp_path / "x.ckpt", torch.load
    file = opened(path, STATE)

    def swapped(*given: Any, **options: Any) -> Any:
        (tmp_path / "other.ckpt").replace(path)
        return load(*given, **options)

    torch.save({"a": torch.zeros(4), "b": torch.zeros(2, 3)}, tmp_path / "other.ckpt")
    monkeypatch.setattr(pickled.torch, "load", swapped)
    assert file.entries["a"].shape == (4,)
    monkeypatch.undo()
    with pytest.raises(DamagedFile, match="changed"):
        _ = [*file.tensors()]


@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_written_during_the_last_use_is_noticed(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    stream = opened(path, STATE, _use_new_zipfile_serialization=zipped).tensors()
    next(stream)
    spoil(path)
    with pytest.raises(DamagedFile, match="changed"):
        _ = [*stream]


@pytest.mark.parametrize("zipped", [True, False])
def test_what_was_taken_does_not_change_with_the_file(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    file = opened(path, STATE, _use_new_zipfile_serialization=zipped)
    content, tensors = file.content, dict(file.tensors())
    spoil(path)
    for found in (content, tensors):
        assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_large_pickles_are_not_copied_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "MOST_IN_MEMORY", 100)
    file = opened(tmp_path / "x.pt", STATE)
    with pytest.raises(DamagedFile, match="larger than any embedding"):
        _ = file.content
    assert [name for name, _ in file.tensors()] == [*STATE]


def test_a_file_is_loaded_once_for_its_names_and_once_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load, loads = torch.load, []
    checkpoint = opened(tmp_path / "x.ckpt", STATE).checkpoint
    monkeypatch.setattr(pickled.torch, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    for _ in range(3):
        assert [*weight_file(checkpoint, "x.ckpt").entries] == [*STATE]
    assert len(loads) == 1
    for count in (2, 3):
        assert dict(weight_file(checkpoint, "x.ckpt").tensors()).keys() == STATE.keys()
        assert len(loads) == count
    unvetted = replace(checkpoint, vetted=False)
    with pytest.raises(UnsafeFile, match="not examined"):
        _ = weight_file(unvetted, "x.ckpt").entries


@pytest.mark.parametrize(("ending", "reads"), [("ckpt", 4), ("safetensors", 2)])
def test_how_often_a_scan_reads_a_single_file(
    ending: str, reads: int, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is opened, for its names if it is a pickle, and before and after (or while) all tensors are taken."""
    path, made = tmp_path / f"model.{ending}", list[Any]()
    state = single_file(tiny_checkpoint)
    torch.save(state, path) if ending == "ckpt" else safetensors.torch.save_file(state, path)

    class Counting:
        """A hash that knows how much it was of."""

        def __init__(self) -> None:
            self.inner, self.size = hashlib.sha256(), 0
            made.append(self)

        def update(self, data: Any) -> None:
            self.inner.update(data)
            self.size += len(data)

        def hexdigest(self) -> str:
            return self.inner.hexdigest()

    for module in (source, opening):
        monkeypatch.setattr(module, "hashlib", SimpleNamespace(sha256=Counting))
    checkpoint, _ = open_vetted(path, base=open_vetted(tiny_checkpoint)[0])
    load_model(checkpoint)
    strays(checkpoint, [])
    assert [one.size for one in made].count(path.stat().st_size) == reads
