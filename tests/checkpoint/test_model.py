"""The model against plain diffusers on the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.patch import make_patch

PROMPTS = ["a photo of the red cat", "dog"]
PNDM = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def set_scheduler(folder: Path, config: dict[str, object]) -> None:
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(config))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", config["_class_name"]]
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> DiffusionModel:
    return load_model(open_checkpoint(tiny_checkpoint))


def plain(folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    if not isinstance(pipeline.scheduler, DDIMScheduler):
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# diffusers warns at length when it sets the offset and stops the clipping, as we do too.
@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("scheduler", ["DDIM", "DDIM v", "PNDM", "bare DDIM"])
def test_samples_as_diffusers_does(scheduler: str, guidance: float, copy_of: Path) -> None:
    if scheduler == "PNDM":
        set_scheduler(copy_of, PNDM)
    elif scheduler != "DDIM":
        extra = {"prediction_type": "v_prediction"} if "v" in scheduler.split() else {}
        kept = {key: PNDM[key] for key in ("beta_start", "beta_end", "beta_schedule")}
        set_scheduler(copy_of, {"_class_name": "DDIMScheduler", **kept, **extra})
    model, reference = load_model(open_checkpoint(copy_of)), plain(copy_of)
    latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(1))
    options = {"latents": latents, "num_inference_steps": 5, "guidance_scale": guidance}
    hidden = model.encode(model.token_ids(PROMPTS)).hidden
    negative = model.encode(model.token_ids([""])).hidden
    got = model.sample(hidden, negative, latents, steps=5, guidance=guidance)
    want = reference(PROMPTS, output_type="latent", **options).images
    assert (got - want).abs().max() < 1e-4 * want.abs().max()
    pictures = reference(PROMPTS, output_type="pt", **options).images
    assert (model.decode(got) - pictures).abs().max() < 1e-4


def test_the_callback_sees_every_step(model: DiffusionModel) -> None:
    seen: list[tuple[int, int]] = []
    hidden = model.encode(model.token_ids(["a"])).hidden
    latents = torch.zeros(1, *model.latent_shape)
    last = model.sample(
        hidden, hidden, latents, steps=4, guidance=2.0, callback=lambda step, time, _: seen.append((step, time))
    )
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert [time for _, time in seen] == [751, 501, 251, 1]
    assert last.shape == latents.shape and not last.requires_grad


def test_ids_are_padded_and_cut(model: DiffusionModel) -> None:
    ids = model.token_ids(["", "cat", "cat " * 40])
    end = model.tokenizer.eos_token_id
    assert ids.shape == (3, model.context_length) and ids.dtype == torch.int64
    assert ids[0].tolist() == [model.tokenizer.bos_token_id] + [end] * 15
    assert ids[2, -1] == end and (ids[2, 1:-1] == model.vocabulary["cat</w>"]).all()


def test_pooled_is_the_output_at_the_end_of_the_text(model: DiffusionModel) -> None:
    ids = model.token_ids(["", "a cat", "cat " * 40])
    hidden, pooled = model.encode(ids)
    assert torch.equal(pooled, model.text_encoder(ids).pooler_output)
    assert torch.equal(pooled[0], hidden[0, 1]) and torch.equal(pooled[1], hidden[1, 3])


def test_pooling_does_not_trust_the_encoders_configuration(copy_of: Path, model: DiffusionModel) -> None:
    path = copy_of / "text_encoder/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": 5}))
    ids = model.token_ids(["a cat"])
    assert torch.equal(load_model(open_checkpoint(copy_of)).encode(ids).pooled, model.encode(ids).pooled)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_other_predictions_become_noise(kind: str, copy_of: Path, model: DiffusionModel) -> None:
    path = copy_of / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": kind}))
    other = load_model(open_checkpoint(copy_of))
    times = torch.tensor([900, 100])
    latents = torch.randn(2, *model.latent_shape)
    hidden = model.encode(model.token_ids(PROMPTS)).hidden
    raw = model.predict_noise(latents, times, hidden)  # the same UNet, read as noise
    noise = other.predict_noise(latents, times, hidden)
    for row, time in enumerate(times.tolist()):
        one = other.predict_noise(latents[row : row + 1], time, hidden[row : row + 1])
        assert torch.allclose(one[0], noise[row], atol=1e-4)
        # The clean latent that DDIM sees in the raw output and the one that this noise implies are the same.
        ddim = other.schedule.ddim()
        ddim.set_timesteps(10)
        clean = ddim.step(raw[row : row + 1], time, latents[row : row + 1]).pred_original_sample[0]
        signal = ddim.alphas_cumprod[time].sqrt()
        implied = (latents[row] - (1 - signal**2).sqrt() * noise[row]) / signal
        assert torch.allclose(implied, clean, atol=1e-3)


def test_gradients_reach_the_text_and_chosen_weights(model: DiffusionModel) -> None:
    hidden = model.encode(model.token_ids(["cat"])).hidden.clone().requires_grad_()
    weight = model.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight
    weight.requires_grad_()
    try:
        model.predict_noise(torch.randn(1, *model.latent_shape), 500, hidden).square().sum().backward()
        assert hidden.grad is not None and hidden.grad.abs().sum() > 0
        assert weight.grad is not None and weight.grad.abs().sum() > 0
    finally:
        weight.requires_grad_(False)
        weight.grad = None


def test_a_patch_applies_in_memory(tiny_checkpoint: Path) -> None:
    model = load_model(open_checkpoint(tiny_checkpoint))
    refs = {
        model.disk_tensor("unet", "conv_in.weight"): torch.full_like(model.unet.conv_in.weight, 3.0),
        model.disk_tensor("text_encoder", "text_model.final_layer_norm.bias"): torch.full((32,), 2.0),
    }
    model.apply(make_patch(model.checkpoint, refs))
    assert (model.unet.conv_in.weight == 3).all() and (model.text_encoder.final_layer_norm.bias == 2).all()
