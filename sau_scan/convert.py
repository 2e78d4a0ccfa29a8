"""convert: a pickle of tensors becomes a safetensors file, without running the pickle.

Its opcodes are examined first, and nothing is loaded if they ask for more than tensors; then torch's restricted reader
maps the tensors from the very file that was examined. The copy is read back and compared bit for bit before it takes
its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from sau_scan.checkpoint.files import opened, require_input
from sau_scan.checkpoint.naming import PICKLES
from sau_scan.checkpoint.pickled import DEEPEST, NESTS, load_tensors
from sau_scan.checkpoint.tensor_file import DTYPES, HEADER_LIMIT, read_entries, tensor_bytes
from sau_scan.errors import DamagedFile, NotACheckpoint, UnsafeFile, UsageError
from sau_scan.findings import Finding, Skipped, Value, escape
from sau_scan.options import Progress, Silent
from sau_scan.reports.files import failed
from sau_scan.static import Watch, blocks

CHUNK = 4 * 2**20
METADATA = {"format": "pt"}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# Tied weights make a copy larger than the pickle; a tensor that repeats one number would make it endless.
MOST_GROWTH, SLACK = 4, 2**24
_MOST_TOLD = 3
_MEGABYTE = 10**6


class ConvertedTensor(Value):
    """``dtype`` as safetensors calls it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


class ConvertedFile(Value):
    path: str
    size: int
    sha256: str


class Conversion(Value):
    """``dropped``: what was no tensor, or not among the weights. ``shared``: names whose tensors shared memory with
    another's, and which have copies of their own now."""

    before: ConvertedFile
    after: ConvertedFile
    tensors: tuple[ConvertedTensor, ...]
    dropped: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


def convert(source: Path | str, target: Path | str, progress: Progress | None = None) -> Conversion:
    """Writes the tensors of the pickle ``source`` to the new file ``target``, and reads them back.

    Raises UsageError, UnsafeFile where the pickle is not one of tensors only, NotACheckpoint, DamagedFile, or
    WriteError; then ``target`` does not exist.
    """
    source, target, progress = Path(source), Path(target), progress or Silent()
    _require_names(source, target)
    shown, place = escape(str(source)), source.resolve()
    with opened(place.parent, place.name) as file:
        digest = _vetted(source, file)
        content = load_tensors(file.fileno(), shown)
        found, dropped = weights(content, shown)
        del content
        size = file.seek(0, os.SEEK_END)
        _require_storable(found, size, shown)
        with _draft(target) as draft:
            written = _write(draft, found, progress)
            _compare(draft, found, progress)
            if _sha256(file) != digest:
                raise DamagedFile(
                    f"{shown} changed while it was being converted.",
                    hint="Make sure that nothing else writes to it, then start again.",
                )
            draft.replace(target)
    return Conversion(
        before=ConvertedFile(path=str(source), size=size, sha256=digest),
        after=ConvertedFile(path=str(target), size=target.stat().st_size, sha256=written),
        tensors=tuple(_described(name, tensor) for name, tensor in found.items()),
        dropped=dropped,
        shared=_shared(found),
    )


def weights(content: Any, where: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a pickle by name, as a scan of it names them, and in words what else there is.

    Raises UnsafeFile where two readers could see different tensors, NotACheckpoint where there are none.
    """
    dropped: list[str] = []
    for _ in range(DEEPEST):
        nests = [nest for nest in NESTS if isinstance(content, dict) and _holds_tensors(content.get(nest))]
        if len(nests) > 1:
            raise _ambiguous(where, f"weights under {nests[0]!a} and under {nests[1]!a}")
        if not nests:
            break
        dropped += [_words(str(key), value) for key, value in content.items() if key != nests[0]]
        content = content[nests[0]]
    found: dict[str, Tensor] = {}
    for name, value in _leaves(content, "", 0):
        if not isinstance(value, Tensor):
            dropped.append(_words(name, value))
        elif name in found:
            raise _ambiguous(where, f"two tensors called {name!a}")
        else:
            found[name] = value.detach()
    if not found or "" in found:
        raise NotACheckpoint(f"{where} holds no tensors with names.", hint="Give a file of weights.")
    return found, tuple(dropped)


def _leaves(content: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if not isinstance(content, dict) or depth > DEEPEST:
        yield prefix, content
        return
    for key, value in content.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(key, str):
            yield from _leaves(value, name, depth + 1)
        else:
            yield name, None if isinstance(value, Tensor) else value


def _holds_tensors(inner: Any) -> bool:
    return isinstance(inner, dict) and any(isinstance(value, Tensor) for value in inner.values())


def _words(name: str, value: Any) -> str:
    return f"{escape(name)[:80] or 'the whole'} ({type(value).__name__})"


def _ambiguous(where: str, what: str) -> UnsafeFile:
    return UnsafeFile(
        f"{where} holds {what}: which is meant depends on who reads it.",
        hint="Ask its author for the weights as safetensors.",
    )


def _require_names(source: Path, target: Path) -> None:
    """What can be told before anything is read."""
    require_input(source)
    shown, aim = escape(str(source)), escape(str(target))
    if source.suffix.lower() == ".safetensors":
        raise UsageError(
            f"{shown} is a safetensors file already.", hint="There is nothing to convert; scan it with sau-scan detect."
        )
    if source.is_dir() or source.suffix.lower() not in PICKLES:
        known = ", ".join(sorted(PICKLES))
        raise UsageError(f"{shown} is not a file of pickled weights.", hint=f"Give one file, called {known}.")
    if target.suffix != ".safetensors":
        raise UsageError(f"{aim} does not end in .safetensors.", hint="Name the new file so that readers know it.")
    if os.path.lexists(target):
        raise UsageError(f"{aim} exists, and is not overwritten.", hint="Name a new file.")


def _vetted(source: Path, file: BufferedReader) -> str:
    """The sha256 of a file that holds nothing but tensors. Raises UnsafeFile for any other."""
    watch = Watch(source.parent, alone=True)
    sink = watch.begin(source.name, file.seek(0, os.SEEK_END), file)
    digest = _sha256(file, sink.update)
    sink.end(digest)
    notes = watch.results()
    grave = [note for note in notes if isinstance(note, Finding) and blocks(note)]
    if grave or not watch.clears(source.name) or any(isinstance(note, Skipped) for note in notes):
        told = " ".join(f"{finding.title}: {finding.behaviour}" for finding in grave[:_MOST_TOLD])
        raise UnsafeFile(
            f"{escape(str(source))} was not opened. {told or 'It could not be examined to its end.'}",
            hint="Do not load it with anything else. Get the weights as safetensors from their source.",
        )
    return digest


def _sha256(file: BinaryIO, also: Any = None) -> str:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    file.seek(0)
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        digest.update(buffer[:count])
        if also is not None:
            also(buffer[:count])
    return digest.hexdigest()


def _require_storable(found: Mapping[str, Tensor], size: int, where: str) -> None:
    for name, tensor in found.items():
        if tensor.dtype not in _NAMES or tensor.layout is not torch.strided:
            raise NotACheckpoint(
                f"{where} holds {name!a} as {tensor.layout} {tensor.dtype}, which is not stored as safetensors here.",
                hint="Give a file of plain weights.",
            )
        if name == "__metadata__" or not name.isprintable():
            raise UnsafeFile(
                f"{where} holds a tensor called {name!a}.",
                hint="No program calls a tensor so. Get the weights elsewhere.",
            )
    needed = sum(tensor.nbytes for tensor in found.values())
    if needed > MOST_GROWTH * size + SLACK:
        raise UnsafeFile(
            f"{where} has {size:,} bytes, and its tensors would take {needed:,}: they repeat the same memory.",
            hint="No program saves weights so. Get them as safetensors from their source.",
        )


def _shared(found: Mapping[str, Tensor]) -> tuple[str, ...]:
    places = {name: tensor.untyped_storage().data_ptr() for name, tensor in found.items() if tensor.nbytes}
    uses = Counter(places.values())
    return tuple(name for name, place in places.items() if uses[place] > 1)


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A new file beside ``target`` that is gone at the end of the block. Raises WriteError where the disk fails."""
    draft = target.absolute().with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        draft.touch(exist_ok=False)
        yield draft
    except OSError as error:
        raise failed(target, error) from error
    finally:
        draft.unlink(missing_ok=True)


def _described(name: str, tensor: Tensor) -> ConvertedTensor:
    return ConvertedTensor(name=name, dtype=_NAMES[tensor.dtype], shape=tuple(tensor.shape), size=tensor.nbytes)


def _write(draft: Path, found: Mapping[str, Tensor], progress: Progress) -> str:
    """One tensor after the other, wide types first, so that each lies where its type may; the sha256 of it all."""
    ordered = sorted(found.items(), key=lambda item: (-item[1].element_size(), item[0]))
    digest = hashlib.sha256()
    progress.stage("convert", 2 * sum(tensor.nbytes for tensor in found.values()) // _MEGABYTE)
    with draft.open("wb") as file:
        for data in chain([_header(ordered)], (tensor_bytes(tensor) for _, tensor in ordered)):
            file.write(data)
            digest.update(data)
            progress.advance(len(data) // _MEGABYTE)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _header(ordered: list[tuple[str, Tensor]]) -> bytes:
    table: dict[str, Any] = {"__metadata__": METADATA}
    begin = 0
    for name, tensor in ordered:
        end = begin + tensor.nbytes
        table[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _compare(draft: Path, found: Mapping[str, Tensor], progress: Progress) -> None:
    """Reads the copy as any other safetensors file. Raises DamagedFile unless every tensor is the same bit for bit."""
    shown = escape(str(draft))
    with draft.open("rb") as file:
        first = file.read(8)
        head = first + file.read(min(int.from_bytes(first, "little"), HEADER_LIMIT))
        entries = read_entries(head, shown, draft.stat().st_size)
        for name, entry in entries.items():
            file.seek(entry.begin)
            same = file.read(entry.end - entry.begin) == tensor_bytes(found[name])
            if not same or (entry.dtype, entry.shape) != (found[name].dtype, tuple(found[name].shape)):
                raise DamagedFile(f"{shown}: {name!a} was not written as it was.", hint="Check the disk.")
            progress.advance((entry.end - entry.begin) // _MEGABYTE)
    if entries.keys() != found.keys():
        raise DamagedFile(f"{shown} lacks tensors that were written.", hint="Check the disk.")
    progress.done(f"{len(entries):,} tensors written, and read back bit for bit")
