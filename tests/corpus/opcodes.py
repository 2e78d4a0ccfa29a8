"""A small assembler for pickles: values, global names and calls as opcodes, without importing what they name."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

from tests.corpus.sample import code, command

PROTO_4 = pickle.PROTO + b"\x04"


@dataclass(frozen=True)
class Name:
    """A global; ``name`` may be dotted."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    function: Any
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Raw:
    """Opcodes as they are."""

    data: bytes


@singledispatch
def emit(value: Any) -> bytes:
    """The opcodes that leave ``value`` on the stack."""
    raise TypeError(type(value))


@emit.register
def _raw(value: Raw) -> bytes:
    return value.data


@emit.register
def _none(value: None) -> bytes:
    return pickle.NONE


@emit.register
def _bool(value: bool) -> bytes:
    return pickle.NEWTRUE if value else pickle.NEWFALSE


@emit.register
def _int(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value)


@emit.register
def _str(value: str) -> bytes:
    data = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


@emit.register
def _bytes(value: bytes) -> bytes:
    return pickle.BINBYTES + struct.pack("<I", len(value)) + value


@emit.register
def _tuple(value: tuple) -> bytes:  # type: ignore[type-arg]
    return pickle.MARK + b"".join(map(emit, value)) + pickle.TUPLE


@emit.register
def _list(value: list) -> bytes:  # type: ignore[type-arg]
    return pickle.EMPTY_LIST + pickle.MARK + b"".join(map(emit, value)) + pickle.APPENDS


@emit.register
def _dict(value: dict) -> bytes:  # type: ignore[type-arg]
    return pickle.MARK + b"".join(emit(key) + emit(item) for key, item in value.items()) + pickle.DICT


@emit.register
def _name(value: Name) -> bytes:
    return emit(value.module) + emit(value.name) + pickle.STACK_GLOBAL


@emit.register
def _call(value: Call) -> bytes:
    return emit(value.function) + emit(value.args) + pickle.REDUCE


def assemble(value: Any) -> bytes:
    """A whole pickle of protocol 4."""
    return PROTO_4 + emit(value) + pickle.STOP


SYSTEM = Name("posix", "system")


def shell(canary: Path) -> Call:
    """The plainest hostile value."""
    return Call(SYSTEM, (command(canary),))


def evil(canary: Path) -> bytes:
    """The plainest hostile pickle."""
    return assemble(shell(canary))


def evaluates(canary: Path) -> bytes:
    """A hostile pickle whose global is a builtin."""
    return assemble(Call(Name("builtins", "eval"), (code(canary),)))


def calling(module: str, name: str, *args: Any) -> Callable[[Path], bytes]:
    """A pickle that calls a global; an argument may be a function of the canary."""
    return lambda canary: assemble(Call(Name(module, name), given(args, canary)))


def given(args: tuple[Any, ...], canary: Path) -> tuple[Any, ...]:
    return tuple(arg(canary) if callable(arg) else arg for arg in args)
