"""Weights in a pickle: read by torch's restricted reader, and only where the opcodes were examined before."""

from __future__ import annotations

import os
import pickletools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any, NamedTuple
from zipfile import ZipFile

import torch
from torch import Tensor

from sau_scan.checkpoint.source import DOWNLOAD_AGAIN, Checkpoint
from sau_scan.checkpoint.tensor_file import Entry, is_plain, is_safetensors
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint, UnsafeFile
from sau_scan.findings import escape

# Where trainers put the weights among other things.
NESTS = ("state_dict", "model", "module", "params")
DEEPEST = 4
# Tied weights take more than the pickle has; a tensor that repeats one number would take any size.
MOST_GROWTH, SLACK = 4, 2**24
MOST_IN_MEMORY = 2**30
# The number that torch.save began its files with before they were archives, in its protocols.
_OLD = (b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", b"119547037146038801333356")
_START, _HEAD, _TAR = 2**20, 512, slice(257, 262)
_ZIPS = (b"PK\x03\x04", b"PK\x05\x06")  # with a first file, and with none


@dataclass(frozen=True)
class PickledFile:
    checkpoint: Checkpoint
    path: str

    @property
    def content(self) -> Any:
        """What a small pickle holds, in memory of its own: the bytes that are loaded are those that were compared.

        Raises UnsafeFile for a pickle that was not vetted, or that asks for more than tensors; DamagedFile.
        """
        self._require_vetted()
        record = self.checkpoint.record(self.path)
        if record is not None and record.size > MOST_IN_MEMORY:
            raise DamagedFile(f"{self.checkpoint.show(self.path)} is larger than any embedding.", hint=DOWNLOAD_AGAIN)
        return load_tensors(BytesIO(self.checkpoint.read_buffer(self.path)), self.checkpoint.show(self.path))

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        # Whoever takes tensors by these names compares the names, and then all bytes, once more.
        with self._mapped(again=False) as found:
            return entries_of(found)

    @property
    def metadata(self) -> Mapping[str, str]:
        return {}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        with self._mapped() as found:
            if entries_of(found) != self.entries:
                raise self.checkpoint.changed(self.path)
            for name, tensor in found.items():
                # Its own memory: what is mapped changes with the file, after it was compared as well.
                yield name, tensor.clone()

    @contextmanager
    def _mapped(self, *, again: bool = True) -> Iterator[dict[str, Tensor]]:
        """The tensors, mapped from the disk for as long as the block lasts; raises as :attr:`content`."""
        self._require_vetted()
        where, record = self.checkpoint.show(self.path), self.checkpoint.record(self.path)
        with self.checkpoint.held(self.path, again=again) as file:
            found = weights(load_tensors(file.fileno(), where), where).tensors
            require_size(found, record.size if record else 0, where)
            yield found

    def _require_vetted(self) -> None:
        if not self.checkpoint.vetted:
            raise UnsafeFile(
                f"{self.checkpoint.show(self.path)} is a pickle that was not examined.",
                hint="Scan it with sau-scan detect, which examines it first.",
            )


def entries_of(found: Mapping[str, Tensor]) -> dict[str, Entry]:
    return {name: Entry(t.dtype, tuple(t.shape), 0, t.nbytes) for name, t in found.items()}


def load_tensors(source: int | BytesIO, where: str) -> Any:
    """The content of a pickle of tensors and plain values, by torch's restricted reader: mapped from an open file,
    given by its descriptor, or read from memory.

    Raises UnsafeFile for anything else, DamagedFile for a file that is cut short.
    """
    # By its number, so that it is the very file that was examined.
    place = f"/dev/fd/{source}" if isinstance(source, int) else source
    try:
        try:
            return torch.load(place, weights_only=True, mmap=isinstance(source, int), map_location="cpu")
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            # Files of before torch 1.6 cannot be mapped.
            return torch.load(place, weights_only=True, map_location="cpu")
    except Exception as error:  # the reader raises anything on hostile content
        other = other_kind(source, where)
        if other is not None:
            raise other from error
        if "WeightsUnpickler" in str(error) or "weights_only" in str(error).lower():
            raise _refused(where, str(error)) from error
        raise DamagedFile(
            f"{where} cannot be read as a file of tensors: it is damaged, or cut short.", hint=DOWNLOAD_AGAIN
        ) from error


def _refused(where: str, told: str) -> UnsafeFile:
    """``told``: what torch's reader says of its refusal."""
    hint = "Get the weights as safetensors from their source."
    # First, since the name is the file's own and may read as anything.
    name = re.search(r"Unsupported global: GLOBAL (.+?) was not", told, re.DOTALL)
    number = re.search(r"Unsupported operand (\d{1,3})(?!\d)", told)
    if name is None and number is not None and int(number[1]) < 256:
        opcode = next((code.name for code in pickletools.opcodes if code.code == chr(int(number[1]))), number[1])
        what = f"is not opened: its pickle uses the opcode {opcode}, which torch's reader of tensors does not take"
        return UnsafeFile(f"{where} {what}.", hint=hint)
    what = f" ({escape(name[1])[:80]})" if name is not None else ""
    return UnsafeFile(f"{where} holds more than tensors and plain values{what}, and is not opened.", hint=hint)


def other_kind(source: int | BytesIO, where: str) -> CheckpointError | None:
    """What to say of a file that torch.save did not write; None where it may have."""
    start = os.pread(source, _START, 0) if isinstance(source, int) else source.getvalue()[:_START]
    if is_safetensors(start):
        return NotACheckpoint(
            f"{where} is a safetensors file, not what its name says.", hint="Rename it so that it ends in .safetensors."
        )
    archive = "tar" if start[_TAR] == b"ustar" else "zip" if _is_other_zip(source, start) else ""
    if archive:
        return NotACheckpoint(
            f"{where} is a {archive} archive, not weights.",
            hint="Unpack it, and name the file of weights that is in it.",
        )
    own = start.startswith(_ZIPS) or any(number in start[:_HEAD] for number in _OLD)
    if not own and (start.startswith(b"\x80") or _is_pickle(start)):
        return NotACheckpoint(
            f"{where} is a pickle, but none that torch.save wrote.",
            hint="Weights are in none such. Get them as safetensors from their source.",
        )
    return None


def _is_other_zip(source: int | BytesIO, start: bytes) -> bool:
    """Whether it is a whole archive without the part that torch reads first."""
    if not start.startswith(_ZIPS):
        return False
    try:
        with open(source, "rb", closefd=False) if isinstance(source, int) else BytesIO(source.getvalue()) as file:
            return not any(name.rpartition("/")[2] == "data.pkl" for name in ZipFile(file).namelist())
    except Exception:  # the reader raises anything on hostile content
        return False


def _is_pickle(start: bytes) -> bool:
    """Whether it is opcodes to an end; those of the first protocols do not begin with a mark."""
    try:
        return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(start))
    except Exception:  # as above
        return False


class Weights(NamedTuple):
    """``dropped``: in words, what else there is; ``nest``: the dictionary of weights that was taken, by its keys."""

    tensors: dict[str, Tensor]
    dropped: tuple[str, ...]
    nest: str


def weights(content: Any, where: str) -> Weights:
    """The tensors in nested dictionaries by name; of a dictionary of weights, where there is one so called, those
    alone.

    Raises UnsafeFile where two readers could see different tensors, NotACheckpoint where there are none.
    """
    dropped: list[str] = []
    path: list[str] = []
    for _ in range(DEEPEST):
        nests = [nest for nest in NESTS if isinstance(content, dict) and _holds_tensors(content.get(nest))]
        if len(nests) > 1:
            raise ambiguous(where, f"weights under {nests[0]!a} and under {nests[1]!a}")
        if not nests:
            break
        dropped += [_words(str(key), value) for key, value in content.items() if key != nests[0]]
        content = content[nests[0]]
        path.append(nests[0])
    found: dict[str, Tensor] = {}
    unnamed: set[str] = set()
    for name, value, named in _leaves(content, "", 0):
        if not isinstance(value, Tensor) or not named:
            dropped.append(_words(name, value))
            unnamed |= {name} if isinstance(value, Tensor) else set()
        elif name in found:
            raise ambiguous(where, f"two tensors called {name!a}")
        elif not is_plain(value):
            raise not_plain(where, name, value)
        else:
            found[name] = value.detach()
    twice = next((name for name in found if name in unnamed), None)
    if twice is not None:  # the key 1 beside '1'
        raise ambiguous(where, f"two tensors called {twice!a}")
    if not found:
        some = ", ".join(dropped[:3]) or "nothing"
        raise NotACheckpoint(
            f"{where} holds no tensors with names, but {some}.",
            hint="Weights of a model have names. If this belongs to a training, no model needs it.",
        )
    return Weights(found, tuple(dropped), ".".join(path))


def _leaves(content: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any, bool]]:
    """Name, value, and whether it has that name: keys that are no texts give none."""
    if not isinstance(content, dict) or depth > DEEPEST:
        yield prefix, content, bool(prefix)
        return
    for key, value in content.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(key, str):
            yield from _leaves(value, name, depth + 1)
        else:
            yield name, value, False


def _holds_tensors(inner: Any) -> bool:
    return isinstance(inner, dict) and any(isinstance(value, Tensor) for value in inner.values())


def _words(name: str, value: Any) -> str:
    kind = "tensor" if isinstance(value, Tensor) else type(value).__name__
    inside = 0 if isinstance(value, Tensor) else _tensors_in(value, 0)
    more = f" with {inside:,} tensor{'' if inside == 1 else 's'}" if inside else ""
    return f"{escape(name)[:80] or 'the whole'} ({kind}{more})"


def _tensors_in(value: Any, depth: int) -> int:
    if isinstance(value, Tensor):
        return 1
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(_tensors_in(one, depth + 1) for one in inner) if depth <= 2 * DEEPEST else 0


def ambiguous(where: str, what: str) -> UnsafeFile:
    return UnsafeFile(
        f"{where} holds {what}: which is meant depends on who reads it.",
        hint="Ask its author for the weights as safetensors.",
    )


def require_size(found: Mapping[str, Tensor], size: int, where: str) -> None:
    """Raises UnsafeFile for tensors that would take far more memory than the file of ``size`` bytes holds."""
    needed = sum(tensor.nbytes for tensor in found.values())
    if needed > MOST_GROWTH * size + SLACK:
        raise UnsafeFile(
            f"{where} has {size:,} bytes, and its tensors would take {needed:,}: they repeat the same memory.",
            hint="No program saves weights so. Get them as safetensors from their source.",
        )


def not_plain(where: str, name: str, tensor: Tensor) -> NotACheckpoint:
    if tensor.is_meta:
        return NotACheckpoint(
            f"{where} holds {name!a} without data: it was saved from a model that was never filled.",
            hint="Have its author save the weights themselves.",
        )
    layout = "nested " if tensor.is_nested else "" if tensor.layout is torch.strided else f"{tensor.layout} "
    kind = f"{layout}{tensor.dtype}".replace("torch.", "")
    return NotACheckpoint(
        f"{where} holds {name!a} as {kind}, which is not stored as safetensors here.",
        hint="Have its author save plain numbers, such as float16.",
    )
