"""Textual inversion files: words that they add, and the rows of the token table that these words stand for.

``read_inversion`` takes what a file holds: tensors by name, or the nested tables of a pickle that was opened without
running it. ``extend_tokenizer`` and ``extend_rows`` do to a base what diffusers' ``load_textual_inversion`` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sau_scan.checkpoint.tensor_file import Entry, is_plain
from sau_scan.errors import DamagedFile, NotACheckpoint, UsageError

# The keys of Stable Diffusion XL's files, in the spellings of A1111 and of diffusers' trainer -> text encoder.
ENCODERS = {
    "clip_l": "text_encoder",
    "clip_g": "text_encoder_2",
    "text_encoders_0": "text_encoder",
    "text_encoders_1": "text_encoder_2",
}
BARE = "emb_params"
# The first textual inversion code saved its words in a module; torch.load opens it if told that it is harmless.
TABLES = (Mapping, torch.nn.ParameterDict)
A1111 = "string_to_param"
A1111_PARTS = (f"{A1111}.", "string_to_token.")
# A path of modules, or the last part of one, as no word is spelled.
_PARAMETER = re.compile(r"\w+(\.\w+)+|weight|bias|mean|std|scale|alpha|data|tensor|\d+")
NARROWEST, MULTIPLE = 16, 8  # no text encoder's table has rows of three numbers
WIDEST = 8192  # token tables of the largest text encoders have half of that
MOST_ROWS = 1_000  # far above the length of any prompt
LONGEST_WORD = 500
SHOWN = 40  # characters of a word that is none
AGAIN = "Download the file again, or check it against the sha256 that its source publishes."
Path = tuple[str, ...]


@dataclass(frozen=True)
class Inversion:
    """``word``: what is typed in a prompt. ``rows``: text encoder -> [n, D] in fp32, one row for each of ``tokens``.

    ``paths``: text encoder -> the keys that lead to its tensor in the file. ``layout``: whose file it is.
    """

    word: str
    rows: Mapping[str, Tensor]
    paths: Mapping[str, Path]
    layout: str

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens that the word becomes: ``word``, ``word_1``, ..."""
        count = len(next(iter(self.rows.values())))
        return (self.word, *(f"{self.word}_{i}" for i in range(1, count)))

    def expand(self, prompt: str) -> str:
        """``prompt`` with all of the word's tokens where the word stands."""
        return prompt.replace(self.word, " ".join(self.tokens))


def is_inversion(entries: Mapping[str, Entry]) -> bool:
    """Whether a file of these tensors is a textual inversion in a layout that is known.

    A1111 has its tables below ``string_to_param`` or as ``emb_params``; Stable Diffusion XL's are called by encoder;
    diffusers has one table that is called as the word, which anything else with one small tensor has, too: what is
    called as a parameter of a model is none.
    """
    if not entries:
        return False
    if (
        entries.keys() <= {*ENCODERS}
        or entries.keys() == {BARE}
        or all(name.startswith(A1111_PARTS) for name in entries)
    ):
        return True
    if len(entries) > 1:
        return False
    ((name, entry),) = entries.items()
    rows = len(entry.shape) == 1 or (len(entry.shape) == 2 and 0 < entry.shape[0] <= MOST_ROWS)
    width = rows and NARROWEST <= entry.shape[-1] <= WIDEST and entry.shape[-1] % MULTIPLE == 0
    return width and entry.dtype.is_floating_point and not _PARAMETER.fullmatch(name)


def _shown(word: object) -> str:
    if not isinstance(word, str):
        return f"it is of the type {type(word).__name__}"
    return f"{word[:SHOWN]!a}{'...' if len(word) > SHOWN else ''}"


def read_inversion(
    content: Mapping[str, Any], widths: Mapping[str, int], *, name: str, where: str, base: str
) -> Inversion:
    """The inversion that a file holds.

    ``widths``: the base's text encoders -> the width of their token tables. ``name``: of the file without its ending,
    which is the word where the file names none. ``where`` names the file in errors, ``base`` the base's family.
    Raises NotACheckpoint for something else, DamagedFile, or UsageError for a base that does not fit.
    """
    word, found, layout = find_tables(content, name, where)
    if not isinstance(word, str) or not 0 < len(word) <= LONGEST_WORD or not encodable(word):
        raise DamagedFile(f"{where} names no usable word: {_shown(word)}.", hint=AGAIN)
    tensors = {path: _matrix(_at(content, path), path, where) for path in found.values()}
    paths = _by_encoder(found, tensors, widths, where, base)
    rows = {encoder: tensors[path] for encoder, path in paths.items()}
    if len({len(table) for table in rows.values()}) != 1:
        raise DamagedFile(f"{where} holds another number of rows for each text encoder.", hint=AGAIN)
    return Inversion(word, rows, paths, layout)


def extend_tokenizer(tokenizer: Any, inversion: Inversion) -> tuple[int, ...]:
    """Adds the word's tokens to a tokenizer and returns their ids; one that it has already keeps its id."""
    for token in inversion.tokens:
        tokenizer.add_tokens(token)
    ids = tuple(int(i) for i in tokenizer.convert_tokens_to_ids(list(inversion.tokens)))
    if len(set(ids)) != len(ids) or set(ids) & set(tokenizer.all_special_ids):
        raise DamagedFile(
            f"The word {inversion.word!a} cannot be added to the tokenizer of the base.",
            hint="Do not use this file: no prompt can name what it holds.",
        )
    return ids


def extend_rows(table: Tensor, ids: Sequence[int], rows: Tensor) -> Tensor:
    """A token table [V, D] with ``rows`` [n, D] at ``ids``, longer by as many rows as that takes."""
    grown = table.new_zeros(max(len(table), max(ids) + 1), table.shape[1])
    grown[: len(table)] = table
    grown[list(ids)] = rows.to(grown)
    return grown


def plain_rows(word: str, count: int, tokenizer: Any, table: Tensor) -> Tensor:
    """Rows [count, D] that say what ``word`` says to the base without the inversion; ``tokenizer``: the base's own.

    Token by token where there are as many tokens as rows, else the mean of its tokens in every row.
    """
    ids = tokenizer(word, add_special_tokens=False).input_ids
    own = table[ids or [tokenizer.eos_token_id]]
    return own if len(own) == count else own.mean(dim=0).expand(count, -1).clone()


def find_tables(content: Mapping[str, Any], name: str, where: str) -> tuple[Any, dict[str, Path], str]:
    """The word, the paths of tensors by what tells their encoder ("" for nothing), and the layout.

    ``name``: the word where the file says none. Raises NotACheckpoint.
    """
    if isinstance(content.get(A1111), TABLES):
        inner = content[A1111]
        if len(inner) != 1:
            raise NotACheckpoint(f"{where} holds {len(inner):,} words, not one.", hint="Have each saved by itself.")
        return content.get("name", name), {"": (A1111, next(iter(inner.keys())))}, "A1111"
    if content.keys() and content.keys() <= {*ENCODERS}:
        return name, {key: (key,) for key in content}, "SDXL"
    if BARE in content:
        return name, {"": (BARE,)}, "bare"
    if len(content) == 1:
        word = next(iter(content))
        return word, {"": (word,)}, "diffusers"
    raise NotACheckpoint(
        f"{where} is no textual inversion that is known: it holds {len(content):,} entries"
        f"{f', among them {ascii(next(iter(content)))[:60]}' if content else ''}.",
        hint="A file of diffusers or A1111 for one word is read; have each word saved by itself.",
    )


def joined(path: Sequence[Any]) -> str:
    """A path as the name of a tensor."""
    return ".".join(map(str, path))


def _at(content: Mapping[str, Any], path: Path) -> Any:
    value: Any = content
    for key in path:
        value = value[key]
    return value


def _matrix(value: Any, path: Path, where: str) -> Tensor:
    """[n, D] in fp32."""
    if not isinstance(value, Tensor) or not is_plain(value) or not _fills_rows(value):
        raise DamagedFile(f"{where} holds {ascii(path[-1])[:60]}, which is no table of rows.", hint=AGAIN)
    rows = value.detach().float().reshape(-1, value.shape[-1])
    if len(rows) > MOST_ROWS:
        raise DamagedFile(f"{where} holds {len(rows):,} rows, more than any prompt has tokens.", hint=AGAIN)
    if not bool(torch.isfinite(rows).all()):
        raise DamagedFile(f"{where} holds rows of values that are not numbers (NaN or infinite).", hint=AGAIN)
    return rows


def _fills_rows(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim in (1, 2) and bool(tensor.numel())


def _by_encoder(
    found: Mapping[str, Path], tensors: Mapping[Path, Tensor], widths: Mapping[str, int], where: str, base: str
) -> dict[str, Path]:
    """Text encoder -> path. A table that names no encoder belongs to the first of its width."""
    paths: dict[str, Path] = {}
    for key, path in found.items():
        width = tensors[path].shape[1]
        fitting = [encoder for encoder in ([ENCODERS[key]] if key else widths) if widths.get(encoder) == width]
        if not fitting:
            shown = ", ".join(f"{n:,}" for n in dict.fromkeys(widths.values()))
            raise UsageError(
                f"{where} holds rows of width {width:,} for {ENCODERS.get(key, 'a text encoder')}, "
                f"while --base ({base}) has token tables of width {shown}.",
                hint=f"Name a checkpoint of the family that it was made for as --base{_suited(width)}.",
            )
        if fitting[0] in paths:
            raise DamagedFile(f"{where} holds two tables for {fitting[0]}.", hint=AGAIN)
        paths[fitting[0]] = path
    return paths


def _suited(width: int) -> str:
    known = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 1280: "Stable Diffusion XL"}
    return f": {known[width]}" if width in known else ""


def encodable(word: str) -> bool:
    return not any(0xD800 <= ord(character) < 0xE000 for character in word)
