"""Benign things that lie around weights: texts, pictures, settings, tokenizers, archives and whole folders."""

from __future__ import annotations

import functools
import gzip
import io
import json
import struct
import tarfile
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from sau_scan.checkpoint import shipped
from tests.corpus.folders import FAST, SETTINGS, UNET, edit, honest, put, tampered
from tests.corpus.formats import gguf, hdf5, keras, keras_config, onnx
from tests.corpus.sample import Sample, writes
from tests.corpus.weights import layer, safe, saved
from tests.corpus.zips import Entry, zip_bytes

ENCODER = "text_encoder/model.safetensors"
README = """---
license: creativeml-openrail-m
tags: [text-to-image, stable-diffusion]
widget:
  - text: "a photo of a cat, {style}"
---
# My style
```python
import os
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained("someone/my-style", torch_dtype=torch.float16)
os.system("nvidia-smi")
image = pipe("a photo of a cat").images[0]
```
Prompts such as `{{character}}, {red|blue} hair` work well. Trained with `pickle`-free safetensors.
"""
YAML = """model:
  base_learning_rate: 1.0e-04
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
"""
CHAT = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}{% endfor %}"
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "unet": {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.21.0", "block_out_channels": [320, 640]},
    "vae": {"_class_name": "AutoencoderKL", "scaling_factor": 0.18215, "latent_channels": 4},
    "text-encoder": {"architectures": ["CLIPTextModel"], "_name_or_path": "openai/clip-vit-large-patch14", "torch_dtype": "float16"},
    "scheduler": {"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "skip_prk_steps": True},
    "flow-scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    "preprocessor": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}},
    "model-index": {"_class_name": "StableDiffusionXLPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "force_zeros_for_empty_prompt": True},
    "generation": {"transformers_version": "4.40.0", "eos_token_id": 1},
    "adapter": {"peft_type": "LORA", "r": 4, "target_modules": ["to_k", "to_v"], "base_model_name_or_path": "runwayml/stable-diffusion-v1-5"},
    "attention": {"architectures": ["T5EncoderModel"], "_attn_implementation": "sdpa", "auto_map": None},
}  # fmt: skip


def _picture(kind: str) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((32, 32)).convert("RGB").save(out, kind)
    return out.getvalue()


def _sound() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(range(256)))
    return out.getvalue()


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        info = tarfile.TarInfo("pictures/0.png")
        data = _picture("PNG")
        info.size = len(data)
        file.addfile(info, io.BytesIO(data))
    return out.getvalue()


@functools.cache
def clip_merges() -> list[str]:
    """The real merges of CLIP."""
    packed = (Path(shipped.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    return gzip.decompress(packed).decode().split("\n")[1 : 49152 - 256 - 2 + 1]


def clip_vocabulary(merges: list[str]) -> dict[str, int]:
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    return {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}


def _tokenizer(*, fast: bool, word: str = "") -> Callable[[Path, Path], None]:
    """A folder with CLIP's tokenizer; ``word`` is an added one, as textual inversion adds."""

    def build(path: Path, _: Path) -> None:
        from transformers import CLIPTokenizer

        merges = clip_merges()
        vocabulary = clip_vocabulary(merges)
        path.mkdir()
        if not fast:
            (path / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
            (path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
            (path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<|startoftext|>"}))
            (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
            return
        pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
        tokenizer = CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=77)
        if word:
            tokenizer.add_tokens([word])
        tokenizer.save_pretrained(path)

    return build


def _tensors(folder: Path, name: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / name)


def _sharded(folder: Path, _: Path) -> None:
    table = _tensors(folder, UNET)
    (folder / UNET).unlink()
    files = {}
    for number in (0, 1):
        name = f"diffusion_pytorch_model-0000{number + 1}-of-00002.safetensors"
        part = {key: value for place, (key, value) in enumerate(table.items()) if place % 2 == number}
        (folder / "unet" / name).write_bytes(safe(part, format="pt"))
        files.update(dict.fromkeys(part, name))
    index = {"metadata": {"total_size": sum(value.nbytes for value in table.values())}, "weight_map": files}
    (folder / f"{UNET}.index.json").write_text(json.dumps(index))


def _bin_beside(folder: Path, _: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(saved(_tensors(folder, UNET)))


def _further_word(folder: Path, canary: Path) -> None:
    """A token as textual inversion adds it, with its row in the text encoder."""
    import torch

    table = _tensors(folder, ENCODER)
    name = next(key for key in table if key.endswith("token_embedding.weight"))
    table[name] = torch.cat([table[name], table[name][:1] * 0.5])
    (folder / ENCODER).write_bytes(safe(table, format="pt"))
    new = {"id": len(table[name]) - 1, "content": "<my-style>", "special": False}
    edit(FAST, added_tokens=lambda old: [*old, {**old[-1], **new}])(folder, canary)
    edit("text_encoder/config.json", vocab_size=len(table[name]))(folder, canary)


def _half(folder: Path, _: Path) -> None:
    table = {key: value.half() for key, value in _tensors(folder, UNET).items()}
    (folder / UNET.replace(".safetensors", ".fp16.safetensors")).write_bytes(safe(table, format="pt"))


def _link_inside(folder: Path, _: Path) -> None:
    """As the hub's cache keeps files: links to blobs, here of the same folder."""
    (folder / "blobs").mkdir()
    (folder / UNET).rename(folder / "blobs" / "a1b2c3")
    (folder / UNET).symlink_to("../blobs/a1b2c3")


def _honest(path: Path, _: Path) -> None:
    honest(path)


# id, file name, what it is, its bytes
_FILES: tuple[tuple[str, str, str, Callable[[], bytes | str]], ...] = (
    *((f"config-{name}", "config.json", f"settings of {name}", lambda t=table: json.dumps(t, indent=2)) for name, table in CONFIGURATIONS.items()),
    *((f"picture-{kind}", f"preview.{kind.lower()}", f"a picture, {kind}", lambda k=kind: _picture(k)) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")),
    ("readme", "README.md", "a model card with code", lambda: README),
    ("licence", "LICENSE", "a licence", lambda: "CreativeML Open RAIL-M\n\nSection I: PREAMBLE\n" * 40),
    ("copyright", "LICENSE.txt", "a licence that starts like opcodes", lambda: "Copyright (c) 2022 Someone\n\nPermission is hereby granted\n" * 9),
    ("mit", "LICENSE", "another licence", lambda: "MIT License\n\nCopyright (c) 2023\n"),
    ("words", "words.txt", "words, one a line", lambda: "cat\ndog\nhouse\nstar.\n"),
    ("brackets", "prompt.txt", "a prompt in brackets", lambda: "(((best quality))), (smile:1.2)\nVintage photo.\n"),
    ("digits", "seeds.txt", "numbers, one a line", lambda: "".join(f"I{n}\n" for n in range(99))),
    ("index", "INSTALL", "how to install", lambda: "Install it with pip:\n\n    pip install diffusers\n"),
    ("attributes", ".gitattributes", "which files git keeps elsewhere", lambda: "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"),
    ("ignore", ".gitignore", "which files git leaves out", lambda: "__pycache__/\n*.pyc\n"),
    ("yaml", "v1-inference.yaml", "settings of CompVis", lambda: YAML),
    ("prompts", "prompts.txt", "prompts", lambda: "a cat, {red|blue} hat\n(masterpiece:1.2), import car, exec suit\n"),
    ("table", "metadata.csv", "a table of captions", lambda: "file,text\n0.png,a cat\n"),
    ("lines", "metadata.jsonl", "captions, one a line", lambda: '{"file_name": "0.png", "text": "a cat"}\n' * 9),
    ("svg", "logo.svg", "a drawing", lambda: '<svg xmlns="http://www.w3.org/2000/svg"><circle r="9"/></svg>'),
    ("toml", "training.toml", "settings of a training run", lambda: 'optimizer = "AdamW8bit"\nlearning_rate = 1e-4\n'),
    ("state", "trainer_state.json", "the state of a training run", lambda: json.dumps({"epoch": 1.0, "log_history": [{"loss": 0.1}]})),
    ("sound", "sample.wav", "a sound", _sound),
    ("video", "sample.mp4", "a film", lambda: b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(99)),
    ("pdf", "paper.pdf", "a paper", lambda: b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"),
    ("onnx", "model.onnx", "a model with its data inside", onnx),
    ("onnx-beside", "model.onnx", "a model with its data in the same folder", lambda: onnx(("location", "model.onnx_data"))),
    ("gguf", "model.gguf", "a model with an ordinary chat template", lambda: gguf(CHAT)),
    ("keras", "model.keras", "a Keras model of plain layers", lambda: keras(None)),
    ("keras-h5", "model.h5", "a Keras model of plain layers, HDF5", lambda: hdf5(keras_config(None))),
    ("raw", "noise.raw", "numbers without a format", lambda: struct.pack("<64f", *range(64))),
    ("events", "events.out.tfevents.1700000000.host", "a training log", lambda: struct.pack("<QI", 24, 7) + bytes(40)),
    ("zip-pictures", "training-data.zip", "pictures and captions", lambda: zip_bytes(Entry("0.png", _picture("PNG")), Entry("0.txt", b"a cat", deflate=True))),
    ("zip-weights", "my-style.zip", "weights and a text", lambda: zip_bytes(Entry("my-style.safetensors", safe(layer())), Entry("README.md", README.encode(), deflate=True))),
    ("zip-torch", "my-style.zip", "a torch file in a zip", lambda: zip_bytes(Entry("my-style.pt", saved(layer())))),
    ("tar-pictures", "training-data.tar", "pictures", _tar),
    ("gzip-text", "captions.txt.gz", "captions, compressed", lambda: gzip.compress(b"a cat\n" * 99)),
    ("empty-text", "notes.txt", "an empty text", lambda: ""),
    ("checksum", "model.safetensors.sha256", "a checksum", lambda: "0" * 64 + "  model.safetensors\n"),
)  # fmt: skip

_FOLDERS: tuple[tuple[str, str, Callable[[Path, Path], Any]], ...] = (
    ("tiny", "a tiny Stable Diffusion", _honest),
    ("variant", "one with weights in half precision beside", tampered(_half)),
    ("sharded", "one in shards", tampered(_sharded)),
    ("readme", "one with a model card, licence and picture", tampered(put("README.md", README), put("LICENSE", "MIT"), put("preview.png", _picture("PNG")))),
    ("bin-beside", "one with a torch file beside safetensors", tampered(_bin_beside)),
    ("cache", "one with what the hub's client leaves", tampered(put(".cache/huggingface/download/model_index.json.metadata", "a1b2\n0000\n1700000000.0\n"))),
    ("links", "one with links inside the folder", tampered(_link_inside)),
    ("extra-word", "one whose tokenizer has a further token", tampered(_further_word)),
    ("settings", "one with ordinary further settings", tampered(edit(SETTINGS, clean_up_tokenization_spaces=False, do_lower_case=True))),
    ("names", "one with names in other scripts", tampered(put("пример.txt", "x"), put("例/メモ.txt", "x"), put("my file (1).txt", "x"))),
)  # fmt: skip

_TOKENIZERS: tuple[tuple[str, str, Callable[[Path, Path], None]], ...] = (
    ("clip", "CLIP's tokenizer", _tokenizer(fast=True)),
    ("clip-tables", "CLIP's tokenizer as two tables", _tokenizer(fast=False)),
    ("clip-word", "CLIP's tokenizer and a further token", _tokenizer(fast=True, word="<my-style>")),
)


def _bytes(data: Callable[[], bytes | str]) -> Callable[[Path], bytes]:
    def given(_: Path) -> bytes:
        content = data()
        return content if isinstance(content, bytes) else content.encode()

    return given


THINGS = (
    *(Sample(f"benign-{name}", file, what, writes(_bytes(data))) for name, file, what, data in _FILES),
    *(Sample(f"benign-folder-{name}", "model", what, make) for name, what, make in _FOLDERS),
    *(Sample(f"benign-tokenizer-{name}", "tokenizer", what, make) for name, what, make in _TOKENIZERS),
)
