"""What a single file lacks: configurations of the published originals, and CLIP's table of 49,408 tokens.

A single file holds weights alone. The configurations are those of Stable Diffusion 1.5, 2.1 (``sd2``), 2.1-base
(``sd2-base``) and SDXL 1.0; the table is OpenAI's (MIT, see LICENSE-CLIP), as merges, and all four have it.
"""

from __future__ import annotations

import gzip
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_MERGES = "bpe_simple_vocab_16e6.txt.gz"
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_TOKENS = 49_408
# OpenCLIP fills prompts up with token 0.
_PAD = {
    "sd1": {"tokenizer": _END},
    "sd2": {"tokenizer": "!"},
    "sd2-base": {"tokenizer": "!"},
    "sdxl": {"tokenizer": _END, "tokenizer_2": "!"},
}
SHIPPED = tuple(_PAD)


def shipped_files(family: str) -> dict[str, bytes]:
    """Path in a diffusers folder -> content: everything but the weights. Raises KeyError for what is not shipped."""
    pads = _PAD[family]
    root = _HERE / family
    files = {file.relative_to(root).as_posix(): file.read_bytes() for file in sorted(root.rglob("*.json"))}
    for folder, pad in pads.items():
        files |= {f"{folder}/{name}": data for name, data in _tokenizer(pad).items()}
    return files


@lru_cache
def _tokenizer(pad: str) -> dict[str, bytes]:
    """The files of a CLIP tokenizer that fills prompts up with ``pad``."""
    lines = gzip.decompress((_HERE / _MERGES).read_bytes()).decode("utf-8").split("\n")
    letters = _letters()
    # The file goes on beyond the merges that CLIP was trained with.
    merges = lines[1 : _TOKENS - 2 * len(letters) - 2 + 1]
    table = [*letters, *(letter + "</w>" for letter in letters), *(m.replace(" ", "") for m in merges), _BEGIN, _END]
    special = {"bos_token": _BEGIN, "eos_token": _END, "unk_token": _END, "pad_token": pad}
    config = {
        **special,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
    }
    return {
        "vocab.json": _json({token: number for number, token in enumerate(table)}),
        "merges.txt": "\n".join(["#version: 0.2", *merges, ""]).encode(),
        "tokenizer_config.json": _json(config),
        "special_tokens_map.json": _json(special),
    }


def _letters() -> list[str]:
    """The 256 bytes as printable characters, in CLIP's order: printable ones stand for themselves and come first."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = 256 - len(shown)
    return [chr(code) for code in (*shown, *range(256, 256 + hidden))]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
