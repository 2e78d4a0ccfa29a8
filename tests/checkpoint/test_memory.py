"""A pass takes as many rows as there is room for beside the weights, and no fewer than one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sau_scan.checkpoint import memory
from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from tests.tiny_models import save


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> DiffusionModel:
    return load_model(open_checkpoint(tiny_checkpoint))


def test_weights_are_counted_once_each(model: DiffusionModel) -> None:
    parts = [p for m in (model.text_encoder, model.unet, model.vae) for p in m.parameters()]
    assert memory.weight_bytes(model) == 4 * sum(p.numel() for p in parts)


def test_rows_follow_the_room(model: DiffusionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.passes_at_once(model) == memory.MOST
    assert (memory.chunk(model, 64), memory.chunk(model, 500, guided=True)) == (64, memory.MOST // 2)
    monkeypatch.setattr(memory, "ROOM", 3.5 * memory.row_bytes(model))
    monkeypatch.setattr(memory, "SHARE", 0)
    assert memory.passes_at_once(model) == 3
    monkeypatch.setattr(memory, "ROOM", 0)
    assert memory.passes_at_once(model) == memory.chunk(model, 64, guided=True) == 1


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux", "pixart"])
def test_every_family_has_a_size(family: str, tmp_path: Path) -> None:
    assert 2**10 < memory.row_bytes(load_model(open_checkpoint(save(family, tmp_path)))) < 2**24


def test_the_peak_grows_with_what_is_held() -> None:
    before = memory.peak_bytes(torch.device("cpu"))
    held = torch.ones(before // 4)  # as much again
    assert memory.peak_bytes(torch.device("cpu")) > 1.2 * before
    del held
