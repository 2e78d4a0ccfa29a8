"""Repairs of what PEFT writes: a folder is given, and one file is made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.errors import UsageError
from sau_scan.options import FixOptions, ScanOptions
from tests.checkpoint.adapters.test_peft_folder import change, loaded, peft
from tests.test_fix import World, flow, names, outcome, world
from tests.test_verify import scan

__all__ = ["world"]


def test_nothing_is_published_in_the_folder_that_was_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Beside the pickle, a safetensors file of PEFT's name would be taken instead of it."""
    folder = peft(tmp_path / "lora", name="adapter_model.bin")
    options = FixOptions(out=folder / "adapter_model.safetensors", scan=ScanOptions(base=tiny_checkpoint))
    with pytest.raises(UsageError, match="inside the other"):
        flow.fix(folder, options)
    assert names(folder) == {"adapter_model.bin", "adapter_config.json"}


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors"])
def test_the_record_says_what_became_of_each_file(
    name: str, world: World, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """One file is written, of the strength that it had with the settings beside it, which are left out."""
    folder = peft(tmp_path / "lora", name=name, lora_alpha=12, auto_map={"x": "evil.py"})
    out = tmp_path / "out.safetensors"
    strong = change(loaded(folder, tiny_checkpoint), tiny_checkpoint)
    world.scans, world.outcomes = [scan()], [outcome()]
    done = flow.fix(folder, FixOptions(out=out, scan=ScanOptions(base=tiny_checkpoint)))
    assert done.published == str(out) and done.repair is not None
    assert done.repair.files_changed == tuple(sorted(names(folder))) and done.repair.files_identical == 0
    files = json.loads(Path(f"{out}.{flow.PROVENANCE}").read_text())["files"]
    written = open_checkpoint(out, base=tiny_checkpoint)
    assert files[name]["after"] == written.records[0].sha256
    assert files["adapter_config.json"]["after"] is None
    assert torch.allclose(change(loaded(out, tiny_checkpoint), tiny_checkpoint), strong, atol=1e-5)
