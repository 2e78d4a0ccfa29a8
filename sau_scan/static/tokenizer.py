"""Whether the tokenizer's tables say the same to every library version, and rewrite nothing on the way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from sau_scan.static.configs import About
from sau_scan.static.facts import Fact
from sau_scan.static.folder import Folder
from sau_scan.static.vocabulary import check_added, check_ids, check_merges

# What the tokenizers of these families do to a text before they look tokens up; anything else rewrites prompts.
NORMALIZERS = frozenset(
    {"NFC", "Lowercase", "Replace", "Sequence", "BertNormalizer", "StripAccents", "Prepend", "Strip"}
)
# A table of replacements in binary: part of every T5 tokenizer, and of no tokenizer of byte pairs.
PRECOMPILED = "Precompiled"
_BLANKS = re.compile(r"(?:\\s| )(?:\+|\{\d,?\d*\})?")
_MARKS = frozenset({" ", "▁", ""})


def check_tokenizers(folder: Folder) -> About:
    """Findings on every ``tokenizer*/tokenizer.json`` beside ``vocab.json`` and ``merges.txt``."""
    for name in sorted({path.rpartition("/")[0] for path in folder.texts if _is_table(path)}):
        for fact in _check(folder, name):
            yield _told_of(folder, name), fact


def _is_table(path: str) -> bool:
    return path.rpartition("/")[2] in {"tokenizer.json", "vocab.json"}


def _told_of(folder: Folder, name: str) -> str:
    fast = f"{name}/tokenizer.json".lstrip("/")
    return fast if fast in folder.texts else f"{name}/vocab.json".lstrip("/")


def _check(folder: Folder, name: str) -> Iterator[Fact]:
    fast_path, slow_path, merges_path = (
        f"{name}/{file}".lstrip("/") for file in ("tokenizer.json", "vocab.json", "merges.txt")
    )
    if fast_path in folder.texts:
        fast = folder.json(fast_path)
        yield from _steps(fast)
        if (
            slow_path in folder.texts
            and merges_path in folder.texts
            and not _agree(folder, fast, slow_path, merges_path)
        ):
            yield Fact(
                "tokenizer-mismatch",
                "tokenizer.json differs from vocab.json and merges.txt, so prompts mean different things "
                "to different versions of transformers; tokenizer.json was scanned.",
            )
    else:
        fast = {"model": {"vocab": folder.json(slow_path), "merges": _lines(folder.texts.get(merges_path, b""))}}
    encoder = name.replace("tokenizer", "text_encoder")
    size = folder.json(f"{encoder}/config.json").get("vocab_size")
    beside = folder.json(f"{name}/added_tokens.json".lstrip("/"))
    configured = folder.json(f"{name}/tokenizer_config.json".lstrip("/")).get("added_tokens_decoder")
    yield from check_ids(fast, beside, configured, size if type(size) is int else None)
    yield from check_added(fast, beside, configured)
    yield from check_merges(fast)


def _steps(fast: dict[str, Any]) -> Iterator[Fact]:
    """Steps around the looking-up of tokens that change what a prompt says."""
    model = fast.get("model")
    unigram = isinstance(model, dict) and model.get("type") == "Unigram"
    rewriting = [*_rewriting(fast.get("normalizer"), 0, unigram), *_removing(fast.get("pre_tokenizer"), 0)]
    for step in rewriting:
        yield Fact(
            "tokenizer-rewrites",
            f"Before tokens are looked up it applies {step}, which the tokenizers of these families do not; "
            "some versions of transformers obey it, others ignore it.",
        )
    inserted = sorted(_inserted(fast))
    if inserted:
        yield Fact("tokenizer-inserts", f"To every prompt it adds {', '.join(inserted)}.")


def _rewriting(normalizer: Any, depth: int, unigram: bool) -> Iterator[str]:
    """What a normalizer does beyond those of the families, shown with everything escaped."""
    if normalizer is None:
        return
    kind = normalizer.get("type") if isinstance(normalizer, dict) else None
    if kind == PRECOMPILED and unigram:
        return
    if not isinstance(kind, str) or kind not in NORMALIZERS or depth > 3:
        yield f"a step of type {ascii(kind)[:60]}"
    elif kind == "Sequence":
        parts = normalizer.get("normalizers")
        for part in parts if isinstance(parts, list) else ["?"]:
            yield from _rewriting(part, depth + 1, unigram)
    elif kind == "Replace":
        source = _pattern(normalizer)
        if not (isinstance(source, str) and _BLANKS.fullmatch(source) and normalizer.get("content") in _MARKS):
            yield f"a replacement of {ascii(source)[:60]} by {ascii(normalizer.get('content'))[:60]}"
    elif kind == "Prepend" and normalizer.get("prepend") not in _MARKS:
        yield f"the insertion of {ascii(normalizer.get('prepend'))[:60]} in front"


def _pattern(step: dict[str, Any]) -> Any:
    pattern = step.get("pattern")
    return next(iter(pattern.values()), None) if isinstance(pattern, dict) else pattern


def _removing(step: Any, depth: int) -> Iterator[str]:
    """Splits that throw away what they match, which only white space deserves."""
    if not isinstance(step, dict) or depth > 3:
        return
    parts = step.get("pretokenizers")
    for part in parts if isinstance(parts, list) else []:
        yield from _removing(part, depth + 1)
    if step.get("type") == "Split" and step.get("behavior") == "Removed" and step.get("invert") is not True:
        source = _pattern(step)
        if not (isinstance(source, str) and _BLANKS.fullmatch(source)):
            yield f"the removal of {ascii(source)[:60]}"


def _inserted(fast: dict[str, Any]) -> Iterator[str]:
    """Tokens that the last step puts around a prompt, though they are no special tokens."""
    step = fast.get("post_processor")
    added = fast.get("added_tokens")
    special = {
        token.get("content") for token in added or [] if isinstance(token, dict) and token.get("special") is True
    }
    parts = [step, *(step.get("processors") or [])] if isinstance(step, dict) else []
    for part in parts:
        if not isinstance(part, dict):
            continue
        for pair in ("sep", "cls"):
            value = part.get(pair)
            if isinstance(value, list) and value and value[0] not in special:
                yield ascii(value[0])[:60]
        pieces = part.get("single")
        around = [
            piece["SpecialToken"] for piece in pieces or [] if isinstance(piece, dict) and "SpecialToken" in piece
        ]
        named = [piece.get("id") for piece in around if isinstance(piece, dict)]
        if len(named) > 2:
            yield f"{len(named)} tokens"
        table = part.get("special_tokens")
        for name in named:
            tokens = table.get(name, {}).get("tokens", [name]) if isinstance(table, dict) else [name]
            yield from (ascii(token)[:60] for token in tokens if token not in special)


def _agree(folder: Folder, fast: dict[str, Any], slow_path: str, merges_path: str) -> bool:
    model = fast.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("merges"), list):
        return False
    same = _table(model.get("vocab"), fast) == _table(folder.json(slow_path), fast)
    return same and _pairs(model["merges"]) == _lines(folder.texts[merges_path])


def _table(vocabulary: Any, fast: dict[str, Any]) -> dict[str, Any] | None:
    """The vocabulary without the special tokens, which may stand in either table or beside it."""
    if not isinstance(vocabulary, dict):
        return None
    added = fast.get("added_tokens")
    beside = {json.dumps(token.get("content")) for token in added if isinstance(token, dict)} if added else set()
    return {token: number for token, number in vocabulary.items() if json.dumps(token) not in beside}


def _pairs(merges: list[Any]) -> list[str]:
    return [merge if isinstance(merge, str) else " ".join(map(str, merge)) for merge in merges if merge]


def _lines(merges: bytes) -> list[str]:
    """The pairs in ``merges.txt``, as transformers reads it: one a line after a version."""
    lines = merges.decode("utf-8", errors="replace").split("\n")
    return [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]
