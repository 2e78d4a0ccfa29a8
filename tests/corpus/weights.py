"""Benign weights, as people have them: safetensors, torch files and plain pickles that hold only numbers and text."""

from __future__ import annotations

import io
import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from tests.corpus.sample import Sample, writes

WIDTH = 8


def _values(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def layer(name: str = "conv_in", dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """The weight and bias of a layer of honest noise."""
    weight, bias = _values(WIDTH, WIDTH), _values(WIDTH)
    if not dtype.is_floating_point:
        weight, bias = (value * 20 for value in (weight, bias))
    return {f"{name}.weight": weight.to(dtype), f"{name}.bias": bias.to(dtype)}


def unet(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A few layers by the names of a UNet."""
    names = ("conv_in", "mid_block.attentions.0.proj_in", "down_blocks.0.resnets.0.conv1", "conv_out")
    return {key: value for name in names for key, value in layer(name, dtype).items()}


def safe(tensors: dict[str, torch.Tensor], **metadata: str) -> bytes:
    return bytes(safetensors.torch.save(tensors, metadata=metadata or None))


def saved(value: Any, *, legacy: bool = False, protocol: int = 2) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    return out.getvalue()


def _optimizer() -> dict[str, Any]:
    model = torch.nn.Linear(WIDTH, WIDTH)
    optimizer = torch.optim.AdamW(model.parameters())
    model(_values(2, WIDTH)).sum().backward()
    optimizer.step()
    return dict(optimizer.state_dict())


def _lightning() -> dict[str, Any]:
    """As PyTorch Lightning writes it, with hyper-parameters of plain types."""
    return {
        "epoch": 6,
        "global_step": 470_000,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": OrderedDict((f"model.diffusion_model.{key}", value) for key, value in unet().items()),
        "loops": None,
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.25), "dirpath": "logs/checkpoints"}},
        "optimizer_states": [_optimizer()],
        "lr_schedulers": [{"last_epoch": 6, "_step_count": 7, "base_lrs": [1e-4]}],
        "hyper_parameters": {"lr": 1e-4, "betas": (0.9, 0.999), "name": "run", "tags": ["a", "b"], "ema": True},
    }


def _random_states() -> dict[str, Any]:
    """As accelerate keeps them."""
    return {"torch_manual_seed": torch.get_rng_state(), "numpy_random_seed": np.random.RandomState(0).get_state()}


def _kohya_lora() -> dict[str, torch.Tensor]:
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    return {
        f"{stem}.lora_down.weight": _values(4, WIDTH),
        f"{stem}.lora_up.weight": torch.zeros(WIDTH, 4),  # as it is before training
        f"{stem}.alpha": torch.tensor(4.0),
    }


def _peft_lora() -> dict[str, torch.Tensor]:
    stem = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    return {f"{stem}.lora_A.weight": _values(4, WIDTH), f"{stem}.lora_B.weight": _values(WIDTH, 4)}


def _a1111() -> dict[str, Any]:
    """A textual inversion as the web interface writes it."""
    return {
        "string_to_token": {"*": torch.tensor(265)},
        "string_to_param": {"*": _values(2, WIDTH)},
        "name": "my-style",
        "step": 4_000,
        "sd_checkpoint": "81761151",
        "sd_checkpoint_name": "v1-5-pruned-emaonly",
    }


KOHYA = {
    "ss_network_module": "networks.lora",
    "ss_network_args": json.dumps({"conv_dim": "4", "algo": "lora"}),
    "ss_tag_frequency": json.dumps({"10_cat": {"1girl, cat": 10, "from above": 3}}),
    "ss_optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1)",
    "ss_base_model_version": "sd_v1",
    "ss_training_comment": "trained on 20 pictures of my cat; see https://example.org/cat",
    "modelspec.architecture": "stable-diffusion-v1/lora",
    "modelspec.thumbnail": "data:image/jpeg;base64," + "/9j/4AAQSkZJRg" * 300,
    "sshs_model_hash": "0" * 64,
}
MERGE = {
    "sd_merge_recipe": json.dumps({"type": "webui", "interp_method": "Weighted sum", "multiplier": 0.3}),
    "format": "pt",
}
DTYPES = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f8-e4m3": torch.float8_e4m3fn,
    "f8-e5m2": torch.float8_e5m2,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
}
TORCH_DTYPES = ("f32", "f16", "bf16", "i8", "i64", "bool", "f64", "u8")

# id, file name, what it is, its bytes
_SAFE: tuple[tuple[str, str, str, Callable[[], bytes]], ...] = (
    *((f"safe-{name}", "model.safetensors", f"tensors of {dtype}", lambda d=dtype: safe(layer(dtype=d))) for name, dtype in DTYPES.items()),
    ("safe-scalar", "model.safetensors", "a scalar", lambda: safe({"alpha": torch.tensor(4.0), **layer()})),
    ("safe-no-elements", "model.safetensors", "a tensor without elements", lambda: safe({"none": torch.zeros(0, 4), **layer()})),
    ("safe-zero-bias", "model.safetensors", "a bias of zeros", lambda: safe({**layer(), "norm.bias": torch.zeros(WIDTH)})),
    ("safe-one-weight", "model.safetensors", "a norm's weight of ones", lambda: safe({**layer(), "norm.weight": torch.ones(WIDTH)})),
    ("safe-many", "model.safetensors", "2,000 tensors", lambda: safe({f"layer.{n}.weight": _values(2) for n in range(2000)})),
    ("safe-none", "model.safetensors", "no tensors", lambda: safe({})),
    ("safe-metadata", "model.safetensors", "metadata", lambda: safe(layer(), format="pt")),
    ("safe-unicode", "model.safetensors", "metadata in other scripts", lambda: safe(layer(), title="水彩画スタイル · été 🎨")),
    ("safe-merge", "model.safetensors", "a merge with its recipe", lambda: safe(unet(), **MERGE)),
    ("safe-single-file", "v1-5-pruned.safetensors", "a single-file layout", lambda: safe({f"model.diffusion_model.{k}": v for k, v in unet(torch.float16).items()})),
    ("safe-fp16", "diffusion_pytorch_model.fp16.safetensors", "a UNet in half precision", lambda: safe(unet(torch.float16))),
    ("lora-kohya", "cat_v2.safetensors", "a LoRA of Kohya's layout", lambda: safe(_kohya_lora(), **KOHYA)),
    ("lora-peft", "pytorch_lora_weights.safetensors", "a LoRA of PEFT's layout", lambda: safe(_peft_lora(), format="pt")),
    ("embedding-safe", "my-style.safetensors", "a textual inversion", lambda: safe({"emb_params": _values(2, WIDTH)})),
    ("embedding-sdxl", "my-style-xl.safetensors", "a textual inversion for SDXL", lambda: safe({"clip_g": _values(2, 16), "clip_l": _values(2, WIDTH)})),
)  # fmt: skip

_TORCH: tuple[tuple[str, str, str, Callable[[], bytes]], ...] = (
    *((f"torch-{name}", "model.pt", f"tensors of {DTYPES[name]}", lambda n=name: saved(layer(dtype=DTYPES[n]))) for name in TORCH_DTYPES),
    *((f"legacy-{name}", "model.pt", f"torch's old stream of {DTYPES[name]}", lambda n=name: saved(layer(dtype=DTYPES[n]), legacy=True)) for name in TORCH_DTYPES[:5]),
    *((f"torch-protocol-{n}", "model.pt", f"pickled by protocol {n}", lambda n=n: saved(layer(), protocol=n)) for n in (2, 3, 4, 5)),
    ("torch-ordered", "pytorch_model.bin", "an OrderedDict", lambda: saved(OrderedDict(unet()))),
    ("torch-module", "diffusion_pytorch_model.bin", "a module's state", lambda: saved(torch.nn.Linear(4, 4).state_dict())),
    ("torch-nested", "model.pth", "nested state dicts", lambda: saved({"params_ema": layer(), "params": {"net": layer()}})),
    ("torch-parameter", "model.pt", "parameters", lambda: saved({"w": torch.nn.Parameter(_values(4))})),
    ("torch-shared", "model.pt", "views of one storage", lambda: saved({"a": (w := _values(4, 4)), "b": w[1:3], "c": w.T})),
    ("torch-empty", "model.pt", "an empty dictionary", lambda: saved({})),
    ("torch-list", "model.pt", "a list of tensors", lambda: saved([_values(3), (_values(2), 1.5, None, "text")])),
    ("torch-scalar", "model.pt", "numbers and text beside tensors", lambda: saved({**layer(), "step": 7, "lr": 1e-4, "done": True, "name": "x"})),
    ("torch-size", "model.pt", "a shape as a value", lambda: saved({**layer(), "shape": torch.Size([1, 2])})),
    ("torch-dtype", "model.pt", "a type and a device as values", lambda: saved({**layer(), "dtype": torch.float16, "device": torch.device("cpu")})),
    ("torch-optimizer", "optimizer.pt", "an optimizer's state", lambda: saved(_optimizer())),
    ("torch-optimizer-bin", "optimizer.bin", "an optimizer's state", lambda: saved({"state": _optimizer(), "step": 3}, legacy=True)),
    ("torch-scheduler", "scheduler.bin", "a scheduler's state", lambda: saved({"base_lrs": [1e-4], "last_epoch": 9, "_last_lr": [1e-4]})),
    ("torch-scaler", "scaler.pt", "a gradient scaler's state", lambda: saved({"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3})),
    ("torch-lightning", "last.ckpt", "a checkpoint of PyTorch Lightning", lambda: saved(_lightning())),
    ("torch-lightning-old", "model.ckpt", "the same in the old stream", lambda: saved(_lightning(), legacy=True)),
    ("torch-numpy-scalar", "model.pt", "a numpy scalar", lambda: saved({**layer(), "score": np.float64(0.5), "n": np.int64(3)})),
    ("torch-numpy-array", "model.pt", "a numpy array", lambda: saved({**layer(), "betas": np.linspace(0, 1, 9)})),
    ("torch-ema", "ema.ckpt", "averaged weights", lambda: saved({"state_dict": {f"model_ema.{k}": v for k, v in layer().items()}})),
    ("torch-sparse", "model.pt", "a sparse tensor", lambda: saved({"a": torch.eye(4).to_sparse()})),
    ("torch-ip-adapter", "ip-adapter.bin", "an image adapter", lambda: saved({"image_proj": layer("proj"), "ip_adapter": layer("1.to_k_ip")})),
    ("torch-vae", "vae-ft-mse.vae.pt", "a VAE", lambda: saved({"state_dict": layer("decoder.conv_in")})),
    ("torch-lora", "pytorch_lora_weights.bin", "a LoRA", lambda: saved(_peft_lora())),
    ("embedding-a1111", "my-style.pt", "a textual inversion of the web interface", lambda: saved(_a1111())),
    ("embedding-bin", "learned_embeds.bin", "a textual inversion of diffusers", lambda: saved({"<my-style>": _values(WIDTH)})),
    ("embedding-old", "my-style.pt", "one in the old stream", lambda: saved(_a1111(), legacy=True)),
    ("hypernetwork", "anime.pt", "a hypernetwork", lambda: saved({320: [layer(), layer()], "name": "anime", "step": 10})),
    ("random-states", "random_states_0.pkl", "the random states of a training run", lambda: saved(_random_states())),
)  # fmt: skip


def _npz(*, packed: bool) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(out, mean=np.zeros(9), deviation=np.arange(9.0))
    return out.getvalue()


def _npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


PLAIN = {"a": [1, 2.5, "text", None, True], "b": ("x", b"y"), "c": {"d": 10**30}, "e": -7}
RECORDS = np.array([(1, 2.0, "a")], dtype=[("id", "i4"), ("score", "f8"), ("name", "U4")])

_PLAIN: tuple[tuple[str, str, str, Callable[[], bytes]], ...] = (
    *((f"pickle-{n}", "data.pkl", f"plain values, protocol {n}", lambda n=n: pickle.dumps(PLAIN, n)) for n in (3, 4, 5)),
    *((f"pickle-{n}", "data.pkl", f"plain values, protocol {n}", lambda n=n: pickle.dumps([1, "text", 2.5], n)) for n in (0, 1, 2)),
    ("pickle-ordered", "data.pkl", "an OrderedDict", lambda: pickle.dumps(OrderedDict(a=1, b=2))),
    ("pickle-numpy", "data.pkl", "a numpy array", lambda: pickle.dumps(np.arange(6.0).reshape(2, 3), 4)),
    ("pickle-set", "data.pkl", "sets", lambda: pickle.dumps({"a": {1, 2}, "b": frozenset({3})}, 4)),
    ("pickle-two", "data.pkl", "two plain pickles", lambda: pickle.dumps([1]) + pickle.dumps({"a": 2})),
    ("npy-floats", "latents.npy", "an array of numbers", lambda: _npy(np.arange(12.0).reshape(3, 4))),
    ("npy-text", "names.npy", "an array of text", lambda: _npy(np.array(["cat", "dog"]))),
    ("npy-records", "table.npy", "an array of records", lambda: _npy(RECORDS)),
    ("npy-bools", "mask.npy", "an array of truth values", lambda: _npy(np.eye(3, dtype=bool))),
    ("npz", "statistics.npz", "arrays of numbers", lambda: _npz(packed=False)),
    ("npz-packed", "statistics.npz", "arrays of numbers, compressed", lambda: _npz(packed=True)),
)  # fmt: skip


def _always(data: Callable[[], bytes]) -> Callable[[Path], bytes]:
    return lambda canary: data()


WEIGHTS = tuple(
    Sample(f"benign-{name}", file, what, writes(_always(data))) for name, file, what, data in _SAFE + _TORCH + _PLAIN
)
