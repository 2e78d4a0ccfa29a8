"""The abstract unpickler against the real one: what is imported and called, by whatever way the names come together."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sau_scan.static.content import Budget
from sau_scan.static.facts import Unfinished
from sau_scan.static.imports import admitted, dangerous
from sau_scan.static.opcodes import HIDDEN, Global, Trace, trace

SYSTEM = Global("posix", "system")
HIDING = Global(HIDDEN, HIDDEN)


def traced(data: bytes) -> Trace:
    return trace(io.BytesIO(data), Budget())


@pytest.mark.parametrize(
    ("what", "data", "found"),
    [
        ("GLOBAL", b"cposix\nsystem\n(S'x'\ntR.", SYSTEM),
        ("INST", b"(S'x'\niposix\nsystem\n.", SYSTEM),
        ("OBJ", b"(cposix\nsystem\nS'x'\no.", SYSTEM),
        ("NEWOBJ", b"\x80\x02cposix\nsystem\n)\x81.", SYSTEM),
        ("NEWOBJ_EX", b"\x80\x04cposix\nsystem\n)}\x92.", SYSTEM),
        ("STACK_GLOBAL", b"\x80\x04\x8c\x05posix\x8c\x06system\x93)R.", SYSTEM),
        ("strings of protocol 0", b"S'posix'\nV\\u0073ystem\n\x93)R.", SYSTEM),
        ("an escaped string", b"S'po\\x73ix'\nS'system'\n\x93)R.", SYSTEM),
        ("the memo", b"\x80\x04\x8c\x06system\x94\x8c\x05posix\x940h\x01h\x00\x93)R.", SYSTEM),
        ("a memo written twice", b"\x80\x04\x8c\x05torch\x94\x8c\x05posixq\x0000h\x00\x8c\x06system\x93)R.", SYSTEM),
        ("DUP", b"\x80\x04\x8c\x05posix2\x93)R.", Global("posix", "posix")),
        ("an extension", b"\x80\x02\x82\x01)R.", HIDING),
        ("a name from a call", b"\x80\x04\x8c\x05posix\x8c\x08builtins\x8c\x03str\x93)R\x93)R.", HIDING),
        ("a hexadecimal number in front", b"I0x10\n0cposix\nsystem\n)R.", SYSTEM),
        ("a string that is not ASCII in front", b"S'\xc3\xa9'\n0cposix\nsystem\n)R.", SYSTEM),
    ],
)
def test_a_call_is_seen(what: str, data: bytes, found: Global) -> None:
    assert found in traced(data).called, what


def test_a_break_hides_nothing_in_front_of_it() -> None:
    result = traced(b"cposix\nsystem\n(S'x'\ntR\xff")
    assert result.broken and result.called == {SYSTEM}


def test_changing_what_was_imported_is_seen() -> None:
    assert traced(b"\x80\x02ctorch\nTensor\n}b.").altered == {Global("torch", "Tensor")}


def test_strings_of_bytes_are_kept_when_they_may_be_pickles() -> None:
    assert traced(b"\x80\x04C\x05\x80\x04N..\x94.").nested == [b"\x80\x04N.."]


def test_there_is_an_end_to_it() -> None:
    with pytest.raises(Unfinished):
        traced(b"\x80\x04" + b"N" * 2_000_000 + b".")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_import_nothing_that_is_not_admitted(value: Any, protocol: int) -> None:
    data = pickle.dumps(OrderedDict(value=value), protocol)
    result = traced(data)
    assert not result.broken and not result.altered
    assert all(admitted(found, found in result.called) for found in result.globals)


@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_trace(data: bytes) -> None:
    result = traced(data)
    assert result.broken or data.rstrip(b"\0")


@pytest.mark.parametrize(
    "name",
    [
        "os.system builtins.eval __builtin__.getattr importlib.import_module torch.hub.load torch.load numpy.load",
        "torch.utils.collect_env.run idlelib.run.Executive pip.main runpy.run_path dill.loads marshal.loads pdb.run",
        "collections.OrderedDict.__init__ typing.get_type_hints pathlib.Path.touch dataclasses._create_fn mailcap.x",
        "torch.storage._load_from_bytes setuptools._distutils.spawn.spawn operator.call types.FunctionType",
    ],
)
def test_what_runs_code_is_known_as_such(name: str) -> None:
    for one in name.split():
        found = Global(*one.rsplit(".", 1)) if not one.startswith(("collections", "pathlib")) else _dotted(one)
        assert not admitted(found, True) and dangerous(found), one


def _dotted(name: str) -> Global:
    return Global(*name.split(".", 1))


@pytest.mark.parametrize("found", [Global("my.models", "Net"), Global("datetime", "datetime"), Global("numpy", "mean")])
def test_what_is_only_unknown_is_told_apart(found: Global) -> None:
    assert not admitted(found, False) and not dangerous(found)


def test_a_class_of_a_trainer_may_be_named_but_not_called() -> None:
    found = Global("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    assert admitted(found, False) and not admitted(found, True)
