"""Adapters in safetensors are written back in place: the header and all other bytes stay."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint.adapters.rewriting import rewrite
from sau_scan.errors import DamagedFile, WriteError

ROWS = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_tensor_is_other_and_all_else_the_same(dtype: torch.dtype) -> None:
    stored = {"a": ROWS.to(dtype), "b": ROWS.to(dtype, copy=True)}
    old = safetensors.torch.save(stored, metadata={"note": "kept"})
    new = rewrite(old, {"a": ROWS * 2}, "x")
    start = 8 + int.from_bytes(old[:8], "little")
    assert new[:start] == old[:start]
    after = safetensors.torch.load(new)
    assert torch.equal(after["a"], (ROWS * 2).to(dtype)) and torch.equal(after["b"], stored["b"])


@pytest.mark.parametrize("wanted", [{"other": ROWS}, {"a": ROWS[:1]}])
def test_a_file_that_is_not_the_one_that_was_read(wanted: dict[str, torch.Tensor]) -> None:
    with pytest.raises(DamagedFile, match="no tensor"):
        rewrite(safetensors.torch.save({"a": ROWS}), wanted, "x")


def test_values_that_the_stored_type_cannot_hold() -> None:
    with pytest.raises(WriteError, match="float16"):
        rewrite(safetensors.torch.save({"a": ROWS.half()}), {"a": ROWS * 1e6}, "x")
