"""T5's vocabulary from a SentencePiece model, read without its library."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.spiece import read_pieces
from sau_scan.checkpoint.tokenizer import load_tokenizer
from sau_scan.errors import DamagedFile
from tests.tiny_models import save, tiny_t5_tokenizer

PROMPTS = ["a photo of the red cat", "", "Zebra, 2 dogs"]


def varint(number: int) -> bytes:
    head = bytes([number & 0x7F | (0x80 if number > 0x7F else 0)])
    return head + (varint(number >> 7) if number > 0x7F else b"")


def field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def model_of(scored: list[tuple[str, float]], characters: bytes = b"") -> bytes:
    """With a kind in each piece and a description of the training, as such files have."""
    pieces = (field(1, t.encode()) + b"\x15" + struct.pack("<f", s) + b"\x18\x01" for t, s in scored)
    made = b"".join(field(1, piece) for piece in pieces) + field(2, b"\x08\x01")
    return made + field(3, field(1, b"nmt_nfkc") + (field(2, characters) if characters else b""))


def test_pieces_come_back() -> None:
    scored = [("<pad>", 0.0), ("\u2581cat", -2.5), ("x" * 300, -7.25)]
    found = read_pieces(model_of(scored, b"table"))
    assert found.scored == scored and found.characters == b"table"


def test_the_same_tokens_as_from_tokenizer_json(tmp_path: Path) -> None:
    folder, tokenizer = save("pixart", tmp_path / "checkpoint"), tiny_t5_tokenizer()
    scored = [tuple(pair) for pair in tokenizer._vocab_scores]
    (folder / "tokenizer/tokenizer.json").unlink()
    (folder / "tokenizer/spiece.model").write_bytes(model_of(scored))  # type: ignore[arg-type]
    found = load_tokenizer(open_checkpoint(folder))
    assert found(PROMPTS).input_ids == tokenizer(PROMPTS).input_ids
    assert found.model_max_length == tokenizer.model_max_length


@pytest.mark.parametrize("cut", [0, 1, 50, -1])
def test_a_damaged_model_is_refused(cut: int, tmp_path: Path) -> None:
    folder = save("pixart", tmp_path / "checkpoint")
    (folder / "tokenizer/tokenizer.json").unlink()
    (folder / "tokenizer/spiece.model").write_bytes(model_of([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)])[:cut])
    with pytest.raises(DamagedFile, match="T5 tokenizer"):
        load_tokenizer(open_checkpoint(folder))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert read_pieces(data).scored
