"""What a pickle would import and call, followed opcode by opcode without building anything.

The stack and the memo are kept as the unpickler keeps them, with strings as they are, imported names as
:class:`Global`, and everything else as "something"; so names that are assembled from the memo cannot hide. Where the
unpickler would stop with an error, this goes on: what is found is never less than what can run.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pickletools import opcodes
from typing import Any, BinaryIO, NamedTuple

from sau_scan.static.content import Budget
from sau_scan.static.facts import Unfinished

MOST_OPCODES = 6_000_000
MOST_HELD = 1_000_000  # entries of the stack or the memo
MOST_GLOBALS = 2_000
NESTED = 16 * 2**20  # bytes of strings within pickles that are looked into
HIDDEN = "?"


class Global(NamedTuple):
    """An imported name; ``HIDDEN`` where it is only known when the pickle runs."""

    module: str
    name: str


class _Mark:
    """What MARK puts on the stack."""


MARK = _Mark()


@dataclass
class Trace:
    """What one pickle does. ``broken``: why it ends before STOP, if so; ``number``: the whole number that it is,
    if so."""

    globals: set[Global] = field(default_factory=set)
    called: set[Global] = field(default_factory=set)
    altered: set[Global] = field(default_factory=set)
    nested: list[bytes] = field(default_factory=list)
    protocol: int = 0
    opcodes: int = 0
    number: int | None = None
    broken: str = ""

    @property
    def acts(self) -> bool:
        """Whether something is imported and then called."""
        return bool(self.called or self.altered)


def trace(stream: BinaryIO, budget: Budget) -> Trace:
    """Follows the pickle at the stream's position. Raises Unfinished above the limits."""
    machine = _Machine()
    result = machine.trace
    try:
        for name, argument in _opcodes(stream):
            result.opcodes += 1
            if not result.opcodes % 4096:
                budget.check()
                held = max(len(machine.stack), len(machine.memo))
                if held > MOST_HELD or result.opcodes > MOST_OPCODES or len(result.globals) > MOST_GLOBALS:
                    raise Unfinished("it holds a pickle that is larger than any of tensors")
            machine.step(name, argument)
        result.number = machine.number()
    except (ValueError, UnicodeError, OverflowError, MemoryError, IndexError) as error:
        result.broken = ascii(str(error)[:80])[1:-1] or type(error).__name__
    return result


def _opcodes(stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Names and arguments up to STOP, as pickletools reads them; but where it is stricter than unpicklers are (names
    that are not ASCII, hexadecimal numbers), as those do. Raises ValueError."""
    start = stream.tell() + 1
    while True:
        code = stream.read(1)
        opcode = _BY_CODE.get(code.decode("latin-1"))
        if opcode is None:
            raise ValueError(f"at byte {stream.tell() - 1:,} stands 0x{code.hex()}" if code else "it ends before STOP")
        if stream.tell() == start and opcode.stack_before:  # of what need not be a pickle, much begins like that
            raise ValueError(f"it begins with {opcode.name}, which needs something before it")
        reader = _READERS.get(opcode.name, opcode.arg and opcode.arg.reader)
        yield opcode.name, reader(stream) if reader else None
        if opcode.name == "STOP":
            return


def _line(stream: BinaryIO) -> str:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise ValueError("it ends within a name")
    return line[:-1].decode("utf-8", "backslashreplace")


def _two_lines(stream: BinaryIO) -> tuple[str, str]:
    return _line(stream), _line(stream)


def _quoted(stream: BinaryIO) -> str:
    """A string between quotes with escapes; where they are wrong, as it stands."""
    line = _line(stream).strip("'\"")
    try:
        return codecs.escape_decode(line.encode("utf-8"))[0].decode("utf-8", "backslashreplace")
    except (ValueError, DeprecationWarning):  # the latter where warnings are errors
        return line


def _integer(stream: BinaryIO) -> int | None:
    try:
        return int(_line(stream).rstrip("L"), 0)
    except ValueError:
        return None


_BY_CODE = {opcode.code: opcode for opcode in opcodes}
_READERS: dict[str, Callable[[BinaryIO], Any]] = {
    **dict.fromkeys(("GLOBAL", "INST"), _two_lines),
    **dict.fromkeys(("INT", "LONG"), _integer),
    "STRING": _quoted,
    "PERSID": _line,
}


_STRINGS = frozenset(
    {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
)
_BYTES = frozenset({"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"})
_NUMBERS = frozenset({"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"})
# How many values an opcode takes from the stack, and whether it leaves one.
_PLAIN: dict[str, tuple[int, bool]] = {
    **dict.fromkeys(("NONE", "NEWTRUE", "NEWFALSE", "FLOAT", "BINFLOAT", "PERSID", "NEXT_BUFFER"), (0, True)),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_DICT", "EMPTY_SET"), (0, True)),
    **dict.fromkeys(("TUPLE1", "BINPERSID"), (1, True)),
    "TUPLE2": (2, True),
    "TUPLE3": (3, True),
    "APPEND": (1, False),
    "SETITEM": (2, False),
}
_TO_MARK: dict[str, bool] = {
    **dict.fromkeys(("TUPLE", "LIST", "DICT", "FROZENSET"), True),
    **dict.fromkeys(("APPENDS", "SETITEMS", "ADDITEMS", "POP_MARK"), False),
}
_IGNORED = frozenset({"PROTO", "FRAME", "STOP", "READONLY_BUFFER"})


class _Machine:
    """The unpickler's registers, and one method for each kind of opcode."""

    def __init__(self) -> None:
        self.trace = Trace()
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self._nested_left = NESTED

    def step(self, name: str, argument: Any) -> None:
        if name in _STRINGS or name in _BYTES:
            self.stack.append(self._text(argument))
        elif name in _NUMBERS:
            self.stack.append(argument)
        elif name in _PLAIN:
            count, leaves = _PLAIN[name]
            self._pop(count)
            self.stack += [None] * leaves
        elif name in _TO_MARK:
            self._pop_mark()
            self.stack += [None] * _TO_MARK[name]
        elif name in _SPECIAL:
            _SPECIAL[name](self, argument)
        elif name not in _IGNORED:
            raise ValueError(f"opcode {name}")
        if name == "PROTO":
            self.trace.protocol = max(self.trace.protocol, argument)

    def _text(self, value: Any) -> Any:
        """Strings matter as names; strings of bytes may hold pickles of their own."""
        data = value.encode("latin-1", "ignore") if isinstance(value, str) else bytes(value)
        telling = data[:1] == b"\x80" or data[:2] in {b"PK", b"7z"} or b"\n" in data[:200]
        if telling and 3 < len(data) < self._nested_left:
            self._nested_left -= len(data)
            self.trace.nested.append(data)
        return value if isinstance(value, str) else None

    def number(self) -> int | None:
        """What is on top of the stack, if it is a whole number."""
        value = self.stack[-1] if self.stack else None
        return value if isinstance(value, int) else None

    def _pop(self, count: int = 1) -> Any:
        """The lowest of the ``count`` values taken; "something" where the stack is too short."""
        value = None
        for _ in range(count):
            value = self.stack.pop() if self.stack else None
        return value

    def _pop_mark(self) -> list[Any]:
        values = []
        while self.stack:
            value = self.stack.pop()
            if value is MARK:
                break
            values.append(value)
        return values[::-1]

    def _import(self, module: Any, name: Any) -> None:
        known = isinstance(module, str) and isinstance(name, str)
        found = Global(module, name) if known else Global(HIDDEN, HIDDEN)
        self.trace.globals.add(found)
        self.stack.append(found)

    def _global(self, argument: tuple[str, str]) -> None:
        self._import(*argument)

    def _stack_global(self, _: Any) -> None:
        name = self._pop()
        self._import(self._pop(), name)

    def _extension(self, _: Any) -> None:
        self._import(None, None)

    def _call(self, target: Any) -> None:
        if isinstance(target, Global):
            self.trace.called.add(target)
        self.stack.append(None)

    def _reduce(self, _: Any) -> None:
        self._call(self._pop(2))

    def _reduce_with_keywords(self, _: Any) -> None:
        self._call(self._pop(3))

    def _inst(self, argument: tuple[str, str]) -> None:
        self._pop_mark()
        self._global(argument)
        self._call(self._pop())

    def _obj(self, _: Any) -> None:
        values = self._pop_mark()
        self._call(values[0] if values else None)

    def _build(self, _: Any) -> None:
        self._pop()
        if self.stack and isinstance(self.stack[-1], Global):
            self.trace.altered.add(self.stack[-1])

    def _duplicate(self, _: Any) -> None:
        self.stack.append(self.stack[-1] if self.stack else None)

    def _mark(self, _: Any) -> None:
        self.stack.append(MARK)

    def _put(self, argument: int | None) -> None:
        key = len(self.memo) if argument is None else argument
        self.memo[key] = self.stack[-1] if self.stack else None

    def _get(self, argument: int) -> None:
        self.stack.append(self.memo.get(argument))

    def _drop(self, _: Any) -> None:
        self._pop()


_SPECIAL: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "INST": _Machine._inst,
    "OBJ": _Machine._obj,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "NEWOBJ_EX": _Machine._reduce_with_keywords,
    "BUILD": _Machine._build,
    "MARK": _Machine._mark,
    "DUP": _Machine._duplicate,
    "POP": _Machine._drop,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine._extension),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine._put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine._get),
}
