"""Textual inversion files of every kind do to a base what diffusers makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from sau_scan.checkpoint.adapters.inversion import (
    Inversion,
    extend_rows,
    extend_tokenizer,
    is_inversion,
    plain_rows,
    read_inversion,
)
from sau_scan.checkpoint.pickled import weights
from sau_scan.checkpoint.tensor_file import Entry
from sau_scan.errors import DamagedFile, NotACheckpoint, SauScanError, UsageError
from sau_scan.static import open_vetted
from tests.checkpoint.adapters.samples import tiny_xl
from tests.conftest import WIDTH, tiny_pipeline, tiny_tokenizer

ROWS = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
Content = dict[str, Any]


def a1111(rows: Tensor, name: str = "<toy>") -> Content:
    return {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": rows},
        "name": name,
        "step": 500,
        "sd_checkpoint": None,
        "sd_checkpoint_name": "somebody's",
    }


def read(content: Content, **widths: int) -> Inversion:
    return read_inversion(content, widths or {"text_encoder": WIDTH}, name="<toy>", where="toy.pt", base="a toy")


FILES: dict[str, Content] = {
    "diffusers": {"<toy>": ROWS},
    "one row": {"<toy>": ROWS[:1]},
    "one row, flat": {"<toy>": ROWS[0]},
    "half": {"<toy>": ROWS.half()},
    "A1111": a1111(ROWS),
    "first code": a1111(ROWS) | {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(ROWS)})},
    "bare": {"emb_params": ROWS},
    "capitals": {"MyToy": ROWS[:1]},
    "words": {"a green toy": ROWS},
    "invisible": {"\u200b": ROWS},
}


@pytest.mark.parametrize("kind", FILES)
def test_a_base_is_extended_as_diffusers_does_it(kind: str) -> None:
    inversion = read(FILES[kind])
    ours, theirs = tiny_pipeline(), tiny_pipeline()
    content = FILES[kind]["emb_params"] if kind == "bare" else dict(FILES[kind])
    theirs.load_textual_inversion(content, token="<toy>" if kind == "bare" else None)
    ids = extend_tokenizer(ours.tokenizer, inversion)
    table = extend_rows(ours.text_encoder.get_input_embeddings().weight, ids, inversion.rows["text_encoder"])
    assert torch.equal(table, theirs.text_encoder.get_input_embeddings().weight)
    assert ours.tokenizer.get_vocab() == theirs.tokenizer.get_vocab()
    prompt = f"a photo of {inversion.word} in the house, {inversion.word}."
    if inversion.word.islower():  # diffusers forgets the further rows of a word with capitals
        expected = theirs.maybe_convert_prompt(prompt, theirs.tokenizer)
        assert inversion.expand(prompt) == expected
    typed = ours.tokenizer(inversion.expand(prompt)).input_ids
    assert typed == theirs.tokenizer(inversion.expand(prompt)).input_ids and set(ids) <= set(typed)


def test_two_encoders() -> None:
    pipeline = tiny_xl()
    content = {"clip_l": ROWS, "clip_g": ROWS[:, : WIDTH // 2]}
    inversion = read(content, text_encoder=WIDTH, text_encoder_2=WIDTH // 2)
    assert inversion.rows.keys() == {"text_encoder", "text_encoder_2"} and inversion.layout == "SDXL"
    for encoder, rows in inversion.rows.items():
        width = getattr(pipeline, encoder).get_input_embeddings().weight.shape[1]
        assert rows.shape == (3, width)
    only = read({"<toy>": ROWS[:, : WIDTH // 2]}, text_encoder=WIDTH, text_encoder_2=WIDTH // 2)
    assert only.rows.keys() == {"text_encoder_2"}, "the first encoder whose table has this width"


def test_a_word_that_is_there_already_takes_its_row_over() -> None:
    pipeline = tiny_pipeline()
    before = pipeline.tokenizer("a cat, a dog").input_ids
    inversion = read({",": ROWS[:1]})
    ids = extend_tokenizer(pipeline.tokenizer, inversion)
    assert ids[0] < len(tiny_tokenizer()) and ids[0] in pipeline.tokenizer("a cat, a dog").input_ids != before


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ({}, NotACheckpoint, "0 entries"),
        ({"a": ROWS, "b": ROWS}, NotACheckpoint, "2 entries, among them 'a'"),
        ({"string_to_param": {"*": ROWS, "+": ROWS}}, NotACheckpoint, "2 words"),
        ({"<toy>": "text"}, DamagedFile, "no table"),
        ({"<toy>": torch.ones(2, 2, 2)}, DamagedFile, "no table"),
        ({"<toy>": torch.ones(2, 2, dtype=torch.int64)}, DamagedFile, "no table"),
        ({"<toy>": torch.full((1, WIDTH), float("nan"))}, DamagedFile, "not numbers"),
        ({"<toy>": torch.ones(5000, WIDTH)}, DamagedFile, "5,000 rows"),
        ({"<toy>": torch.ones(1, 768)}, UsageError, "width 768.*width 32"),
        ({"": ROWS}, DamagedFile, "no usable word"),
        ({"\ud800": ROWS}, DamagedFile, r"no usable word: '\\ud800'"),
        ({"\x1b" * 10_000: ROWS}, DamagedFile, r"no usable word: '(\\x1b){40}'\.\.\.\."),
        (a1111(ROWS) | {"name": 7}, DamagedFile, "no usable word: it is of the type int"),
        ({"clip_g": ROWS}, UsageError, "for text_encoder_2"),
    ],
)
def test_what_cannot_be_read(content: Content, error: type[SauScanError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        read(content)
    assert caught.value.hint and str(caught.value).isascii()


def test_the_end_of_every_prompt_cannot_be_taken_over() -> None:
    pipeline = tiny_pipeline()
    with pytest.raises(DamagedFile, match="cannot be added"):
        extend_tokenizer(pipeline.tokenizer, read({"<|endoftext|>": ROWS[:1]}))


def test_telling_inversions_from_other_files() -> None:
    """By names and shapes alone: a few vectors are no inversion yet."""
    known = [content for kind, content in FILES.items() if kind != "first code"]
    for content in (*known, {"clip_l": ROWS, "clip_g": ROWS}, {"text_encoders_0": ROWS}, {"<v1.5>": ROWS[0]}):
        assert is_inversion(entries(content)), content
    for content in (
        {"unet.conv_in.weight": ROWS},
        {"weight": ROWS[0]},
        {"0": ROWS},
        {"mean": ROWS[0], "std": ROWS[0]},
        {"a": ROWS, "b": ROWS},
        {"clip_l": ROWS, "t5": ROWS},
        {"clip_l.ln.weight": ROWS[0], "clip_l.ln.bias": ROWS[0]},
        {"toy": ROWS[0, 0]},
        {"toy": torch.ones(2, 3, 4)},
        {"toy": torch.ones(1)},
        {"toy": torch.ones(3)},
        {"toy": torch.ones(2, 100)},
        {"toy": torch.ones(3, 8, dtype=torch.int64)},
        {"toy": torch.ones(20_000, 8)},
        tiny_pipeline().unet.state_dict(),
    ):
        assert not is_inversion(entries(content)), content
    assert not is_inversion({})


def entries(content: Content) -> dict[str, Entry]:
    found = weights(content, "toy.pt")[0]
    return {name: Entry(tensor.dtype, tuple(tensor.shape), 0, tensor.nbytes) for name, tensor in found.items()}


def test_others_are_not_known_for_what_they_are(tmp_path: Path) -> None:
    safetensors.torch.save_file({"mean": ROWS[0], "std": ROWS[1]}, tmp_path / "few.safetensors")
    with pytest.raises(NotACheckpoint, match=r"not known what .*few.safetensors is; it holds 'mean', 'std'") as caught:
        open_vetted(tmp_path / "few.safetensors")
    assert "emb_params" in caught.value.hint


def test_rows_of_the_base_for_a_word() -> None:
    tokenizer, table = tiny_tokenizer(), torch.randn(600, 4)
    ids = tokenizer("cat dog", add_special_tokens=False).input_ids
    assert torch.equal(plain_rows("cat dog", 2, tokenizer, table), table[ids])
    assert torch.allclose(plain_rows("cat dog", 3, tokenizer, table), table[ids].mean(0).expand(3, -1))
    assert plain_rows("   ", 1, tokenizer, table).shape == (1, 4)
