"""Loading folders in every spelling: frozen, at their places on disk, never foreign code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint.builders import load_scheduler
from sau_scan.checkpoint.families import SCHEDULERS, identify
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.errors import DamagedFile, NotACheckpoint, UnsafeFile, UsageError
from tests.checkpoint.spoiling import TEXT, UNET, edit_json, edit_tensors, fails, load


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_all_schedulers_of_noise_give_their_betas(name: str, copy_of: Path) -> None:
    edit_json(copy_of / "model_index.json", scheduler=["diffusers", name])
    edit_json(copy_of / "scheduler/scheduler_config.json", trained_betas=[0.1, 0.2])
    checkpoint = open_checkpoint(copy_of)
    identify(checkpoint)
    assert torch.allclose(load_scheduler(checkpoint).alphas_cumprod, torch.tensor([0.9, 0.72]))


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
    fails(copy_of, UnsafeFile, "in another folder")
    for wrong in ([], {}, {"x": 1}, {"x": "x" * 999}, "x"):
        index.write_text(json.dumps({"weight_map": wrong}))
        fails(copy_of, DamagedFile, "index.json is not valid")
    index.write_text(json.dumps({"weight_map": table}))
    for file in reversed(halves):
        (copy_of / "unet" / file).unlink()
        fails(copy_of, NotACheckpoint, f"{file} is missing")


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
