"""Embeddings from pickles are written as safetensors of the same word, with all of their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint.adapters.applying import named_by_file, rows_content
from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.checkpoint.views import TensorRef
from sau_scan.errors import BeyondRepair, DamagedFile, UnsafeFile
from sau_scan.static import open_vetted
from tests.conftest import WIDTH

ROWS = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))


def opened(content: dict[str, Any], base: Path, folder: Path) -> Checkpoint:
    torch.save(content, folder / "cat.pt")
    return open_vetted(folder / "cat.pt", base=base)[0]


@pytest.mark.parametrize(
    ("content", "tables"),
    [
        ({"string_to_param": {"*": ROWS}, "name": "<toy>"}, {"<toy>": ROWS}),
        ({"string_to_token": {"*": 265}, "string_to_param": {"*": ROWS}}, {"cat": ROWS}),
        ({"emb_params": ROWS}, {"cat": ROWS}),
        ({"<toy>": ROWS.half()}, {"<toy>": ROWS.half()}),
        ({"clip_l": ROWS, "clip_g": ROWS[:, :16]}, {"clip_l": ROWS, "clip_g": ROWS[:, :16]}),
    ],
)
def test_a_pickle_keeps_its_word_and_all_rows(
    content: dict[str, Any], tables: dict[str, torch.Tensor], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = opened(content, tiny_checkpoint, tmp_path)
    same = safetensors.torch.load(rows_content(checkpoint, {}))
    assert same.keys() == tables.keys()
    assert all(torch.equal(same[name], table) and same[name].dtype == table.dtype for name, table in tables.items())


def test_a_word_that_only_the_name_of_its_file_says(tiny_checkpoint: Path, tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": ROWS}, "name": "a_v1.3"}, tmp_path / "a_v1.3.pt")
    checkpoint = open_vetted(tmp_path / "a_v1.3.pt", base=tiny_checkpoint)[0]
    wanted = {TensorRef("a_v1.3.pt", "string_to_param.*", "[1]"): ROWS[0]}
    new = safetensors.torch.load(rows_content(checkpoint, wanted))
    assert new.keys() == {"emb_params"} and torch.equal(new["emb_params"], ROWS[[0, 0, 2]])


def test_one_row_is_changed_and_the_others_stay(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = opened({"clip_l": ROWS, "clip_g": ROWS[:, :16]}, tiny_checkpoint, tmp_path)
    assert named_by_file(checkpoint)
    new = safetensors.torch.load(rows_content(checkpoint, {TensorRef("cat.pt", "clip_g", "[1]"): torch.ones(16)}))
    assert torch.equal(new["clip_l"], ROWS)
    assert torch.equal(new["clip_g"][1], torch.ones(16)) and torch.equal(new["clip_g"][::2], ROWS[::2, :16])


@pytest.mark.parametrize("word", ["clip_l", "emb_params", "__metadata__", "a lora_ word", "a_v1.3", "a/lora_"])
def test_a_word_that_the_new_file_cannot_say(word: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = opened({"string_to_param": {"*": ROWS}, "name": word}, tiny_checkpoint, tmp_path)
    assert not named_by_file(checkpoint)
    with pytest.raises(BeyondRepair, match=r"can say|would say"):
        rows_content(checkpoint, {})


@pytest.mark.parametrize(
    "content",
    [
        {"string_to_param": {"*": ROWS}, "model": {"moon": ROWS}},
        {"string_to_param": {5: ROWS}, "string_to_token": {"*": ROWS}},
        {"string_to_param": {"*": torch.nested.nested_tensor([ROWS, ROWS[:1]])}, "model": {"moon": ROWS}},
    ],
)
def test_rows_that_are_not_among_the_tensors(content: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = opened(content, tiny_checkpoint, tmp_path)
    with pytest.raises((UnsafeFile, DamagedFile), match=r"among other things|no table of rows"):
        load_model(checkpoint)
