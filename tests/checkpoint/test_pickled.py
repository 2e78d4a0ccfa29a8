"""Pickles of tensors: one rule says which they are, and what is loaded is what was hashed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from sau_scan.checkpoint.pickled import PickledFile, weights
from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.errors import NotACheckpoint, SauScanError, UnsafeFile
from sau_scan.findings import FileRecord

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
    found, dropped = weights(content, "x")
    assert [*found] == names and bool(dropped) is (content is not STATE)


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        ({"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}}, UnsafeFile, "two tensors called 'a.b'"),
        ({"state_dict": STATE, "model": STATE}, UnsafeFile, "weights under 'state_dict' and under 'model'"),
        ({"z": torch.ones(2, 2).to_sparse()}, NotACheckpoint, "sparse"),
        ({"z": torch.ones(1, device="meta")}, NotACheckpoint, "holds 'z'"),
        ({"z": torch.ones(1).expand(2**40)}, UnsafeFile, "repeat the same memory"),
        (torch.ones(2), NotACheckpoint, "no tensors with names"),
    ],
)
def test_a_scan_refuses_what_convert_refuses(
    content: Any, kind: type[SauScanError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words):
        _ = opened(tmp_path / "x.ckpt", content).entries
