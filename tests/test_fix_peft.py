"""Repairs of what PEFT writes: a folder is given, and one file is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sau_scan.errors import UsageError
from sau_scan.options import FixOptions, ScanOptions
from tests.checkpoint.adapters.test_peft_folder import peft
from tests.test_fix import flow, names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return peft(tmp_path / "lora", name="adapter_model.bin", lora_alpha=12)


def test_nothing_is_published_in_the_folder_that_was_named(folder: Path, tiny_checkpoint: Path) -> None:
    """Beside the pickle, a safetensors file of PEFT's name would be taken instead of it."""
    options = FixOptions(out=folder / "adapter_model.safetensors", scan=ScanOptions(base=tiny_checkpoint))
    with pytest.raises(UsageError, match="inside the other"):
        flow.fix(folder, options)
    assert names(folder) == {"adapter_model.bin", "adapter_config.json"}
