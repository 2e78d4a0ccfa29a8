"""The tokenizer, in the layouts of old and new library versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.tokenizer import load_tokenizer
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint

TEXTS = ["a cat", "", "RED  house\u200b!", "c\u0430t \U0001f600", "<|endoftext|> dog"]


def to_old_layout(folder: Path) -> None:
    """As transformers 4 wrote it, and as Stable Diffusion 1.5 has it."""
    table = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(table["vocab"]))
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in table["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    start, end = (
        {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        for text in ("<|startoftext|>", "<|endoftext|>")
    )
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 16,
        "name_or_path": "openai/clip-vit-large-patch14",
        "special_tokens_map_file": "/etc/passwd",
        "tokenizer_class": "CLIPTokenizer",
        "pad_token": "<|endoftext|>",
        **{key: {"__type": "AddedToken", **special[key]} for key in ("bos_token", "eos_token", "unk_token")},  # type: ignore[dict-item]
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_the_old_layout_gives_the_same_ids(copy_of: Path) -> None:
    new = load_model(open_checkpoint(copy_of))
    to_old_layout(copy_of / "tokenizer")
    old = load_model(open_checkpoint(copy_of))
    assert old.token_ids(TEXTS).tolist() == new.token_ids(TEXTS).tolist()
    assert old.context_length == 16 and old.vocabulary == new.vocabulary


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_the_old_layout_needs_both_tables(name: str, copy_of: Path) -> None:
    to_old_layout(copy_of / "tokenizer")
    (copy_of / "tokenizer" / name).unlink()
    with pytest.raises(NotACheckpoint, match=name):
        load_tokenizer(open_checkpoint(copy_of))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"added_tokens": []}',
        '{"added_tokens": [], "model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
        '{"added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 1}, "merges": [["q", "r"]]}}',
        '{"added_tokens": [{}], "model": {"type": "BPE", "vocab": {}, "merges": []}}',
        '{"added_tokens": 3, "model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}}',
    ],
)
def test_tables_that_cannot_be_built(content: str, copy_of: Path) -> None:
    (copy_of / "tokenizer/tokenizer.json").write_text(content)
    with pytest.raises(DamagedFile):
        load_model(open_checkpoint(copy_of))


@pytest.mark.parametrize("limit", [2, 17, 77, -1, "x", True, 1.5, [1]])
def test_a_limit_beyond_the_encoders_positions(limit: object, copy_of: Path) -> None:
    path = copy_of / "tokenizer/tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": limit}))
    with pytest.raises(CheckpointError):
        load_model(open_checkpoint(copy_of))


def test_without_a_limit_the_encoder_decides(copy_of: Path) -> None:
    path = copy_of / "tokenizer/tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["model_max_length"]
    path.write_text(json.dumps(config))
    assert load_model(open_checkpoint(copy_of)).context_length == 16


def test_a_tokenizer_with_more_tokens_than_rows(copy_of: Path) -> None:
    path = copy_of / "tokenizer/tokenizer.json"
    table = json.loads(path.read_text())
    table["model"]["vocab"]["zebra</w>"] = len(table["model"]["vocab"])
    path.write_text(json.dumps(table))
    with pytest.raises(DamagedFile, match="rows"):
        load_model(open_checkpoint(copy_of))
