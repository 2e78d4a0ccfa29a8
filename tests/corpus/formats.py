"""Hostile files of other formats: numpy, ONNX, GGUF, Keras, archives that explode, programs."""

from __future__ import annotations

import base64
import gzip
import io
import json
import marshal
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from sau_scan.findings import Severity
from tests.corpus.gadgets import PICKLESCAN
from tests.corpus.headers import TEMPLATE
from tests.corpus.opcodes import evil
from tests.corpus.sample import Sample, code, writes
from tests.corpus.zips import Entry, torch_zip, zip_bytes

MEGABYTE = 1 << 20


def npy(payload: bytes, kind: str = "|O") -> bytes:
    """A numpy array of this type; of objects, it is a pickle."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': (1,), }}".encode()
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + payload


def _field(number: int, value: int | str | bytes) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    data = value.encode() if isinstance(value, str) else value
    size, rest = bytearray(), len(data)
    while rest > 127:
        size.append(rest & 127 | 128)
        rest >>= 7
    return bytes([number << 3 | 2, *size, rest]) + data


def onnx(*entries: tuple[str, str]) -> bytes:
    """A model with one initial value; with ``entries`` it lies in another file."""
    tensor = bytes([1 << 3, 4, 2 << 3, 1]) + _field(8, "weight")
    if entries:
        tensor += b"".join(_field(13, _field(1, key) + _field(2, value)) for key, value in entries) + bytes(
            [14 << 3, 1]
        )
    else:
        tensor += _field(9, bytes(16))
    graph = _field(2, "graph") + _field(5, tensor)
    return _field(1, 8) + _field(2, "pytorch") + _field(7, graph)


def gguf(template: str) -> bytes:
    """A GGUF file that holds one chat template."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    return (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("tokenizer.chat_template") + struct.pack("<I", 8) + text(template)
    )


def keras_config(canary: Path | None) -> bytes:
    """The configuration of a model whose layer is a Python function by value, or a plain layer."""
    layer: dict[str, object] = {"class_name": "Dense", "config": {"units": 4}}
    if canary is not None:
        function = marshal.dumps(compile(code(canary), "x", "exec"))
        value = {"class_name": "__lambda__", "config": {"code": base64.b64encode(function).decode()}}
        layer = {"class_name": "Lambda", "config": {"name": "lambda", "function": value}}
    return json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}}).encode()


def keras(canary: Path | None) -> bytes:
    metadata = json.dumps({"keras_version": "3.9.0"}).encode()
    return zip_bytes(Entry("metadata.json", metadata), Entry("config.json", keras_config(canary)))


def hdf5(config: bytes) -> bytes:
    """The signature and superblock of HDF5 and a ``model_config`` attribute, as Keras writes it; no more of the format."""
    superblock = b"\x89HDF\r\n\x1a\n" + struct.pack(
        "<8BHHI4Q", 0, 0, 0, 0, 0, 8, 8, 0, 4, 16, 0, 0, 2**64 - 1, 2048, 2**64 - 1
    )
    return superblock.ljust(96, b"\0") + b"model_config\0\0\0\0" + config


def _zeros(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join(packer.compress(bytes(MEGABYTE)) for _ in range(size // MEGABYTE)) + packer.flush()


def _bomb(_: Path) -> bytes:
    """256 MB of zeros in 256 kB."""
    packed = _zeros(256 * MEGABYTE)
    return zip_bytes(Entry("archive/data.pkl", packed, method=8, size=256 * MEGABYTE), Entry("archive/version", b"3\n"))


def _overlapping(_: Path) -> bytes:
    """2,000 entries that share 16 MB of zeros, as it unpacks: 32 GB in 100 kB."""
    packed = _zeros(16 * MEGABYTE)
    first = Entry("archive/data/0", packed, method=8, size=16 * MEGABYTE)
    rest = (
        Entry(f"archive/data/{n}", packed, method=8, size=16 * MEGABYTE, offset=0, stored=False) for n in range(1, 2000)
    )
    return zip_bytes(first, *rest)


def _many(_: Path) -> bytes:
    return zip_bytes(*(Entry(f"archive/data/{n}", b"") for n in range(60_000)))


def _claims(size: int) -> Callable[[Path], bytes]:
    """An entry that claims another size than it has."""
    return lambda canary: torch_zip(b"\x80\x02}q\0.", size=size, deflate=True)


def _named(name: str, mode: int = 0o100644, data: bytes = b"x") -> Callable[[Path], bytes]:
    return lambda canary: zip_bytes(Entry("archive/data.pkl", b"\x80\x02}q\0."), Entry(name, data, mode=mode))


def _nested_zips(_: Path) -> bytes:
    data = b"x"
    for _level in range(40):
        data = zip_bytes(Entry("inner.zip", data))
    return data


def _tar_entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> Callable[[Path], bytes]:
    def data(_: Path) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as file:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            file.addfile(info)
        return out.getvalue()

    return data


def _object_arrays(*, deflate: bool) -> Callable[[Path], bytes]:
    return lambda canary: zip_bytes(
        Entry("a.npy", npy(struct.pack("<d", 1), "<f8")), Entry("b.npy", npy(evil(canary)), deflate=deflate)
    )


_POINTER = b"version https://git-lfs.github.com/spec/v1\n" + bytes(100)


def _cut_late(payload: bytes) -> bytes:
    data = zip_bytes(
        Entry("a/data.pkl", b"\x80\x02}q\0."), Entry("a/data/0", bytes(9 * MEGABYTE)), Entry("a/b.pkl", payload)
    )
    return data[: data.rindex(b"PK\x05\x06")]


_ONNX = "https://github.com/advisories/GHSA-h43h-fwqx-mpp8"
_GGUF = "https://github.com/advisories/GHSA-56xg-wfcc-g829"
_KERAS = "https://github.com/advisories/GHSA-48g7-3x6r-xfhp"
_DNS = PICKLESCAN + "GHSA-9m3x-qqw2-h32h"
HIGH, MEDIUM, LOW = Severity.HIGH, Severity.MEDIUM, Severity.LOW

# id, file name, what it is, its bytes, the least severity, link, how it is loaded
_FORMATS: tuple[tuple[str, str, str, Callable[[Path], bytes], Severity, str, str], ...] = (
    ("npy", "array.npy", "array of objects", lambda c: npy(evil(c)), HIGH, _DNS, "numpy"),
    ("npy-renamed", "array.bin", "array of objects named .bin", lambda c: npy(evil(c)), HIGH, _DNS, "numpy"),
    ("npz", "arrays.npz", "arrays of objects", _object_arrays(deflate=False), HIGH, "", "npz"),
    ("npz-packed", "arrays.npz", "arrays of objects, compressed", _object_arrays(deflate=True), HIGH, "", "npz"),
    ("onnx-up", "model.onnx", "data outside", lambda c: onnx(("location", "../../etc/passwd")), HIGH, _ONNX, ""),
    ("onnx-absolute", "model.onnx", "data at an absolute path", lambda c: onnx(("location", "/etc/passwd")), HIGH, _ONNX, ""),
    ("gguf", "model.gguf", "a hostile chat template", lambda c: gguf(TEMPLATE), MEDIUM, _GGUF, ""),
    ("keras", "model.keras", "a function as a layer", keras, HIGH, _KERAS, ""),
    ("keras-h5", "model.h5", "a function as a layer", lambda c: hdf5(keras_config(c)), HIGH, _KERAS, ""),
    ("bomb", "model.pt", "a zip that explodes", _bomb, HIGH, "", ""),
    ("bomb-overlapping", "model.pt", "a zip whose entries share their data", _overlapping, HIGH, "https://www.bamsoftware.com/hacks/zipbomb/", ""),
    ("bomb-gzip", "model.pkl", "a gzip that explodes", lambda c: gzip.compress(bytes(128 * MEGABYTE)), HIGH, "", ""),
    ("bomb-nested", "model.zip", "forty zips in each other", _nested_zips, MEDIUM, "", ""),
    ("many-entries", "model.pt", "60,000 entries", _many, MEDIUM, "", ""),
    ("claims-less", "model.pt", "an entry that claims one byte", _claims(1), HIGH, "", ""),
    ("claims-more", "model.pt", "an entry that claims 4 GB", _claims(0xFFFFFFF0), HIGH, "", ""),
    ("path-up", "model.pt", "an entry above the folder", _named("../../evil.sh"), HIGH, "", ""),
    ("path-absolute", "model.pt", "an entry at an absolute path", _named("/etc/evil"), HIGH, "", ""),
    ("path-windows", "model.pt", "an entry at a path of Windows", _named("..\\..\\evil.bat"), HIGH, "", ""),
    ("zip-link", "model.pt", "a link to elsewhere in a zip", _named("archive/link", 0o120777, b"/etc/passwd"), HIGH, "", ""),
    ("zip-program", "model.zip", "a program in a zip", _named("setup.exe", data=b"MZ" + bytes(80)), MEDIUM, "", ""),
    ("tar-up", "model.tar", "an entry above the folder in a tar", _tar_entry("../../evil.sh"), HIGH, "", ""),
    ("tar-link", "model.tar", "a link to elsewhere in a tar", _tar_entry("link", tarfile.SYMTYPE, "/etc/passwd"), HIGH, "", ""),
    ("tar-device", "model.tar", "a device in a tar", _tar_entry("device", tarfile.CHRTYPE), HIGH, "", ""),
    ("elf", "model.safetensors", "a program named safetensors", lambda c: b"\x7fELF\2\1\1" + bytes(120), HIGH, "", ""),
    ("exe", "model.bin", "a program of Windows named .bin", lambda c: b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + bytes(99), HIGH, "", ""),
    ("script", "model.ckpt", "a script named .ckpt", lambda c: b"#!/bin/sh\ntouch x\n", HIGH, "", ""),
    ("page", "model.safetensors", "a web page named safetensors", lambda c: b"<!DOCTYPE html><html><script>1</script></html>", HIGH, "", ""),
    ("pointer-pickle", "model.bin", "a pickle behind the beginning of a Git LFS pointer", lambda c: _POINTER + evil(c), HIGH, "", ""),
    ("cut-late", "model.pt", "an archive without end, a pickle far behind", lambda c: _cut_late(evil(c)), HIGH, "", ""),
    ("json-deep", "config.json", "100,000 brackets", lambda c: b"[" * 100_000, LOW, "", ""),
    ("json-digits", "config.json", "a number of 100,000 digits", lambda c: b'{"a": ' + b"9" * 100_000 + b"}", LOW, "", ""),
)  # fmt: skip

FORMATS = tuple(
    Sample(f"format-{name}", file, what, writes(data), least, link, damaged=name == "page", load=load)
    for name, file, what, data, least, link, load in _FORMATS
)
