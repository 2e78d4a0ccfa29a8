"""Loading hostile and damaged folders: a clear error, never a traceback, never foreign code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint, UnsafeFile, UsageError

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def edit_json(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text())
    value.update(changes)
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not ...}))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path, metadata={"format": "pt"})


def load(path: Path, **options: Any) -> Any:
    return load_model(open_checkpoint(path), **options)


def fails(path: Path, kind: type[CheckpointError], words: str = "") -> None:
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert type(caught.value) is kind, caught.value
    assert words in str(caught.value) and caught.value.hint
    assert str(caught.value).isprintable()


def test_loads_frozen_and_in_eval_mode(tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint)
    assert model.family.id == "sd1" and model.dtype == torch.float32
    for module in (model.text_encoder, model.unet, model.vae):
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_every_parameter_has_its_place_on_disk(tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint)
    for component in ("text_encoder", "unet", "vae"):
        for name, value in getattr(model, component).state_dict().items():
            ref = model.disk_tensor(component, name)
            stored = safetensors.torch.load_file(tiny_checkpoint / ref.file)[ref.name]
            assert torch.equal(stored, value)
    with pytest.raises(KeyError):
        model.disk_tensor("unet", "nothing.weight")


def test_both_spellings_of_the_text_encoder(copy_of: Path) -> None:
    plain = load(copy_of)
    old = {"text_model.embeddings.position_ids": torch.arange(16)[None]}
    edit_tensors(copy_of / TEXT, lambda t: {**{f"text_model.{k}": v for k, v in t.items()}, **old})
    model = load(copy_of)
    for spelling in ("final_layer_norm.bias", "text_model.final_layer_norm.bias"):
        assert model.disk_tensor("text_encoder", spelling).name == "text_model.final_layer_norm.bias"
        assert plain.disk_tensor("text_encoder", spelling).name == "final_layer_norm.bias"
    ids = model.token_ids(["a cat"])
    assert torch.equal(model.encode(ids).hidden, plain.encode(ids).hidden)


def test_old_names_of_the_vae(copy_of: Path) -> None:
    plain = load(copy_of)
    new_to_old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        renamed = {}
        for name, value in tensors.items():
            for new, old in new_to_old.items():
                name = name.replace(f".{new}.", f".{old}.")
            renamed[name] = value
        assert renamed.keys() != tensors.keys()
        return renamed

    edit_tensors(copy_of / "vae/diffusion_pytorch_model.safetensors", rename)
    latents = torch.randn(1, *plain.latent_shape)
    assert torch.equal(load(copy_of).decode(latents), plain.decode(latents))


def test_shards(copy_of: Path) -> None:
    tensors = safetensors.torch.load_file(copy_of / UNET)
    (copy_of / UNET).unlink()
    names, stem = sorted(tensors), "diffusion_pytorch_model"
    halves = {f"{stem}-00001-of-00002.safetensors": names[:100], f"{stem}-00002-of-00002.safetensors": names[100:]}
    for file, part in halves.items():
        safetensors.torch.save_file({name: tensors[name] for name in part}, copy_of / "unet" / file)
    table = {name: file for file, part in halves.items() for name in part}
    index = copy_of / f"unet/{stem}.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": table}))
    model = load(copy_of)
    assert torch.equal(model.unet.state_dict()[names[0]], tensors[names[0]])
    assert model.disk_tensor("unet", names[-1]).file == f"unet/{stem}-00002-of-00002.safetensors"
    # A whole file beside the shards: libraries differ in which they would load.
    safetensors.torch.save_file(tensors, copy_of / UNET)
    fails(copy_of, DamagedFile, "does not list")
    (copy_of / UNET).unlink()
    index.write_text(json.dumps({"weight_map": {**table, "x": "../vae/diffusion_pytorch_model.safetensors"}}))
    fails(copy_of, DamagedFile, "does not list")


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
        ({"more": ["diffusers", "UNet2DConditionModel"]}, UnsafeFile),
        ({"unet": {"a": 1}}, UnsafeFile),
        ({"unet": ["diffusers", ["x"]]}, UnsafeFile),
        ({"unet": [["diffusers"], "UNet2DConditionModel"]}, UnsafeFile),
    ],
)
def test_foreign_classes(changes: dict[str, Any], kind: type[CheckpointError], copy_of: Path) -> None:
    edit_json(copy_of / "model_index.json", **changes)
    fails(copy_of, kind)


def test_custom_code_is_never_run(copy_of: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w')\nclass Mine: pass\n"
    for path in ("pipeline.py", "unet/my_unet.py", "tokenizer/tok.py", "text_encoder/modeling.py"):
        (copy_of / path).write_text(code)
    edit_json(copy_of / "tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["tok.Mine", None]})
    edit_json(copy_of / "text_encoder/config.json", auto_map={"AutoModel": "modeling.Mine"})
    edit_json(copy_of / "unet/config.json", auto_map={"AutoModel": "my_unet.Mine"}, _class_name="Mine")
    load(copy_of)
    assert not marker.exists()


def test_attention_kernels_are_not_fetched(copy_of: Path) -> None:
    edit_json(
        copy_of / "text_encoder/config.json", _attn_implementation="evil/kernel", attn_implementation="evil/kernel"
    )
    assert load(copy_of).text_encoder.config._attn_implementation in {"sdpa", "eager"}


@pytest.mark.parametrize(("options", "words"), [({"device": "nowhere"}, "nowhere"), ({"dtype": "float7"}, "float7")])
def test_unknown_device_or_type(options: dict[str, str], words: str, tiny_checkpoint: Path) -> None:
    with pytest.raises(UsageError, match=words):
        load(tiny_checkpoint, **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "fastest"])
def test_compute_types(dtype: str, tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint, dtype=dtype)
    assert dtype == "fastest" or model.dtype == getattr(torch, dtype)
    assert model.unet.dtype == model.text_encoder.dtype == model.vae.dtype == model.dtype
    noise = model.predict_noise(torch.randn(1, *model.latent_shape), 500, model.encode(model.token_ids(["a"])).hidden)
    assert noise.dtype == model.dtype and torch.isfinite(noise).all()


def test_half_precision_weights_load_as_float32(copy_of: Path) -> None:
    edit_tensors(copy_of / UNET, lambda t: {k: v.half() for k, v in t.items()})
    model = load(copy_of)
    assert model.unet.dtype == torch.float32
    assert torch.equal(model.unet.conv_in.weight, safetensors.torch.load_file(copy_of / UNET)["conv_in.weight"].float())
