"""Bases that do not fit: one kind of answer, whatever does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sau_scan.checkpoint.loader import load_model
from sau_scan.errors import UsageError
from sau_scan.static import open_vetted
from tests import tiny_models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda family: tiny_models.save(family, tmp_path_factory.mktemp(family) / "model"))


@pytest.mark.parametrize(
    ("family", "component", "base"),
    [
        ("sd2", "unet", "sdxl"),
        ("sdxl", "unet", "sd2"),
        ("sd2", "unet", "sd3"),
        ("sd3", "transformer", "sd3"),
        ("sdxl", "text_encoder", "sd3"),
    ],
)
def test_a_base_that_does_not_fit(
    family: str, component: str, base: str, model: Callable[[str], Path], tmp_path: Path
) -> None:
    (file,) = (model(family) / component).glob("*.safetensors")
    checkpoint, _ = open_vetted(file, base=model(base))
    with pytest.raises(UsageError, match="base") as caught:
        load_model(checkpoint)
    assert str(file) in str(caught.value) and caught.value.hint


def test_a_text_encoder_with_too_few_rows(model: Callable[[str], Path], tmp_path: Path) -> None:
    (file,) = (model("sd2") / "text_encoder").glob("*.safetensors")
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("token_embedding.weight"))
    other = tmp_path / "encoder.safetensors"
    save_file(tensors | {name: torch.zeros(7, tensors[name].shape[1])}, other)
    checkpoint, _ = open_vetted(other, base=model("sd2"))
    with pytest.raises(UsageError, match="does not fit --base"):
        load_model(checkpoint)
