"""Makers of the examples that the rules about files name: each writes one file or folder and returns its path."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import py7zr
import safetensors.torch
import torch

from tests.static.tokenizer_makers import TOKENIZER_MAKERS

Maker = Callable[[Path, Path], Path]
UNET = "unet/diffusion_pytorch_model.safetensors"
SYSTEM = b"cposix\nsystem\n(S'true'\ntR."
STATE = OrderedDict(weight=torch.arange(12.0).reshape(3, 4), half=torch.ones(3, dtype=torch.bfloat16))


def blob(name: str, data: bytes | Callable[[], bytes]) -> Maker:
    """Writes one file."""

    def make(folder: Path, _: Path) -> Path:
        path = folder / name
        path.write_bytes(data() if callable(data) else data)
        return path

    return make


def changed(change: Callable[[Path], Any]) -> Maker:
    """Copies the tiny checkpoint and changes the copy."""

    def make(folder: Path, checkpoint: Path) -> Path:
        copy = Path(shutil.copytree(checkpoint, folder / "copy"))
        change(copy)
        return copy

    return make


def edited(path: str, **values: Any) -> Maker:
    return changed(lambda copy: edit_json(copy / path, **values))


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def saved(state: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def packed(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


TORCH_LIKE = packed({"archive/data.pkl": b"\x80\x02}q\x00.", "archive/version": b"3\n"})


def seven_zip() -> bytes:
    buffer = io.BytesIO()
    with py7zr.SevenZipFile(buffer, "w") as archive:
        archive.writestr(SYSTEM, "data.pkl")
    return buffer.getvalue()


def twice() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"N.")
        archive.writestr("archive/data.pkm", SYSTEM)
    return buffer.getvalue().replace(b"data.pkm", b"data.pkl")


def hidden() -> bytes:
    """Two entries, of which the directory has one."""
    data = packed({"a/data.pkl": b"N.", "a/more": b"N."})
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 1)
    end = data[data.index(b"PK\x05\x06") :]
    count, size = struct.pack("<2H", 1, 1), struct.pack("<2L", second - first, first)
    return data[:second] + end[:8] + count + size + end[20:]


def repeated() -> bytes:
    once = json.dumps(described((0, 8)))
    return with_header(once[:-1] + "," + once[1:], bytes(8))


def linked() -> bytes:
    info = zipfile.ZipInfo("archive/link")
    info.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def nested(depth: int) -> bytes:
    data = b"x"
    for level in range(depth):
        data = packed({f"{level}.zip": data})
    return data


def with_header(header: Any, data: bytes = b"", padding: str = "") -> bytes:
    text = (padding + (header if isinstance(header, str) else json.dumps(header))).encode()
    return struct.pack("<Q", len(text)) + text + data


def described(*offsets: tuple[int, int], shape: int = 2) -> dict[str, Any]:
    return {f"t{n}": {"dtype": "F32", "shape": [shape], "data_offsets": list(o)} for n, o in enumerate(offsets)}


def with_metadata(**metadata: str) -> bytes:
    return safetensors.torch.save({"a": torch.ones(2)}, metadata=metadata)


def change_tensors(copy: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = safetensors.torch.load_file(copy / UNET)
    change(tensors)
    safetensors.torch.save_file(tensors, copy / UNET)


def break_numbers(tensors: dict[str, torch.Tensor]) -> None:
    tensors["conv_in.weight"][0, 0, 0, :2] = float("nan")
    tensors["conv_in.bias"][3] = float("-inf")


def array_of_objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def elf_in_tensor() -> bytes:
    return safetensors.torch.save({"a": torch.frombuffer(bytearray(b"\x7fELF" + bytes(60)), dtype=torch.uint8)})


def flipped(data: bytes, find: bytes, replace: bytes) -> bytes:
    assert data.count(find)
    return data.replace(find, replace, 1)


MEMO = b"\x8c\x06system\x94\x8c\x05posix\x940h\x01h\x00\x93\x8c\x04true\x85R."
TEMPLATE = "{{ ().__class__.__base__.__subclasses__() }}"
ONNX = b"\x0a\x08location\x12\x0a../../data"
FOLDERS: dict[str, Maker] = {
    "folder": changed(lambda copy: None),
    "link-outside": changed(lambda copy: (copy / "unet/extra.json").symlink_to("/etc/hostname")),
    "shard-outside": changed(
        lambda copy: (copy / "unet/x.safetensors.index.json").write_text('{"weight_map": {"a": "../../b.safetensors"}}')
    ),
    "pipe": changed(lambda copy: os.mkfifo(copy / "unet/pipe")),
    "circle": changed(lambda copy: (copy / "unet/me").symlink_to("me")),
    "colliding-names": changed(lambda copy: (copy / "unet/Config.json").write_text("{}")),
    "unprintable-name": changed(lambda copy: (copy / "unet/a\nb.txt").write_text("x")),
    "custom-pipeline": changed(lambda copy: (copy / "pipeline.py").write_text("x")),
    "component-code": changed(lambda copy: (copy / "unet/mine.py").write_text("x")),
    "foreign-class": edited("model_index.json", unet=["mine", "X"]),
    "custom-class-name": edited("model_index.json", _class_name=["pipeline", "Mine"]),
    "auto-map": edited("unet/config.json", auto_map={"a": "b.c"}),
    "kernel-url": edited("text_encoder/config.json", _attn_implementation="evil/kernel"),
    "hidden-adapter": changed(lambda copy: (copy / "text_encoder/adapter_config.json").write_text("{}")),
    "template": edited("tokenizer/tokenizer_config.json", chat_template=TEMPLATE),
    "chat-template": edited(
        "tokenizer/tokenizer_config.json", chat_template="{% for m in messages %}{{ m.x }}{% endfor %}"
    ),
    "json-repeated": changed(lambda copy: (copy / "unet/more.json").write_text('{"a": 1, "a": 2}')),
    "json-oversize": changed(lambda copy: (copy / "unet/more.json").write_text("[" + "[]," * 7_000_000 + "[]]")),
    "config-mismatch": edited("text_encoder/config.json", hidden_size=48),
    "nan-weights": changed(lambda copy: change_tensors(copy, break_numbers)),
    "dead-weights": changed(lambda copy: change_tensors(copy, lambda t: t.update({"dead": torch.zeros(64, 64)}))),
    "unexpected-tensor": changed(
        lambda copy: change_tensors(copy, lambda t: t.update({"a.lora_up.weight": torch.ones(2)}))
    ),
}
FILES: dict[str, Maker] = {
    "torch-zip": blob("model.bin", lambda: saved(STATE)),
    "torch-old": blob("model.pt", lambda: saved(STATE, _use_new_zipfile_serialization=False)),
    "checkpoint-of-training": blob(
        "model.ckpt", lambda: saved({"state_dict": STATE, "epoch": 3, "lr": np.float64(0.1), "sizes": {1, 2}})
    ),
    "safetensors": blob(
        "model.safetensors", lambda: safetensors.torch.save({"a": torch.arange(6.0), "b": torch.ones(3)})
    ),
    "safetensors-metadata": blob(
        "lora.safetensors",
        lambda: with_metadata(ss_tag_frequency='{"10_cat": {"a cat (os)": 3}}', url="https://x.example"),
    ),
    "gzip-text": blob("words.txt.gz", lambda: zlib.compress(b"a cat\n" * 1000, wbits=31)),
    "pickle-as-safetensors": blob("model.safetensors", b"\x80\x04K\x01."),
    "zip-as-json": blob("config.json", TORCH_LIKE),
    "program": blob("model.bin", b"\x7fELF" + bytes(100)),
    "pickle-system": blob("model.pkl", SYSTEM),
    "pickle-memo": blob("model.pkl", b"\x80\x04" + MEMO),
    "pickle-second": blob("model.pkl", b"\x80\x04N." + SYSTEM),
    "torch-zip-system": blob("model.pt", packed({"x/data.pkl": SYSTEM, "x/version": b"3"})),
    "pickle-broken-system": blob("model.bin", SYSTEM[:-1] + b"\xff\xff"),
    "pickle-nested": blob("model.pkl", b"\x80\x04C" + bytes([len(SYSTEM)]) + SYSTEM + b"."),
    "pickle-unknown": blob("model.pkl", b"\x80\x02cmy_package.models\nNet\n)R."),
    "numpy-objects": blob("model.npy", array_of_objects),
    "pickle-cut": blob("model.pkl", b"\x80\x02]q\x00(K\x01\xff\xff"),
    "pickle-protocol": blob("model.pkl", b"\x80\x09N."),
    "zip-two-names": blob("model.pt", flipped(TORCH_LIKE, b"data.pkl", b"date.pkl")),
    "zip-encrypted-mark": blob(
        "model.pt", flipped(TORCH_LIKE, b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")
    ),
    "zip-no-directory": blob("model.zip", TORCH_LIKE[: TORCH_LIKE.index(b"PK\x01\x02")]),
    "zip-hidden-entry": blob("model.pt", hidden),
    "zip-prefix": blob("model.pt", b"PK\x03\x04" + bytes(40) + TORCH_LIKE),
    "zip-twice": blob("model.pt", twice),
    "zip-bad-crc": blob("model.pt", TORCH_LIKE.replace(struct.pack("<L", zlib.crc32(b"3\n")), b"\1\2\3\4")),
    "zip-bomb": blob("model.npz", lambda: packed({"a": bytes(200 * 2**20)}, zipfile.ZIP_DEFLATED)),
    "gzip-bomb": blob("words.gz", lambda: zlib.compress(bytes(100 * 2**20), wbits=31)),
    "zip-slip": blob("model.zip", packed({"../../x": b"x"})),
    "zip-link": blob("model.zip", linked),
    "onnx-outside": blob("model.onnx", b"\x08\x07" + ONNX),
    "seven-zip": blob("model.bin", seven_zip),
    "header-overlap": blob("a.safetensors", with_header(described((0, 8), (4, 12)), bytes(12))),
    "header-gap": blob("a.safetensors", with_header(described((0, 8), (16, 24)), bytes(24))),
    "header-repeated": blob("a.safetensors", repeated),
    "header-trailing": blob("a.safetensors", with_header(described((0, 8)), bytes(9))),
    "header-shape": blob("a.safetensors", with_header(described((0, 8), shape=3), bytes(8))),
    "header-oversize": blob("a.safetensors", struct.pack("<Q", 2**31) + b"{" + bytes(100)),
    "header-blank": blob("a.safetensors", with_header(described((0, 8)), bytes(8), padding=" ")),
    "metadata-code": blob("a.safetensors", lambda: with_metadata(note="__import__('os').system('x')")),
    "metadata-encoded": blob("a.safetensors", lambda: with_metadata(note="gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOU")),
    "metadata-large": blob("a.safetensors", lambda: with_metadata(note="x" * 5_000_000)),
    "keras-lambda": blob("model.keras", packed({"config.json": b'{"layers": [{"class_name": "Lambda"}]}'})),
    "tensor-payload": blob("a.safetensors", elf_in_tensor),
    "deep-archives": blob("model.zip", lambda: nested(7)),
}
MAKERS: dict[str, Maker] = {
    **FOLDERS,
    **FILES,
    **{name: changed(change) for name, change in TOKENIZER_MAKERS.items()},
}
