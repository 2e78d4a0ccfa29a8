"""``sau-scan convert`` as it is typed: what it prints, and what it says of names that it cannot take."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.cli.conftest import Invoke


def test_names_are_shown_escaped(invoke: Invoke, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "a\u202eb.ckpt")
    result = invoke("convert", "a\u202eb.ckpt", "b.safetensors", "--format", "json")
    assert result.stdout.isascii()
    assert json.loads(result.stdout)["before"]["path"] == "a\u202eb.ckpt"
