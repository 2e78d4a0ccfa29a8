"""The same hostile call by every route that the opcodes of a pickle offer."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sau_scan.findings import Severity
from tests.corpus.gadgets import PICKLESCAN
from tests.corpus.opcodes import PROTO_4, SYSTEM, Call, Name, Raw, assemble, emit, evaluates, evil, shell
from tests.corpus.sample import Sample, code, command, writes

PROTO_2 = pickle.PROTO + b"\x02"
GLOBAL_SYSTEM = b"cposix\nsystem\n"
ORDERED = Name("collections", "OrderedDict")
EXTENSION = 240


def _protocol(number: int) -> Callable[[Path], bytes]:
    def data(canary: Path) -> bytes:
        import os

        class Hostile:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.system, (command(canary),)

        return pickle.dumps({"state_dict": Hostile()}, protocol=number)

    return data


def _python_2(canary: Path) -> bytes:
    return PROTO_2 + b"c__builtin__\neval\n" + emit((code(canary),)) + pickle.REDUCE + pickle.STOP


def _text(canary: Path) -> bytes:
    return b"cposix\nsystem\n(V" + command(canary).encode() + b"\ntR."


def _inst(canary: Path) -> bytes:
    return b"(S" + repr(command(canary)).encode() + b"\niposix\nsystem\n."


def _obj(canary: Path) -> bytes:
    return PROTO_2 + pickle.MARK + GLOBAL_SYSTEM + emit(command(canary)) + pickle.OBJ + pickle.STOP


def _new_object(opcode: bytes, *more: Any) -> Callable[[Path], bytes]:
    """A ``tuple`` made of a ``map`` of the function: no REDUCE anywhere."""

    def data(canary: Path) -> bytes:
        def new(name: str, *args: Any) -> Raw:
            return Raw(emit(Name("builtins", name)) + emit(args) + b"".join(map(emit, more)) + opcode)

        return assemble(new("tuple", new("map", SYSTEM, [command(canary)])))

    return data


def _setstate(canary: Path) -> bytes:
    """An OrderedDict that is given the function as its ``__setstate__``, and then a state."""
    return assemble(
        Raw(
            emit(Call(ORDERED, ()))
            + emit({"__setstate__": SYSTEM})
            + pickle.BUILD
            + emit(command(canary))
            + pickle.BUILD
        )
    )


def _append(canary: Path) -> bytes:
    """An object whose ``append`` is the function, appended to."""
    thing = emit(Call(Name("types", "SimpleNamespace"), ()))
    return assemble(
        Raw(thing + emit({"append": SYSTEM}) + pickle.BUILD + pickle.MARK + emit(command(canary)) + pickle.APPENDS)
    )


def _extension(canary: Path) -> bytes:
    """The function by a number of copyreg's registry, entered a moment before."""
    entered = Call(Name("copyreg", "add_extension"), ("posix", "system", EXTENSION))
    called = pickle.EXT1 + bytes([EXTENSION]) + emit((command(canary),)) + pickle.REDUCE
    return assemble(Raw(emit(entered) + pickle.POP + called))


def _persistent(canary: Path) -> bytes:
    """The call inside a persistent id, where torch's pickles name their storages."""
    return assemble(Raw(emit(("storage", shell(canary))) + pickle.BINPERSID))


def _dict_value(canary: Path) -> bytes:
    return assemble({"state_dict": {"a": 1, "b": (2, [shell(canary)])}})


def _dict_key(canary: Path) -> bytes:
    return assemble({shell(canary): 1})


def _popped(canary: Path) -> bytes:
    """The result is thrown away, as if nothing had been called."""
    return assemble(Raw(emit(shell(canary)) + pickle.POP + emit({"a": 1})))


def _popped_mark(canary: Path) -> bytes:
    return assemble(Raw(pickle.MARK + emit(shell(canary)) + pickle.POP_MARK + emit({"a": 1})))


def _concatenated(canary: Path) -> bytes:
    return assemble({"a": 1}) + evil(canary)


def _nested(depth: int) -> Callable[[Path], bytes]:
    def data(canary: Path) -> bytes:
        inner = evil(canary)
        for _ in range(depth):
            inner = assemble(Call(Name("_pickle", "loads"), (inner,)))
        return inner

    return data


def _broken(tail: bytes) -> Callable[[Path], bytes]:
    """The stream breaks after the call; what ran before the break did run."""
    return lambda canary: evil(canary)[:-1] + tail


def _no_stop(canary: Path) -> bytes:
    return evil(canary)[:-1]


def _protocol_byte(number: int) -> Callable[[Path], bytes]:
    """A later PROTO opcode, or one of a protocol that there is not, after the call."""
    return lambda canary: evil(canary)[:-1] + pickle.PROTO + bytes([number]) + pickle.STOP


def _no_proto(canary: Path) -> bytes:
    return evil(canary)[len(PROTO_4) :]


def _frame(claimed: int) -> Callable[[Path], bytes]:
    """A frame of another length than it has; the C unpickler does not mind a frame that is too short."""
    return lambda canary: PROTO_4 + pickle.FRAME + struct.pack("<Q", claimed) + evil(canary)[len(PROTO_4) :]


def _deep(canary: Path) -> bytes:
    """Below many levels of tuples, deeper than a recursive reader goes."""
    return PROTO_4 + emit(shell(canary)) + pickle.TUPLE1 * 20_000 + pickle.STOP


def _late(canary: Path) -> bytes:
    """After a megabyte of honest opcodes."""
    return PROTO_4 + (emit("weight") + pickle.POP) * 80_000 + evil(canary)[len(PROTO_4) :]


_NULLIFAI = "https://www.reversinglabs.com/blog/rl-identifies-malware-ml-model-hosted-on-hugging-face"

# id, what it is, its pickle, link, how it is loaded
_ROUTES: tuple[tuple[str, str, Callable[[Path], bytes], str, str], ...] = (
    *((f"protocol-{n}", f"os.system by REDUCE in protocol {n}", _protocol(n), "", "pickle") for n in range(6)),
    ("python-2-name", "a builtin by its name of Python 2", _python_2, "", "pickle"),
    ("text", "protocol 0 by hand", _text, "", "pickle"),
    ("inst", "INST", _inst, "", "pickle"),
    ("obj", "OBJ", _obj, "", "pickle"),
    ("newobj", "NEWOBJ of tuple and map", _new_object(pickle.NEWOBJ), "", "pickle"),
    ("newobj-ex", "NEWOBJ_EX of tuple and map", _new_object(pickle.NEWOBJ_EX, {}), "", "pickle"),
    ("build", "BUILD with a __setstate__ of its own", _setstate, "", "pickle"),
    ("appends", "APPENDS to an object whose append is the function", _append, "", "pickle"),
    ("extension", "EXT1 after copyreg.add_extension", _extension, "", "pickle"),
    ("persistent-id", "a call inside a persistent id", _persistent, "", "pickle"),
    ("dict-value", "deep in a state dict", _dict_value, "", "pickle"),
    ("dict-key", "as the key of a dictionary", _dict_key, "", "pickle"),
    ("popped", "the result is popped", _popped, "https://www.promptfoo.dev/blog/open-sourcing-modelaudit", "pickle"),
    ("popped-mark", "the result goes with its mark", _popped_mark, "", "pickle"),
    ("concatenated", "the second of two pickles", _concatenated, "", "every-pickle"),
    ("nested-3", "a pickle in a pickle in a pickle", _nested(3), PICKLESCAN + "GHSA-84r2-jw7c-4r5q", "pickle"),
    ("broken", "broken after the call", _broken(b"\xffX."), _NULLIFAI, "pickle"),
    ("broken-short", "a string that is longer than the file", _broken(b"X\xff\xff\x00\x00."), _NULLIFAI, "pickle"),
    ("no-stop", "ends without STOP", _no_stop, _NULLIFAI, "pickle"),
    ("no-proto", "no PROTO opcode, so no magic bytes", _no_proto, "", "pickle"),
    ("proto-later", "a PROTO opcode of protocol 0 at the end", _protocol_byte(0), "", "pickle"),
    ("proto-unknown", "protocol 255 at the end", _protocol_byte(255), "", "pickle"),
    ("frame-short", "a frame that claims too few bytes", _frame(2), "", "pickle"),
    ("trailing", "bytes after STOP that are no pickle", lambda c: evil(c) + b"\n\n\t\t", "", "pickle"),
    ("deep", "20,000 tuples deep", _deep, "", "pickle"),
    ("late", "after a megabyte of honest opcodes", _late, "", "pickle"),
    ("evaluates", "eval", evaluates, "", "pickle"),
)  # fmt: skip

ROUTES = tuple(
    Sample(f"route-{name}", "model.pkl", what, writes(data), Severity.HIGH, link, load=load)
    for name, what, data, link, load in _ROUTES
)
