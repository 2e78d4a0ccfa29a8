"""Pickles that hide from a scanner which name they import, or make it stumble."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

from sau_scan.findings import Severity
from tests.corpus.gadgets import MODELSCAN_338, PICKLESCAN
from tests.corpus.opcodes import PROTO_4, Call, Name, Raw, assemble, emit, shell
from tests.corpus.sample import Sample, code, command, writes


def _called(function: bytes, canary: Path, *, before: bytes = b"") -> bytes:
    return PROTO_4 + before + function + emit((command(canary),)) + pickle.REDUCE + pickle.STOP


def _mixed_memo(canary: Path) -> bytes:
    """PUT writes what MEMOIZE seems to overwrite: a scanner that counts only one of them sees torch's own names."""
    before = b"".join(
        emit(text) + store + pickle.POP
        for text, store in (
            ("torch._utils", pickle.MEMOIZE),
            ("_rebuild_tensor_v2", pickle.MEMOIZE),
            ("posix", pickle.BINPUT + b"\x00"),
            ("system", pickle.BINPUT + b"\x01"),
        )
    )
    return _called(pickle.BINGET + b"\x00" + pickle.BINGET + b"\x01" + pickle.STACK_GLOBAL, canary, before=before)


def _memo_out_of_order(canary: Path) -> bytes:
    before = b"".join(
        b"V" + text + b"\np" + place + b"\n0"
        for text, place in ((b"posix", b"2"), (b"system", b"3"), (b"torch", b"0"), (b"LongStorage", b"1"))
    )
    return _called(b"g2\ng3\n" + pickle.STACK_GLOBAL, canary, before=before)


def _memo_of_pushed(canary: Path) -> bytes:
    """PUT stores the top of the stack, which is not the argument of the opcode before it."""
    before = emit("posix") + emit("torch") + pickle.POP + pickle.BINPUT + b"\x05" + pickle.POP
    return _called(pickle.BINGET + b"\x05" + emit("system") + pickle.STACK_GLOBAL, canary, before=before)


def _decoys(canary: Path) -> bytes:
    """Other strings are pushed and popped between the name and its use."""
    decoys = emit("collections") + emit("OrderedDict") + pickle.POP + pickle.POP
    return _called(emit("posix") + emit("system") + decoys + pickle.STACK_GLOBAL, canary)


def _duplicated(canary: Path) -> bytes:
    """``DUP`` makes the operand: a scanner that looks back for two strings takes the wrong ones."""
    before = emit("posix") + emit("system") + pickle.DUP + pickle.POP
    return _called(before + pickle.STACK_GLOBAL, canary)


def _strings(opcode: bytes) -> Callable[[Path], bytes]:
    """Operands by an old opcode for strings."""

    def push(text: bytes) -> bytes:
        if opcode == pickle.STRING:
            return opcode + b"'" + text + b"'\n"
        size = bytes([len(text)]) if opcode == pickle.SHORT_BINSTRING else struct.pack("<i", len(text))
        return opcode + size + text

    return lambda canary: _called(push(b"posix") + push(b"system") + pickle.STACK_GLOBAL, canary)


def _wide(canary: Path) -> bytes:
    """Operands with eight bytes of length."""

    def push(text: bytes) -> bytes:
        return pickle.BINUNICODE8 + struct.pack("<Q", len(text)) + text

    return _called(push(b"posix") + push(b"system") + pickle.STACK_GLOBAL, canary)


def _then(tail: bytes) -> Callable[[Path], bytes]:
    """After the call a STACK_GLOBAL that a scanner chokes on."""
    return lambda canary: assemble(Raw(emit(shell(canary)) + pickle.POP + tail + pickle.STACK_GLOBAL))


def _choking_memo(canary: Path) -> bytes:
    return _then(emit("os") + pickle.MEMOIZE + pickle.BINGET + b"\x63" + pickle.BINGET + b"\x00")(canary)


def _choking_bytearray(canary: Path) -> bytes:
    return _then(emit("os") + pickle.BYTEARRAY8 + struct.pack("<Q", 6) + b"system")(canary)


def _attribute_path(module: str, name: str) -> Callable[[Path], bytes]:
    """A harmless module's attribute that is another module."""
    return lambda canary: assemble(Call(Name(module, name), (command(canary),)))


def _built_names(canary: Path) -> bytes:
    """Names are written into a harmless function's attributes and read back as the operands of STACK_GLOBAL."""
    holder = emit(Name("numpy", "prod"))
    fill = pickle.NONE + emit({"a": "posix", "b": "system"}) + pickle.TUPLE2 + pickle.BUILD + pickle.POP
    read = emit(Name("numpy", "prod.a")) + emit(Name("numpy", "prod.b"))
    return _called(holder + fill + read + pickle.STACK_GLOBAL, canary)


def _get_attributes(canary: Path) -> bytes:
    """``getattr`` all the way from a harmless class to ``__import__``."""
    get = Name("builtins", "getattr")
    space = Call(get, (Call(get, (Name("torch._utils", "_rebuild_tensor_v2"), "__globals__")), "get"))
    builtins = Call(space, ("__builtins__",))
    imported = Call(Call(Call(get, (builtins, "get")), ("__import__",)), ("os",))
    return assemble(Call(Call(get, (imported, "system")), (command(canary),)))


def _inherited(canary: Path) -> bytes:
    """The dictionary of the builtins as an attribute of an allowed module, and a method of it."""
    get = Name("collections", "__builtins__.get")
    return assemble(Call(Call(get, ("eval",)), (code(canary),)))


def _joined_name(canary: Path) -> bytes:
    """The name is put together while loading."""
    joined = Call(Name("builtins", "str.join"), ("", ["po", "six"]))
    function = Call(Name("builtins", "getattr"), (Call(Name("builtins", "__import__"), (joined,)), "system"))
    return assemble(Call(function, (command(canary),)))


def _joined_operand(canary: Path) -> bytes:
    """An operand of STACK_GLOBAL that a call makes."""
    joined = Call(Name("builtins", "str.join"), ("", ["po", "six"]))
    return _called(emit(joined) + emit("system") + pickle.STACK_GLOBAL, canary)


_ISSUES = "https://github.com/mmaitre314/picklescan/issues/"
_PULL_52 = "https://github.com/mmaitre314/picklescan/pull/52"
_OPERANDS = PICKLESCAN + "GHSA-9gvj-pp9x-gcfr"

# id, what it is, its pickle, link
_DISGUISES: tuple[tuple[str, str, Callable[[Path], bytes], str], ...] = (
    ("mixed-memo", "PUT and MEMOIZE mixed", _mixed_memo, _ISSUES + "14"),
    ("memo-out-of-order", "the memo out of order", _memo_out_of_order, _ISSUES + "22"),
    ("memo-of-pushed", "the memo stores another string than it seems", _memo_of_pushed, "https://github.com/protectai/modelscan/issues/85"),
    ("decoys", "strings pushed and popped", _decoys, "https://github.com/promptfoo/modelaudit/pull/518"),
    ("duplicated", "a DUP between the operands", _duplicated, ""),
    ("string-operands", "STRING operands", _strings(pickle.STRING), _OPERANDS),
    ("binstring", "BINSTRING operands", _strings(pickle.BINSTRING), _OPERANDS),
    ("short-binstring", "SHORT_BINSTRING operands", _strings(pickle.SHORT_BINSTRING), _OPERANDS),
    ("wide-operands", "BINUNICODE8 operands", _wide, ""),
    ("choking-memo", "then a memo entry that is not there", _choking_memo, _PULL_52),
    ("choking-int", "then a STACK_GLOBAL of a number", _then(emit(42) + emit("os")), _PULL_52),
    ("choking-bytes", "then one of bytes", _then(emit(b"os") + emit("system")), MODELSCAN_338),
    ("choking-bytearray", "then one of a bytearray", _choking_bytearray, MODELSCAN_338),
    ("choking-empty", "then one of an empty stack", _then(b""), MODELSCAN_338),
    ("through-torch", "torch's own import of os", _attribute_path("torch", "os.system"), ""),
    ("through-numpy", "numpy's own import", _attribute_path("numpy.lib._npyio_impl", "os.system"), ""),
    ("through-storage", "the allowed module torch._utils, and on from there", _attribute_path("torch._utils", "logging.os.system"), ""),
    ("built-names", "names kept in attributes by BUILD", _built_names, "https://github.com/protectai/modelscan/issues/85"),
    ("getattr-chain", "getattr from a harmless function", _get_attributes, "https://github.com/protectai/modelscan/issues/331"),
    ("module-builtins", "__builtins__ of an allowed module", _inherited, "https://github.com/protectai/modelscan/issues/330"),
    ("joined-name", "a name joined while loading", _joined_name, "https://github.com/protectai/modelscan/issues/331"),
    ("joined-operand", "an operand joined while loading", _joined_operand, ""),
)  # fmt: skip

DISGUISES = tuple(
    Sample(f"disguise-{name}", "model.pkl", what, writes(data), Severity.HIGH, link, load="pickle")
    for name, what, data, link in _DISGUISES
)
