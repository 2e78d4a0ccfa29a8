"""Our reader of safetensors against the reference implementation, and against damage."""

from __future__ import annotations

import json
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from sau_scan.checkpoint.tensor_file import DTYPES, UNREAD, read_entries, read_tensor, tensor_bytes
from sau_scan.errors import DamagedFile, NotACheckpoint
from sau_scan.static.header import BITS

shapes = st.lists(st.integers(0, 4), max_size=3)


def file_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, shape: Any = (1,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.tuples(shapes, st.sampled_from(sorted(DTYPES))), max_size=4))
def test_agrees_with_the_reference(described: dict[str, tuple[list[int], str]]) -> None:
    tensors = {
        name: torch.randint(0, 100, shape).to(DTYPES[dtype])
        for name, (shape, dtype) in described.items()
        if name != "__metadata__"
    }
    data = safetensors.torch.save(tensors, metadata={"format": "pt"})
    entries = read_entries(data, "file")
    assert entries.keys() == tensors.keys()
    for name, tensor in tensors.items():
        got = read_tensor(data, entries[name])
        assert got.dtype == tensor.dtype and got.shape == tensor.shape
        assert tensor_bytes(got) == tensor_bytes(tensor) == data[entries[name].begin : entries[name].end]


@pytest.mark.parametrize("dtype", sorted(UNREAD))
def test_types_that_are_not_read_are_no_damage(dtype: str) -> None:
    data = file_of({"a": entry(0, BITS[dtype], [8], dtype)}, bytes(BITS[dtype]))
    safetensors.deserialize(data)
    with pytest.raises(NotACheckpoint, match=f"'a' as {dtype}, a type that is not read here"):
        read_entries(data, "file")


def test_all_types_of_the_format_are_known() -> None:
    assert BITS.keys() == DTYPES.keys() | UNREAD


@given(st.binary(max_size=64), st.integers(0, 400), st.booleans())
def test_damage_is_an_error_and_never_a_crash(noise: bytes, at: int, insert: bool) -> None:
    good = safetensors.torch.save({"a": torch.ones(3, 4), "b": torch.zeros(2, dtype=torch.float16)})
    bad = good[:at] + noise + good[at if insert else at + len(noise) :]
    try:
        entries = read_entries(bad, "file")
    except (DamagedFile, NotACheckpoint):
        return
    # What is accepted must be readable, and lie in the file.
    for found in entries.values():
        assert read_tensor(bad, found).shape == found.shape
        assert found.end <= len(bad)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04K\x01.",
        (10**9).to_bytes(8, "little") + b"{}",
        (50).to_bytes(8, "little") + b"{}",
        file_of(b"["),
        file_of([]),
        file_of(b"\xff\xfe{\x00}\x00"),
        file_of(b"[" * 100_000),
        file_of({"a": entry(0, 4)}),
        file_of({"a": entry(0, 4)}, b"1234567"),
        file_of({"a": entry(0, 4), "b": entry(2, 6)}, b"123456"),
        file_of({"a": entry(0, 4), "b": entry(0, 4)}, b"1234"),
        file_of({"a": entry(4, 8)}, b"12345678"),
        file_of({"a": entry(0, 4, [2])}, b"1234"),
        file_of({"a": entry(0, 4, [-1])}, b"1234"),
        file_of({"a": entry(0, 4, [True])}, b"1234"),
        file_of({"a": entry(0, 4, 1)}, b"1234"),
        file_of({"a": entry(0, 4, [2**40, 2**40])}, b"1234"),
        file_of({"a": entry(0, 4, dtype="F33")}, b"1234"),
        file_of({"a": {**entry(0, 4), "dtype": ["F32"]}}, b"1234"),
        file_of({"a": 1}),
        file_of({"__metadata__": {"a": 1}}),
        file_of(
            b'{"a":' + json.dumps(entry(0, 4)).encode() + b',"a":' + json.dumps(entry(0, 4)).encode() + b"}", b"1234"
        ),
    ],
)
def test_what_the_format_forbids(data: bytes) -> None:
    with pytest.raises(DamagedFile) as caught:
        read_entries(data, "here/file")
    assert "here/file" in str(caught.value) and caught.value.hint


def test_a_cut_file_says_how_much_is_missing() -> None:
    with pytest.raises(DamagedFile, match=r"ends after 1,\d\d\d of 4,\d\d\d bytes"):
        read_entries(safetensors.torch.save({"a": torch.zeros(1024)})[:1500], "file")
