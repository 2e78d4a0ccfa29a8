"""An embedding out of a pickle as the safetensors file of the same word, called as diffusers calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor

from sau_scan import shell
from sau_scan.checkpoint.adapters.inversion import A1111, BARE, LONGEST_WORD, encodable, find_tables, joined
from sau_scan.checkpoint.components import LONGEST_NAME
from sau_scan.checkpoint.forms import form_of
from sau_scan.checkpoint.pickled import ambiguous, entries_of
from sau_scan.checkpoint.source import Form
from sau_scan.checkpoint.tensor_file import read_entries
from sau_scan.errors import DamagedFile, NotACheckpoint


class WordFile(NamedTuple):
    """``tables``: by their new names; ``taken``: their names in the pickle; ``data``: the whole file."""

    word: str
    tables: dict[str, Tensor]
    taken: tuple[str, ...]
    data: bytes


def holds_word(content: Any, tensors: Mapping[str, Tensor], where: str) -> bool:
    """Whether a pickle with these named ``tensors`` is an embedding. Raises UnsafeFile for one among other things, and
    NotACheckpoint for several."""
    embedding = form_of(entries_of(tensors)) is Form.EMBEDDING
    listed = isinstance(content, dict) and A1111 in content
    if not embedding and not listed:
        return False
    try:
        taken = [*map(joined, find_tables(content, "", where)[1].values())]
    except NotACheckpoint:
        if listed:
            raise
        return False
    whole = embedding and all(name in tensors for name in taken)
    if listed and not whole:
        raise ambiguous(where, "an embedding among other things")
    return whole


def word_file(
    content: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str, *, name: str, new_name: str
) -> WordFile:
    """The safetensors file of an embedding. ``name``, ``new_name``: of the files, without their endings.

    Raises NotACheckpoint for a word that such a file cannot say.
    """
    word, paths, layout = find_tables(content, name, where)
    taken = tuple(map(joined, paths.values()))
    if isinstance(word, str) and 0 < len(word) <= LONGEST_WORD and encodable(word):
        # Tables that name their encoders keep their names, and with them the file's name as the word. Another is called
        # as the word, or is nameless where the word reads as something else.
        for names in [[*paths]] if layout == "SDXL" else [[word], [BARE]]:
            tables = {new: tensors[old].clone().contiguous() for new, old in zip(names, taken, strict=True)}
            data = safetensors.torch.save(tables, metadata={"format": "pt"})
            if _said(tables, data, new_name, where) == word:
                return WordFile(word, tables, taken, data)
        if _names_a_file(word):
            raise NotACheckpoint(
                f"{where} holds the word {word!a}, which the new file would say by its name alone.",
                hint=f"Convert it to {shell.ascii_command(shell.word(f'{word}.safetensors'))}",
            )
    raise NotACheckpoint(
        f"{where} holds the word {ascii(word)[:60]}, which no safetensors file of an embedding can say.",
        hint="Do not use this file, or save it under another word.",
    )


def _names_a_file(word: str) -> bool:
    name = f"{word}.safetensors"
    return word.isprintable() and "/" not in word and len(name.encode()) <= LONGEST_NAME


def _said(tables: Mapping[str, Tensor], data: bytes, name: str, where: str) -> Any:
    """The word of the new file; None where it would be taken for something else."""
    try:
        form = form_of(read_entries(data, where))
        return find_tables(tables, name, where)[0] if form is Form.EMBEDDING else None
    except (DamagedFile, NotACheckpoint):
        return None
