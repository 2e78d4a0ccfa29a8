"""Loading hostile and damaged folders: a clear error, never a traceback, never foreign code."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint, UnsafeFile
from tests.checkpoint.spoiling import TEXT, UNET, edit_json, edit_tensors, fails, load


@pytest.mark.parametrize("component", ["tokenizer", "text_encoder", "unet", "vae", "scheduler"])
def test_missing_components(component: str, copy_of: Path) -> None:
    shutil.rmtree(copy_of / component)
    fails(copy_of, NotACheckpoint, component)


@pytest.mark.parametrize("component", ["tokenizer", "text_encoder", "unet", "vae", "scheduler"])
@pytest.mark.parametrize("value", [..., [None, None], None, "x", 1.5])
def test_components_missing_from_the_index(component: str, value: Any, copy_of: Path) -> None:
    edit_json(copy_of / "model_index.json", **{component: value})
    fails(copy_of, NotACheckpoint, component)


@pytest.mark.parametrize("path", [UNET, TEXT, "unet/config.json", "tokenizer/tokenizer.json"])
def test_missing_files(path: str, copy_of: Path) -> None:
    (copy_of / path).unlink()
    fails(copy_of, NotACheckpoint)


@pytest.mark.parametrize(
    "path", [UNET, "unet/config.json", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"]
)
def test_links_that_leave_the_folder(path: str, copy_of: Path, tmp_path: Path) -> None:
    shutil.move(copy_of / path, tmp_path / "outside")
    (copy_of / path).symlink_to(tmp_path / "outside")
    fails(copy_of, UnsafeFile, "leaves the folder")


def test_pickle_only(copy_of: Path) -> None:
    (copy_of / UNET).rename(copy_of / "unet/diffusion_pytorch_model.bin")
    fails(copy_of, UnsafeFile, "pickle")


def test_variant_only(copy_of: Path) -> None:
    (copy_of / UNET).rename(copy_of / "unet/diffusion_pytorch_model.fp16.safetensors")
    fails(copy_of, UnsafeFile, "--variant fp16")
    assert (
        load_model(open_checkpoint(copy_of, variant="fp16"))
        .disk_tensor("unet", "conv_in.bias")
        .file.endswith("fp16.safetensors")
    )


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"PK\x03\x04" + b"\0" * 100])
def test_weights_that_are_no_safetensors(content: bytes, copy_of: Path) -> None:
    (copy_of / UNET).write_bytes(content)
    fails(copy_of, DamagedFile)


def test_truncated_weights(copy_of: Path) -> None:
    data = (copy_of / UNET).read_bytes()
    (copy_of / UNET).write_bytes(data[:-1000])
    fails(copy_of, DamagedFile, "ends after")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers(value: float, copy_of: Path) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors["conv_in.weight"][0, 0, 0, 0] = value
        return tensors

    edit_tensors(copy_of / UNET, poison)
    fails(copy_of, DamagedFile, "not numbers")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {**t, "conv_in.weight": torch.zeros(3, 3)}, "conv_in.weight"),
        (lambda t: {**t, "conv_in.weight": t["conv_in.weight"].to(torch.int8)}, "floating-point"),
        (lambda t: {**t, "extra\x1b[31m": torch.zeros(1)}, "does not ask for"),
        (lambda t: {k: v for k, v in t.items() if k != "conv_in.weight"}, "lacks 1 of"),
        (lambda t: {**t, "text_model.conv_in.weight": t["conv_in.weight"].clone()}, "twice"),
    ],
)
def test_weights_that_do_not_fit(change: Any, words: str, copy_of: Path) -> None:
    edit_tensors(copy_of / UNET, change)
    fails(copy_of, DamagedFile, words)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("unet", {"block_out_channels": [2**40, 2**40]}),
        ("unet", {"block_out_channels": [64, 128]}),
        ("unet", {"layers_per_block": 10**9}),
        ("unet", {"layers_per_block": "many"}),
        ("unet", {"transformer_layers_per_block": [[10**9]]}),
        ("unet", {"down_block_types": ["os.system", "x"]}),
        ("unet", {"attention_head_dim": 0}),
        ("unet", {"norm_num_groups": 7}),
        ("unet", {"cross_attention_dim": 48}),
        ("unet", {"sample_size": 10**9}),
        ("unet", {"sample_size": None}),
        ("unet", {"act_fn": "\x1b[31mred"}),
        ("text_encoder", {"vocab_size": 10}),
        ("text_encoder", {"num_hidden_layers": 10**9}),
        ("text_encoder", {"hidden_act": "exec"}),
        ("text_encoder", {"max_position_embeddings": 8}),
        ("text_encoder", {"use_attention_mask": True}),
        ("text_encoder", {"num_attention_heads": 5}),
        ("text_encoder", {"layer_norm_eps": "x"}),
        ("text_encoder", {"layer_norm_eps": float("nan")}),
        ("vae", {"latent_channels": 5}),
        ("vae", {"scaling_factor": 0}),
        ("vae", {"scaling_factor": "x"}),
        ("vae", {"norm_num_groups": 0}),
    ],
)
def test_configurations_that_do_not_fit(file: str, changes: dict[str, Any], copy_of: Path) -> None:
    edit_json(copy_of / file / "config.json", **changes)
    fails(copy_of, DamagedFile)


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"layers_per_block": 10**9}, "can be built: it has more layers than tensors."),
        ({"down_block_types": None}, "can be built."),
        ({"down_block_types": ["\x1b[2J" * 99, "x"]}, "can be built."),
    ],
)
def test_nothing_is_told_in_the_libraries_words(changes: dict[str, Any], end: str, copy_of: Path) -> None:
    edit_json(copy_of / "unet/config.json", **changes)
    with pytest.raises(DamagedFile) as caught:
        load(copy_of)
    assert str(caught.value) == f"{copy_of}/unet/config.json does not describe a model that {end}"


@pytest.mark.parametrize(
    "changes",
    [
        {"num_train_timesteps": 10**12},
        {"num_train_timesteps": 0},
        {"num_train_timesteps": "x"},
        {"beta_schedule": "x"},
        {"beta_end": float("nan")},
        {"beta_end": 2.0},
        {"trained_betas": [0.1] * 200_000},
        {"trained_betas": {}},
        {"prediction_type": "x"},
        {"timestep_spacing": "x"},
    ],
)
def test_schedules_that_cannot_be(changes: dict[str, Any], copy_of: Path) -> None:
    edit_json(copy_of / "scheduler/scheduler_config.json", **changes)
    fails(copy_of, DamagedFile)


@pytest.mark.parametrize(
    "changes",
    [
        {"in_channels": 9},
        {"class_embed_type": "timestep"},
        {"addition_embed_type": "text_time"},
    ],
)
def test_other_kinds_of_unet(changes: dict[str, Any], copy_of: Path) -> None:
    edit_json(copy_of / "unet/config.json", **changes)
    with pytest.raises(CheckpointError):
        load(copy_of)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"_class_name": "StableDiffusionXLPipeline"}, NotACheckpoint),
        ({"_class_name": ["pipeline", "Mine"]}, NotACheckpoint),
        ({"_class_name": ...}, NotACheckpoint),
        ({"unet": ["my_unet", "UNet2DConditionModel"]}, UnsafeFile),
        ({"unet": ["diffusers", "DiffusionPipeline"]}, UnsafeFile),
        ({"scheduler": ["os", "system"]}, UnsafeFile),
        ({"scheduler": ["diffusers", "__dict__"]}, UnsafeFile),
        ({"safety_checker": ["evil", "Checker"]}, UnsafeFile),
        ({"unet": ["diffusers.models", "UNet2DConditionModel"]}, UnsafeFile),
        ({"unet": ["diffusers", "models"]}, UnsafeFile),
        ({"unet": ["diffusers", "FluxTransformer2DModel"]}, NotACheckpoint),
        ({"unet": ["diffusers", "FlaxUNet2DConditionModel"]}, NotACheckpoint),
        ({"text_encoder": ["transformers", "CLIPTextModelWithProjection"]}, NotACheckpoint),
        ({"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}, NotACheckpoint),
        ({"more": ["diffusers", "UNet2DConditionModel"]}, NotACheckpoint),
        ({"unet": {"a": 1}}, UnsafeFile),
        ({"unet": ["diffusers", ["x"]]}, UnsafeFile),
        ({"unet": [["diffusers"], "UNet2DConditionModel"]}, UnsafeFile),
    ],
)
def test_foreign_classes(changes: dict[str, Any], kind: type[CheckpointError], copy_of: Path) -> None:
    edit_json(copy_of / "model_index.json", **changes)
    fails(copy_of, kind)
