"""Pickles that look like something else from their first bytes, and calls that stand behind what a scanner reads."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

from sau_scan.findings import Severity
from tests.corpus.archives import MAGIC
from tests.corpus.opcodes import PROTO_4, emit, evil, shell
from tests.corpus.sample import Sample, command, writes
from tests.corpus.zips import torch_zip

FAR = 64 * 2**20 + 1  # behind what is looked at; of zeros, so that it takes no room on the disk
NUMBER = pickle.dumps(MAGIC, 2)[:-1]
PROTOCOL = pickle.dumps(1001, 2)


def _call(canary: Path) -> bytes:
    return b"cposix\nsystem\n(V" + command(canary).encode() + b"\ntR."


def _masked(head: bytes) -> Callable[[Path], bytes]:
    """The first bytes of another format are a number to be popped: ``G`` is the opcode of eight bytes of one."""
    return lambda canary: head.ljust(9, b"\0") + pickle.POP + _call(canary)


def _in_torch_zip(head: bytes) -> Callable[[Path], bytes]:
    return lambda canary: torch_zip(_masked(head)(canary))


def _behind(head: bytes, before: bytes, after: Callable[[Path], bytes]) -> Callable[[Path, Path], None]:
    """``head``, then a string of FAR zeros that is popped, then the rest; a file with a hole in it."""

    def write(path: Path, canary: Path) -> None:
        with path.open("wb") as file:
            file.write(head + before)
            file.seek(FAR, 1)
            file.write((b"\n" if before == b"V" else b"") + pickle.POP + after(canary))

    return write


def _long(head: bytes) -> bytes:
    return head + pickle.BINUNICODE + struct.pack("<I", FAR)


def _packed(head: bytes) -> Callable[[Path], bytes]:
    """The same in a torch archive that is compressed a thousandfold."""
    return lambda canary: torch_zip(_long(head) + bytes(FAR) + pickle.POP + _call(canary), deflate=True)


def _old(canary: Path) -> bytes:
    return emit(shell(canary)) + pickle.STOP + pickle.dumps([])


def _many(canary: Path) -> bytes:
    """As many pickles as are looked at, the last of them torch's number, then the call."""
    return NUMBER + b"." + b"N." * 998 + NUMBER + b"." + evil(canary)


_START = NUMBER + b"." + PROTOCOL + pickle.dumps({}, 2)
_TEXT = b"V" + b"weights " * 99 + b"\n0"
_HIDDEN: tuple[tuple[str, str, str, Callable[[Path, Path], None], str], ...] = (
    ("gif", "model.ckpt", "a pickle that begins like a picture", writes(_masked(b"GIF89a")), "pickle"),
    ("gguf", "model.bin", "a pickle that begins like GGUF", writes(_masked(b"GGUF")), "pickle"),
    ("gguf-named", "model.gguf", "the same, named so", writes(_masked(b"GGUF")), "pickle"),
    ("gif-in-torch", "model.ckpt", "in a torch archive, a pickle that begins like a picture", writes(_in_torch_zip(b"GIF89a")), "torch"),
    ("far", "model.ckpt", "a call behind 64 MiB", _behind(_long(PROTO_4), b"", _call), "pickle"),
    ("far-no-ending", "model", "the same without an ending", _behind(_long(PROTO_4), b"", _call), "pickle"),
    ("far-text", "model.ckpt", "a call behind 64 MiB, in a pickle of text", _behind(_TEXT, b"V", _call), "pickle"),
    ("far-number", "model.ckpt", "behind torch's number and 64 MiB", _behind(_long(NUMBER + b"0"), b"", _call), "pickle"),
    ("far-old-torch", "model.ckpt", "in torch's old stream, behind 64 MiB", _behind(_long(_START + PROTO_4), b"", _old), "torch"),
    ("far-packed", "model.ckpt", "in a packed torch archive, behind 64 MiB", writes(_packed(NUMBER + b"0")), "torch"),
    ("far-many", "model.pkl", "behind a thousand pickles", writes(_many), "every-pickle"),
)  # fmt: skip

HIDDEN = tuple(
    Sample(f"hidden-{name}", file, what, make, Severity.HIGH, load=load) for name, file, what, make, load in _HIDDEN
)
