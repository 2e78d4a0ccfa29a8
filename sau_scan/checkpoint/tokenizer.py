"""Tokenizers, built from vetted bytes in a private folder."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer, T5Tokenizer

from sau_scan.checkpoint.families import T5_TOKENIZERS
from sau_scan.checkpoint.source import JSON_LIMIT, Checkpoint, parse_json
from sau_scan.checkpoint.spiece import read_pieces
from sau_scan.errors import CheckpointError, DamagedFile

CONFIG = "tokenizer_config.json"
TABLES = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json")
PIECES = "spiece.model"
MOST_EXTRA = 1000
# Everything else in tokenizer_config.json (auto_map, paths, templates) is left out: it can name code or files.
CONFIG_KEYS = frozenset(
    {
        "add_prefix_space",
        "added_tokens_decoder",
        "additional_special_tokens",
        "bos_token",
        "clean_up_tokenization_spaces",
        "do_lower_case",
        "eos_token",
        "extra_ids",
        "errors",
        "model_max_length",
        "pad_token",
        "padding_side",
        "split_special_tokens",
        "truncation_side",
        "unk_token",
    }
)
ANOTHER = "Take the tokenizer folder from the checkpoint that this one was made from, and scan again."


def load_tokenizer(checkpoint: Checkpoint, component: str = "tokenizer") -> Any:
    """A tokenizer of the kind that the index names, from ``tokenizer.json``; else CLIP's from ``vocab.json`` and
    ``merges.txt``, and T5's from ``spiece.model``.

    Raises NotACheckpoint when neither is there, UnsafeFile for a link that leaves the folder, DamagedFile when the
    tables do not make a tokenizer.
    """
    entry = checkpoint.index.get(component)
    t5 = isinstance(entry, list) and len(entry) == 2 and entry[1] in T5_TOKENIZERS
    for name in (*TABLES, PIECES, CONFIG):
        if f"{component}/{name}" in checkpoint.links_out:
            raise checkpoint.absent(f"{component}/{name}")
    present = [name for name in TABLES if checkpoint.holds(f"{component}/{name}")]
    pieces = t5 and "tokenizer.json" not in present and checkpoint.holds(f"{component}/{PIECES}")
    if not pieces:
        _require_tables(checkpoint, component, present, t5)
    try:
        tokenizer = _from_pieces(checkpoint, component) if pieces else _from_tables(checkpoint, component, present, t5)
        tokenizer(["a", ""])
    except (KeyboardInterrupt, SystemExit, CheckpointError):
        raise
    except BaseException as error:  # Rust panics on hostile tables are not even Exceptions
        raise DamagedFile(
            f"{checkpoint.show(component)} does not hold a {'T5' if t5 else 'CLIP'} tokenizer that can be built.",
            hint=ANOTHER,
        ) from error
    if tokenizer.padding_side != "right":
        raise DamagedFile(
            f"{checkpoint.show(component)} fills prompts up on the left; the pipeline reads them from there.",
            hint=ANOTHER,
        )
    return tokenizer


def _require_tables(checkpoint: Checkpoint, component: str, present: list[str], t5: bool) -> None:
    """Raises the error that fits where a table is missing."""
    if t5 or not {"tokenizer.json", "vocab.json", "merges.txt"} & {*present}:
        checkpoint.read(f"{component}/tokenizer.json")
    if "tokenizer.json" not in present:
        for name in ("vocab.json", "merges.txt"):
            checkpoint.read(f"{component}/{name}")


def _from_tables(checkpoint: Checkpoint, component: str, present: list[str], t5: bool) -> Any:
    with tempfile.TemporaryDirectory(prefix="sau-scan-") as folder:
        for name in present:
            (Path(folder) / name).write_bytes(_table(checkpoint, f"{component}/{name}"))
        config = json.dumps(_config(checkpoint, component))
        (Path(folder) / CONFIG).write_text(config, encoding="utf-8")
        return (T5Tokenizer if t5 else CLIPTokenizer).from_pretrained(folder, local_files_only=True)


def _from_pieces(checkpoint: Checkpoint, component: str) -> Any:
    """As transformers converts a SentencePiece model of T5: the extra tokens come last, the highest number first."""
    pieces, config = read_pieces(_table(checkpoint, f"{component}/{PIECES}")), _config(checkpoint, component)
    extra = min(int(config.get("extra_ids", 100)), MOST_EXTRA)
    names = [f"<extra_id_{i}>" for i in range(extra - 1, -1, -1)]
    kept = {key: config[key] for key in ("model_max_length", "padding_side", "truncation_side") if key in config}
    return T5Tokenizer(
        vocab=[*pieces.scored, *((name, 0.0) for name in names)],
        _spm_precompiled_charsmap=pieces.characters or None,
        extra_ids=extra,
        additional_special_tokens=names,
        **kept,
    )


def _table(checkpoint: Checkpoint, path: str) -> bytes:
    data = checkpoint.read(path)
    if len(data) > JSON_LIMIT:
        raise DamagedFile(f"{checkpoint.show(path)} is larger than any vocabulary.", hint=ANOTHER)
    return data


def _config(checkpoint: Checkpoint, component: str) -> dict[str, Any]:
    path = f"{component}/{CONFIG}"
    if not checkpoint.holds(path):
        return {}
    config = parse_json(checkpoint.read(path), checkpoint.show(path))
    return {key: value for key, value in config.items() if key in CONFIG_KEYS}
