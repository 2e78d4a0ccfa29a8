"""What the fuzz tests feed: changed files of the corpus, streams of opcodes, headers and zips that lie."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable

from hypothesis import strategies as st

from tests.corpus import SAMPLES
from tests.corpus.headers import raw
from tests.corpus.zips import Entry, zip_bytes

LARGEST = 300_000
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
ENDINGS = "pkl pt bin ckpt safetensors json npy npz onnx gguf h5 keras 7z tar zip gz xz png txt md".split()
FILES = [sample for sample in SAMPLES if "folder" not in sample.id and "tokenizer" not in sample.id]
PICKLES = [sample for sample in FILES if sample.load == "pickle" and sample.name == "model.pkl"]
Change = Callable[[bytes], bytes]
places = st.floats(0, 1, exclude_max=True)


def _replacing(place: float, new: bytes, over: int) -> Change:
    """``new`` in place of ``over`` bytes."""

    def change(data: bytes) -> bytes:
        at = int(place * len(data))
        return data[:at] + new + data[at + over :]

    return change


def _flip(place: float, bit: int) -> Change:
    def change(data: bytes) -> bytes:
        at = int(place * len(data))
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] if data else data

    return change


def _repeat(place: float, length: int, times: int) -> Change:
    def change(data: bytes) -> bytes:
        at = int(place * len(data))
        return data[:at] + data[at : at + length] * times + data[at:]

    return change


def _packed(number: int, form: str) -> bytes:
    return struct.pack(form, number & (1 << 8 * struct.calcsize(form)) - 1)


numbers = st.builds(_packed, st.sampled_from(NUMBERS), st.sampled_from(("<B", "<H", "<I", "<Q", ">I")))
pieces = st.one_of(numbers, st.binary(min_size=1, max_size=32))
changes = st.one_of(
    st.builds(_replacing, places, st.just(b""), st.integers(1, LARGEST)),
    st.builds(_flip, places, st.integers(0, 7)),
    st.builds(lambda place, new: _replacing(place, new, len(new)), places, pieces),
    st.builds(_replacing, places, pieces, st.just(0)),
    st.builds(_repeat, places, st.integers(1, 64), st.integers(2, 2_000)),
)
some_changes = st.lists(changes, min_size=1, max_size=4)


def changed(data: bytes, done: list[Change]) -> bytes:
    for change in done:
        data = change(data)[: 4 * LARGEST]
    return data


# Names that matter and such that do not, by every opcode that pushes text, between all that moves the stack about.
TEXTS = ("posix", "system", "builtins", "eval", "torch", "FloatStorage", "collections", "OrderedDict", "x y", "")


def _pushed(text: str, form: int) -> bytes:
    data = text.encode()
    return (
        pickle.SHORT_BINUNICODE + bytes([len(data)]) + data,
        pickle.BINUNICODE + struct.pack("<I", len(data)) + data,
        pickle.BINUNICODE8 + struct.pack("<Q", len(data)) + data,
        pickle.UNICODE + data + b"\n",
        pickle.STRING + b"'" + data + b"'\n",
        pickle.SHORT_BINSTRING + bytes([len(data)]) + data,
        pickle.BINSTRING + struct.pack("<i", len(data)) + data,
        pickle.SHORT_BINBYTES + bytes([len(data)]) + data,
    )[form]


def _memo(place: int, form: int) -> bytes:
    line, byte, long = b"%d\n" % place, bytes([place]), struct.pack("<I", place)
    return (
        pickle.PUT + line,
        pickle.BINPUT + byte,
        pickle.LONG_BINPUT + long,
        pickle.GET + line,
        pickle.BINGET + byte,
        pickle.LONG_BINGET + long,
        pickle.MEMOIZE,
    )[form]


PLAIN = (
    *(pickle.DUP, pickle.POP, pickle.MARK, pickle.POP_MARK, pickle.NONE, pickle.NEWTRUE, pickle.STOP),
    *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_TUPLE, pickle.LIST, pickle.EMPTY_LIST),
    *(pickle.DICT, pickle.EMPTY_DICT, pickle.EMPTY_SET, pickle.FROZENSET, pickle.ADDITEMS, pickle.SETITEM),
    *(pickle.SETITEMS, pickle.APPEND, pickle.APPENDS, pickle.REDUCE, pickle.BUILD, pickle.OBJ, pickle.NEWOBJ),
    *(pickle.NEWOBJ_EX, pickle.BINPERSID, pickle.PROTO + b"\x04", pickle.FRAME + bytes(8), pickle.EXT1 + b"\xf0"),
    *(b"cposix\nsystem\n", b"ctorch\nFloatStorage\n", b"iposix\nsystem\n", b"I1\n", b"K\x01", b"J\0\0\0\0", b"\xff"),
)
opcodes = st.one_of(
    st.builds(_pushed, st.sampled_from(TEXTS), st.integers(0, 7)),
    st.builds(_memo, st.integers(0, 3), st.integers(0, 6)),
    st.just(pickle.STACK_GLOBAL),
    st.just(_pushed("posix", 0) + _pushed("system", 0)),
    st.sampled_from(PLAIN),
)
streams = st.builds(
    lambda start, body: start + b"".join(body),
    st.sampled_from((b"", b"\x80\x02", b"\x80\x04")),
    st.lists(opcodes, max_size=24),
)

odd = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.integers(), st.floats(), st.text(max_size=9))
nested = st.recursive(
    odd, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from(("F32", "F16", "BF16", "I64", "BOOL", "F8_E4M3")), odd),
        "shape": st.one_of(st.lists(st.integers(0, 9), max_size=4), nested),
        "data_offsets": st.one_of(st.tuples(st.integers(0, 99), st.integers(0, 99)), nested),
    },
)
headers = st.builds(
    lambda table, data, length: raw(json.dumps(table).encode(), data, length),
    st.dictionaries(st.one_of(st.text(max_size=6), st.just("__metadata__")), st.one_of(entries, nested), max_size=5),
    st.binary(max_size=99),
    st.one_of(st.none(), st.sampled_from(NUMBERS)),
)
small = st.one_of(st.none(), st.sampled_from(NUMBERS[:9]))
zip_entries = st.builds(
    lambda name, data, deflate, flags, crc, size, offset, listed, stored, method: Entry(
        name,
        data,
        deflate=deflate,
        flags=flags,
        local_flags=flags,
        crc=crc,
        size=size,
        offset=offset,
        listed=listed,
        stored=stored,
        method=method,
    ),
    st.sampled_from(("archive/data.pkl", "archive/data/0", "../x", "", "a" * 300, "archive/version")),
    st.one_of(st.binary(max_size=99), st.just(b"\x80\x02cposix\nsystem\n.")),
    st.booleans(),
    st.integers(0, 65535),
    small,
    small,
    small,
    st.booleans(),
    st.booleans(),
    st.sampled_from((None, 0, 8, 12, 14, 99)),
)
zips = st.builds(lambda entries, count: zip_bytes(*entries, count=count), st.lists(zip_entries, max_size=6), small)
