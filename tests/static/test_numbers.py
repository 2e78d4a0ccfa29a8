"""Statistics of weights against torch, whatever the chunks are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sau_scan.static.header import Tensor, parse_header
from sau_scan.static.numbers import FORMATS, Statistics

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
}


def fed(data: bytes, tensors: list[Tensor], size: int) -> Statistics:
    statistics = Statistics(tensors, 0)
    for start in range(0, len(data), size):
        statistics.update(memoryview(data)[start : start + size])
    return statistics


@given(st.sampled_from(sorted(DTYPES)), st.binary(min_size=1, max_size=400), st.integers(1, 50), st.integers(0, 9))
def test_values_that_are_not_numbers_are_counted_as_torch_does(name: str, data: bytes, size: int, gap: int) -> None:
    width = DTYPES[name].itemsize
    data = data[: len(data) // width * width] or bytes(width)
    values = torch.frombuffer(bytearray(data), dtype=DTYPES[name]).float()
    wide = torch.frombuffer(bytearray(data), dtype=DTYPES[name]).double()
    expected = int((~torch.isfinite(wide)).sum()) if width == 8 else int((~torch.isfinite(values)).sum())
    tensor = Tensor("a", name, (len(data) // width,), gap, gap + len(data))
    assert fed(bytes(gap) + data + b"\xff" * 20, [tensor], size).bad.get("a", 0) == expected


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5])
@pytest.mark.parametrize("size", [7, 4096, 10**6])
def test_a_tensor_of_one_value_is_dead(value: float, size: int) -> None:
    dead = torch.full((64, 64), value)
    alive = dead.clone()
    alive[-1, -1] = 2.0
    data = b"".join(tensor.numpy().tobytes() for tensor in (dead, alive))
    half = len(data) // 2
    tensors = [Tensor("dead", "F32", (64, 64), 0, half), Tensor("alive", "F32", (64, 64), half, 2 * half)]
    assert fed(data, tensors, size).dead == ["dead"]


def test_both_kinds_of_zero_together_are_dead_too() -> None:
    zeros = torch.zeros(64, 64)
    zeros[0] = -0.0
    data = zeros.numpy().tobytes()
    assert fed(data, [Tensor("a", "F32", (64, 64), 0, len(data))], 1000).dead == ["a"]


def test_every_floating_format_has_its_words() -> None:
    assert DTYPES.keys() == {name for name, form in FORMATS.items() if form.infinite is not None}


@given(st.binary(max_size=200), st.integers(0, 10**6))
def test_any_bytes_make_a_header_with_facts(text: bytes, size: int) -> None:
    header = parse_header(text, size)
    assert header.facts or header.missing >= 0
