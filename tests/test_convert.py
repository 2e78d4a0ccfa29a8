"""convert: the same numbers under the same names, and nothing that is run, lost in silence or half-written."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from sau_scan.checkpoint import tensor_file
from sau_scan.convert import convert
from sau_scan.errors import DamagedFile, NotACheckpoint, SauScanError, UnsafeFile, UsageError, WriteError
from sau_scan.findings import Finding
from sau_scan.static.vetting import vet_file

STATE = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "b.bias": torch.tensor([1.5, -0.0, float("inf"), float("nan")], dtype=torch.float16),
    "c": torch.arange(5, dtype=torch.bfloat16).t(),
    "d.ids": torch.tensor([[1, 2]], dtype=torch.int64),
    "e.mask": torch.tensor([True, False, True]),
    "f.empty": torch.zeros(0, 4),
    "g.scalar": torch.tensor(3.0, dtype=torch.float64),
    "h.negated": torch._neg_view(torch.ones(3)),
}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new.safetensors"


def saved(folder: Path, content: Any, name: str = "old.ckpt", **options: Any) -> Path:
    torch.save(content, folder / name, **options)
    return folder / name


def bits(tensor: Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    return tensor.dtype, tensor.shape, tensor.resolve_neg().reshape(-1).view(torch.uint8).numpy().tobytes()


def refused(kind: type[SauScanError], words: str, source: Path, target: Path, folder: Path | None = None) -> None:
    """Nothing is left behind, not even a draft."""
    folder = folder or target.parent
    before = {*folder.iterdir()}
    with pytest.raises(kind, match=words) as caught:
        convert(source, target)
    assert type(caught.value) is kind and caught.value.hint
    assert {*folder.iterdir()} == before


@pytest.mark.parametrize("name", ["old.ckpt", "old.bin", "old.pt", "old.PTH"])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_same_bits_under_the_same_names(tmp_path: Path, target: Path, name: str, zipped: bool) -> None:
    source = saved(tmp_path, STATE, name, _use_new_zipfile_serialization=zipped)
    before = source.read_bytes()
    done = convert(source, target)
    copied = load_file(target)  # by the reference implementation
    assert {key: bits(value) for key, value in copied.items()} == {key: bits(value) for key, value in STATE.items()}
    assert source.read_bytes() == before
    for file, place in ((done.before, source), (done.after, target)):
        content = place.read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert [(t.name, t.size) for t in done.tensors] == [(name, t.nbytes) for name, t in STATE.items()]
    assert {t.name: t.dtype for t in done.tensors}["c"] == "BF16"
    assert not done.dropped and not done.shared
    assert {*tmp_path.iterdir()} == {source, target}


def test_every_reader_finds_the_tensors_where_their_types_may_lie(tmp_path: Path, target: Path) -> None:
    convert(saved(tmp_path, STATE), target)
    entries = tensor_file.read_entries(target.read_bytes(), "x")
    assert all(entry.begin % entry.dtype.itemsize == 0 for entry in entries.values())
    with safetensors.safe_open(target, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_shared_and_strided_memory_is_written_out(tmp_path: Path, target: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"x": whole, "same": whole, "turned": whole.t(), "row": whole[1], "own": torch.ones(2)}
    done = convert(saved(tmp_path, state), target)
    assert {name: bits(value) for name, value in load_file(target).items()} == {k: bits(v) for k, v in state.items()}
    assert done.shared == ("x", "same", "turned", "row")


def test_what_is_left_out_is_said(tmp_path: Path, target: Path) -> None:
    content = {"epoch": 3, "optimizer": [{"m": torch.ones(1)}], "state_dict": OrderedDict(STATE) | {"note\x1b": "x"}}
    done = convert(saved(tmp_path, content), target)
    assert load_file(target).keys() == STATE.keys()
    assert done.dropped == ("epoch (int)", "optimizer (list with 1 tensor)", r"note\x1b (str)")


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        ({"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)}, UnsafeFile, "two tensors called 'a.b'"),
        ({"state_dict": STATE, "model": STATE}, UnsafeFile, "weights under 'state_dict' and under 'model'"),
        ({"epoch": 1}, NotACheckpoint, "no tensors with names"),
        (torch.ones(2), NotACheckpoint, "no tensors with names"),
        ([torch.ones(2)], NotACheckpoint, "no tensors with names"),
        ({"z": torch.ones(1, dtype=torch.complex64)}, NotACheckpoint, "'z' as complex64"),
        ({"z": torch.ones(2, 2).to_sparse()}, NotACheckpoint, "'z' as sparse_coo"),
        ({"z": torch.nested.nested_tensor([torch.ones(2)])}, NotACheckpoint, "'z' as nested float32"),
        ({"__metadata__": torch.ones(1)}, UnsafeFile, "a tensor called '__metadata__'"),
        ({"a\x1b": torch.ones(1)}, UnsafeFile, r"a tensor called 'a\\x1b'"),
        ({"z": torch.ones(1).expand(2**40)}, UnsafeFile, "repeat the same memory"),
    ],
)
def test_what_cannot_be_converted_truly(
    tmp_path: Path, target: Path, content: Any, kind: type[SauScanError], words: str
) -> None:
    refused(kind, words, saved(tmp_path, content), target)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (frozenset([1]), r"plain values \(.*frozenset\), and"),
        (np.float64(0.5), r"plain values \(numpy.*scalar\), and"),
        pytest.param(2**20_000, "opcode LONG4, which torch's reader", id="a long number"),
    ],
)
def test_what_is_refused_is_named(tmp_path: Path, target: Path, extra: Any, named: str) -> None:
    refused(UnsafeFile, named, saved(tmp_path, {"x": torch.ones(2), "extra": extra}), target)


class Canary:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("packed", [True, False])
def test_a_pickle_is_never_run(tmp_path: Path, target: Path, packed: bool) -> None:
    canary, source = tmp_path / "canary", tmp_path / "evil.ckpt"
    content = {"state_dict": STATE, "x": Canary(canary)}
    if packed:
        torch.save(content, source)
    else:
        source.write_bytes(pickle.dumps({"x": Canary(canary)}))
    refused(UnsafeFile, r"evil\.ckpt was not opened\. .*mkdir", source, target)
    assert not canary.exists()


def test_what_only_the_second_line_stops(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    source = saved(tmp_path, {"x": Canary(canary)})
    monkeypatch.setattr("sau_scan.convert._vetted", lambda *given: "")
    refused(UnsafeFile, "more than tensors", source, target)
    assert not canary.exists()


def test_cut_short(tmp_path: Path, target: Path) -> None:
    source = saved(tmp_path, STATE)
    source.write_bytes(source.read_bytes()[:-200])
    before = {*tmp_path.iterdir()}
    with pytest.raises((UnsafeFile, DamagedFile)):
        convert(source, target)
    assert {*tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("folder.ckpt", "new.safetensors", "is a folder"),
        ("old.ckpt", "new.ckpt", "does not end in .safetensors"),
        ("old.ckpt", "old.safetensors", "exists, and is not overwritten"),
        ("old.ckpt", "link.safetensors", "exists, and is not overwritten"),
    ],
)
def test_names_that_do_not_do(tmp_path: Path, source: str, target: str, words: str) -> None:
    saved(tmp_path, STATE)
    (tmp_path / "old.safetensors").touch()
    (tmp_path / "folder.ckpt").mkdir()
    (tmp_path / "link.safetensors").symlink_to("nowhere")
    refused(UsageError, words, tmp_path / source, tmp_path / target)


def test_missing_places(tmp_path: Path, target: Path) -> None:
    refused(NotACheckpoint, "does not exist", tmp_path / "none.ckpt", target)
    with pytest.raises(WriteError, match=r"none does not exist") as caught:
        convert(saved(tmp_path, STATE), tmp_path / "none" / "new.safetensors")
    assert "mkdir" in caught.value.hint
    (tmp_path / "link").symlink_to("nowhere")
    for place, what in (("old.ckpt", "a file, not a folder"), ("link", "a link to what does not exist")):
        refused(WriteError, f"{place} is {what}", tmp_path / "old.ckpt", tmp_path / place / "new.safetensors", tmp_path)


def test_the_longest_name(tmp_path: Path) -> None:
    source, name = saved(tmp_path, STATE), f"{'x' * 243}.safetensors"
    refused(WriteError, "File name too long", source, tmp_path / f"x{name}")
    assert convert(source, tmp_path / name).after.size


def test_its_content_says_what_it_is(tmp_path: Path, target: Path) -> None:
    assert len(convert(saved(tmp_path, STATE, "weights.dat"), target).tensors) == len(STATE)


TENSOR = torch.ones(2)


@pytest.mark.parametrize(
    ("content", "advised"),
    [
        ({"x": TENSOR}, True),
        ({"x": TENSOR, "kept": {1, 2}, "rate": 1e-4}, True),
        ({"epoch": 3}, False),
        ({"x": TENSOR, "loss": np.float64(0.5)}, False),
        ({"x": TENSOR, "table": np.ones(2)}, False),
    ],
)
def test_it_is_advised_only_where_it_does(tmp_path: Path, target: Path, content: Any, advised: bool) -> None:
    source = saved(tmp_path, content)
    (found,) = [note for note in vet_file(source) if isinstance(note, Finding) and note.id == "file/pickle"]
    assert ("sau-scan convert" in found.next_step) is advised
    if advised:
        convert(source, target)
    else:
        with pytest.raises(SauScanError):
            convert(source, target)


def test_what_is_left_out_is_told_for_what_it_is(tmp_path: Path, target: Path) -> None:
    content = {"state_dict": {"a": TENSOR, 5: TENSOR}, "ema": {"a": TENSOR, "b": [TENSOR]}, "epoch": 3}
    done = convert(saved(tmp_path, content), target)
    assert done.dropped == ("ema (dict with 2 tensors)", "epoch (int)", "5 (tensor)") and done.nest == "state_dict"
    state = {"state": {0: {"exp": TENSOR}}}
    target.unlink()
    refused(NotACheckpoint, r"but state\.0 \(dict with 1 tensor\)", saved(tmp_path, state, "optimizer.bin"), target)


def test_a_full_disk(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = saved(tmp_path, STATE)
    monkeypatch.setattr("sau_scan.convert.os.fsync", full)
    refused(WriteError, "disk is full", source, target)


def test_a_copy_that_differs_is_not_kept(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, honest = saved(tmp_path, STATE), tensor_file.tensor_bytes
    calls: list[Tensor] = []

    def once_wrong(tensor: Tensor) -> bytes:
        calls.append(tensor)
        data = honest(tensor)
        return bytes([data[0] ^ 1]) + data[1:] if len(calls) == 3 else data

    monkeypatch.setattr("sau_scan.convert.tensor_bytes", once_wrong)
    refused(DamagedFile, "was not written as it was", source, target)


def test_what_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tmp_path, STATE)
    monkeypatch.setattr("sau_scan.convert._compare", lambda *_: target.write_text("kept"))
    with pytest.raises(WriteError, match="appeared meanwhile"):
        convert(source, target)
    assert target.read_text() == "kept"
    assert set(tmp_path.iterdir()) == {source, target}


def test_a_source_that_changes_meanwhile(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tmp_path, STATE)

    def change(*given: Any) -> None:
        with source.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\xff")

    monkeypatch.setattr("sau_scan.convert._compare", change)
    refused(DamagedFile, "changed while", source, target)


def test_a_link_is_followed(tmp_path: Path, target: Path) -> None:
    (tmp_path / "blobs").mkdir()
    saved(tmp_path / "blobs", STATE, "0123")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/old.ckpt").symlink_to("../blobs/0123")
    assert len(convert(tmp_path / "snapshot/old.ckpt", target).tensors) == len(STATE)
