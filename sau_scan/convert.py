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
from typing import Any

from torch import Tensor

from sau_scan.checkpoint.adapters.inversion import A1111
from sau_scan.checkpoint.adapters.word_files import holds_word, word_file
from sau_scan.checkpoint.downloads import ends_of, spoilt
from sau_scan.checkpoint.files import opened, require_input
from sau_scan.checkpoint.pickled import Weights, load_tensors, not_plain, other_kind, require_size, weights
from sau_scan.checkpoint.placing import place, require_parent
from sau_scan.checkpoint.source import DOWNLOAD_AGAIN
from sau_scan.checkpoint.tensor_file import DTYPES, HEADER_LIMIT, is_safetensors, read_entries, tensor_bytes
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint, UnsafeFile, UsageError
from sau_scan.findings import Finding, Skipped, Value, escape
from sau_scan.options import Progress, Silent
from sau_scan.reports.files import DRAFT, failed
from sau_scan.reports.words import count
from sau_scan.static import Watch, blocks

CHUNK = 4 * 2**20
METADATA = {"format": "pt"}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MOST_TOLD = 3
_HEAD = 64
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
    another's, and which have copies of their own now. ``nest``: the part of the pickle that the names count from.
    ``word``: of an embedding, which is written as the file of this word."""

    before: ConvertedFile
    after: ConvertedFile
    tensors: tuple[ConvertedTensor, ...]
    dropped: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    nest: str = ""
    word: str = ""


def convert(source: Path | str, target: Path | str, progress: Progress | None = None) -> Conversion:
    """Writes the tensors of the pickle ``source`` to the new file ``target``, and reads them back.

    Raises UsageError for names that do not do, NotACheckpoint for what is no pickle of weights, UnsafeFile for one
    that is not of tensors only, DamagedFile, or WriteError; then ``target`` does not exist.
    """
    source, target, progress = Path(source), Path(target), progress or Silent()
    _require_names(source, target)
    shown, real = escape(str(source)), source.resolve()
    with opened(real.parent, real.name) as file:
        digest = _vetted(source, file)
        content = load_tensors(file.fileno(), shown)
        size = file.seek(0, os.SEEK_END)
        (found, dropped, nest), word = _taken(content, size, source, target)
        del content
        with _draft(target) as draft:
            written = _write(draft, found, progress)
            _compare(draft, found, progress)
            if _sha256(file) != digest:
                raise DamagedFile(
                    f"{shown} changed while it was being converted.",
                    hint="Make sure that nothing else writes to it, then start again.",
                )
            place(draft, target)
    return Conversion(
        before=ConvertedFile(path=str(source), size=size, sha256=digest),
        after=ConvertedFile(path=str(target), size=target.stat().st_size, sha256=written),
        tensors=tuple(_described(name, tensor) for name, tensor in found.items()),
        dropped=dropped,
        shared=_shared(found),
        nest=nest,
        word=word,
    )


def _require_names(source: Path, target: Path) -> None:
    """What can be told before anything is read."""
    require_input(source, "a file of pickled weights")
    shown, aim = escape(str(source)), escape(str(target))
    if source.is_dir():
        raise UsageError(f"{shown} is a folder.", hint="Name one file; sau-scan fix converts those of a whole folder.")
    if not source.is_file():
        raise UsageError(f"{shown} is not a regular file.", hint="Name a file of pickled weights.")
    if target.suffix != ".safetensors":
        raise UsageError(f"{aim} does not end in .safetensors.", hint="Name a new file that does.")
    try:
        require_parent(target)
        target.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise failed(target, error) from error
    raise UsageError(f"{aim} exists, and is not overwritten.", hint="Name a new file.")


def _vetted(source: Path, file: BufferedReader) -> str:
    """The sha256 of a pickle that holds nothing but tensors. Raises UnsafeFile for what may be dangerous, DamagedFile
    for what is only unreadable, NotACheckpoint for what is something else."""
    watch = Watch(source.parent, alone=True)
    sink = watch.begin(source.name, file.seek(0, os.SEEK_END), file)
    digest = _sha256(file, sink.update)
    sink.end(digest)
    notes = watch.results()
    grave = [note for note in notes if isinstance(note, Finding) and blocks(note)]
    damaged = next((note for note in notes if isinstance(note, Skipped)), None)
    if damaged is not None and not grave and watch.clears(source.name):
        raise DamagedFile(f"{escape(str(source))} {damaged.reason}. Nothing was converted.", hint=_cure(file))
    if grave or not watch.clears(source.name):
        told = " ".join(f"{finding.title}: {finding.behaviour}" for finding in grave[:_MOST_TOLD])
        raise UnsafeFile(
            f"{escape(str(source))} was not opened. {told or 'It could not be examined to its end.'}",
            hint="Do not load it with anything else. Get the weights as safetensors from their source.",
        )
    if not any(isinstance(note, Finding) and note.id == "file/pickle" for note in notes):
        raise _other(source, file)
    return digest


def _other(source: Path, file: BufferedReader) -> CheckpointError:
    """The error for a harmless file that is no pickle: safetensors, whatever they are called, or anything else."""
    shown = escape(str(source))
    file.seek(0)
    if not is_safetensors(file.read(_HEAD)):
        return other_kind(file.fileno(), shown) or NotACheckpoint(
            f"{shown} is not a file of pickled weights.",
            hint="Give a pickle that torch.save wrote; most are called .ckpt, .pt, .pth or .bin.",
        )
    named = source.suffix.lower() == ".safetensors"
    next_step = "scan it with sau-scan detect" if named else "rename it so that it ends in .safetensors"
    return NotACheckpoint(f"{shown} is a safetensors file already.", hint=f"There is nothing to convert; {next_step}.")


def _taken(content: Any, size: int, source: Path, target: Path) -> tuple[Weights, str]:
    """What is written, and the word of an embedding, which must be that of the new file."""
    shown = escape(str(source))
    whole = weights(content, shown)
    _require_storable(whole.tensors, size, shown)
    if not holds_word(content, whole.tensors, shown):
        return whole, ""
    word, tables, taken, _ = word_file(content, whole.tensors, shown, name=source.stem, new_name=target.stem)
    _require_storable(tables, size, shown)
    kept = "name (str)" if A1111 in content else ""
    left = [f"{escape(name)[:80]} (tensor)" for name in whole.tensors if name not in taken]
    return Weights(tables, (*(what for what in whole.dropped if what != kept), *left), ""), word


def _cure(file: BufferedReader) -> str:
    """What to do about a file that cannot be read."""
    found = spoilt(ends_of(file, file.seek(0, os.SEEK_END)))
    return found.hint if found is not None else DOWNLOAD_AGAIN


def _sha256(file: BufferedReader, also: Any = None) -> str:
    """Of all of an open file, as it is on the disk now: its buffer could still hold what was there before."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    with open(file.fileno(), "rb", buffering=0, closefd=False) as plain:
        plain.seek(0)
        while size := plain.readinto(buffer):
            digest.update(buffer[:size])
            if also is not None:
                also(buffer[:size])
    return digest.hexdigest()


def _require_storable(found: Mapping[str, Tensor], size: int, where: str) -> None:
    for name, tensor in found.items():
        if tensor.dtype not in _NAMES:
            raise not_plain(where, name, tensor)
        if name == "__metadata__" or not name.isprintable():
            raise UnsafeFile(
                f"{where} holds a tensor called {name!a}.",
                hint="No program calls a tensor so. Get the weights elsewhere.",
            )
    require_size(found, size, where)


def _shared(found: Mapping[str, Tensor]) -> tuple[str, ...]:
    places = {name: tensor.untyped_storage().data_ptr() for name, tensor in found.items() if tensor.nbytes}
    uses = Counter(places.values())
    return tuple(name for name, where in places.items() if uses[where] > 1)


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A new file beside ``target`` that is gone at the end of the block. Raises WriteError where the disk fails."""
    draft = target.absolute().with_name(f"{DRAFT}{secrets.token_hex(4)}.partial")
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
    progress.done(f"{count(len(entries), 'tensor')} written, and read back bit for bit")
