"""Changes to a folder that make it another, and loading what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.errors import CheckpointError

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def edit_json(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text())
    value.update(changes)
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not ...}))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path, metadata={"format": "pt"})


def load(path: Path, **options: Any) -> Any:
    return load_model(open_checkpoint(path), **options)


def fails(path: Path, kind: type[CheckpointError], words: str = "") -> None:
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert type(caught.value) is kind, caught.value
    assert words in str(caught.value) and caught.value.hint
    assert str(caught.value).isprintable()
