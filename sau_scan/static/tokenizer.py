"""Whether the tokenizer's tables say the same to every library version, and rewrite nothing on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sau_scan.checkpoint.source import Checkpoint
from sau_scan.findings import Finding, Severity
from sau_scan.static.facts import file_finding

FAST, VOCABULARY, MERGES = "tokenizer/tokenizer.json", "tokenizer/vocab.json", "tokenizer/merges.txt"
# What CLIP's tokenizer does to a text before it looks tokens up; anything else rewrites prompts.
NORMALIZERS = frozenset({"NFC", "Lowercase", "Replace", "Sequence", "BertNormalizer", "StripAccents"})
WHITE_SPACE = (r"\s+", " ")


def check_tokenizer(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Findings on ``tokenizer.json`` beside ``vocab.json`` and ``merges.txt``. Raises DamagedFile."""
    if checkpoint.record(FAST) is None:
        return
    fast = checkpoint.json(FAST)
    for rewriting in _rewriting(fast.get("normalizer"), 0):
        yield file_finding(
            checkpoint,
            "tokenizer-rewrites",
            Severity.HIGH,
            FAST,
            "tokenizer that rewrites prompts",
            f"Before tokens are looked up it applies {rewriting}, which CLIP's tokenizer does not; "
            "some versions of transformers obey it, others ignore it.",
        )
    if checkpoint.record(VOCABULARY) and checkpoint.record(MERGES) and not _agree(checkpoint, fast):
        yield file_finding(
            checkpoint,
            "tokenizer-mismatch",
            Severity.HIGH,
            FAST,
            "two tokenizers in one folder",
            "tokenizer.json differs from vocab.json and merges.txt, so prompts mean different things "
            "to different versions of transformers; tokenizer.json was scanned.",
        )


def _rewriting(normalizer: Any, depth: int) -> Iterator[str]:
    """What a normalizer does beyond CLIP's own, shown with everything escaped."""
    if normalizer is None:
        return
    kind = normalizer.get("type") if isinstance(normalizer, dict) else None
    if not isinstance(kind, str) or kind not in NORMALIZERS or depth > 3:
        yield f"a step of type {ascii(kind)[:60]}"
    elif kind == "Sequence":
        parts = normalizer.get("normalizers")
        for part in parts if isinstance(parts, list) else ["?"]:
            yield from _rewriting(part, depth + 1)
    elif kind == "Replace":
        pattern = normalizer.get("pattern")
        source = next(iter(pattern.values()), None) if isinstance(pattern, dict) else pattern
        if (source, normalizer.get("content")) != WHITE_SPACE:
            yield f"a replacement of {ascii(source)[:60]} by {ascii(normalizer.get('content'))[:60]}"


def _agree(checkpoint: Checkpoint, fast: dict[str, Any]) -> bool:
    model = fast.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("merges"), list):
        return False
    vocabulary = checkpoint.json(VOCABULARY)
    return _table(model.get("vocab"), fast) == _table(vocabulary, fast) and _pairs(model["merges"]) == _lines(
        checkpoint.read(MERGES)
    )


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
