"""Changes to the tiny checkpoint's tokenizer, one for each way in which it can deceive."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.checkpoint.test_tokenizer import to_old_layout

FAST = "tokenizer/tokenizer.json"


def in_table(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Applies ``change`` to tokenizer.json."""

    def apply(copy: Path) -> None:
        table = json.loads((copy / FAST).read_text())
        change(table)
        (copy / FAST).write_text(json.dumps(table))

    return apply


def both_layouts(copy: Path) -> None:
    table = (copy / FAST).read_bytes()
    to_old_layout(copy / "tokenizer")
    (copy / FAST).write_bytes(table)


def exchange_words(copy: Path) -> None:
    both_layouts(copy)
    path = copy / "tokenizer/vocab.json"
    words = json.loads(path.read_text())
    words["cat</w>"], words["dog</w>"] = words["dog</w>"], words["cat</w>"]
    path.write_text(json.dumps(words))


def step(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda table: table["normalizer"]["normalizers"].append(values)


def added(content: str) -> Callable[[dict[str, Any]], None]:
    """One more token, and no number that is taken."""

    def apply(table: dict[str, Any]) -> None:
        words = table["model"]["vocab"]
        last = next(word for word, number in words.items() if word.startswith("z") and len(word) == 1)
        token = {**table["added_tokens"][0], "content": content, "id": words.pop(last), "special": False}
        table["added_tokens"].append(token)

    return apply


def remove_word(table: dict[str, Any]) -> None:
    splitting = {"type": "Split", "pattern": {"String": "cat"}, "behavior": "Removed", "invert": False}
    table["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [splitting, table["pre_tokenizer"]]}


def insert_word(table: dict[str, Any]) -> None:
    table["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "cat</w>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {"cat</w>": {"id": "cat</w>", "ids": [1], "tokens": ["cat</w>"]}},
    }


TOKENIZER_MAKERS: dict[str, Callable[[Path], Any]] = {
    "clip-tokenizer": in_table(step(type="Replace", pattern={"Regex": r"\s+"}, content=" ")),
    "tokenizer-both": both_layouts,
    "tokenizer-two": exchange_words,
    "tokenizer-replaces": in_table(step(type="Replace", pattern={"String": "cat"}, content="dog")),
    "tokenizer-removes": in_table(remove_word),
    "tokenizer-added-word": in_table(added("cat")),
    "tokenizer-added-invisible": in_table(added("\u200b")),
    "tokenizer-id-beyond": in_table(lambda table: table["model"]["vocab"].update({"far": 9_999})),
    "tokenizer-id-twice": in_table(lambda table: table["model"]["vocab"].update({"again": 5})),
    "tokenizer-merges": in_table(lambda table: table["model"]["merges"].append(["qq", "zz"])),
    "tokenizer-inserts": in_table(insert_word),
}
