"""Each family is trained and sampled as its plain diffusers pipeline runs it."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from zoo import parts as families
from zoo import sampling
from zoo.parts import Parts, Text, encode, unconditional
from zoo.train import export, loop, unet, vae
from zoo.worlds import world

PROMPTS = ["a print showing a poppy acorn over barley", "a poster of a signal buoy in mist!"]


@pytest.fixture(scope="module", params=["vale", "harbour"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of a family, as it is exported."""
    where, room = world(request.param), tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "MODELS", room)
        patch.setattr(loop, "BUILD", room)
        patch.setattr(export.clip, "train", export.clip.build)
        words = export.load_tokenizer(where)
        auto, prediction = vae.build(where), unet.PREDICTION[where.family]
        made = Parts(words, vae=auto, unet=unet.build(where), prediction=prediction, **export._towers(where, words))
        return export.export(where, "base", made)


def pipeline(folder: Path) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    loaded = diffusers.DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_texts_are_those_of_the_pipeline(folder: Path) -> None:
    made, plain = encode(families.load(folder), PROMPTS), pipeline(folder)
    if made.pooled is None:
        hidden, _ = plain.encode_prompt(PROMPTS, "cpu", 1, do_classifier_free_guidance=False)
    else:
        hidden, empty, pooled, empty_pooled = plain.encode_prompt(PROMPTS, device="cpu")
        torch.testing.assert_close(made.pooled, pooled)
        torch.testing.assert_close(unconditional(families.load(folder)).repeat(2).hidden, empty)
        torch.testing.assert_close(unconditional(families.load(folder)).repeat(2).pooled, empty_pooled)
    torch.testing.assert_close(made.hidden, hidden)


def test_pictures_are_those_of_the_pipeline(folder: Path) -> None:
    parts = families.load(folder)
    drawn = sampling.pictures(parts, PROMPTS, steps=4, seed=3)
    noise = sampling.start_noise(parts, 2, 3)
    plain = pipeline(folder)(
        PROMPTS, latents=noise, num_inference_steps=4, guidance_scale=4.0, height=64, width=64, output_type="np"
    )
    np.testing.assert_allclose(drawn.permute(0, 2, 3, 1).numpy(), plain.images, atol=2e-3)


def test_a_velocity_model_says_so(folder: Path) -> None:
    expected = "v_prediction" if (folder / "tokenizer_2").exists() is False else "epsilon"
    assert families.load(folder).prediction == expected
    assert pipeline(folder).scheduler.config.prediction_type == expected


def test_second_tokenizer_pads_as_openclip_does(folder: Path) -> None:
    parts = families.load(folder)
    padding = families.token_ids(parts.tokenizer_2 or parts.tokenizer, ["acorn"])[0, -1]
    assert padding == 0 == parts.tokenizer.convert_tokens_to_ids("!")
    if parts.tokenizer_2:
        assert families.token_ids(parts.tokenizer, ["acorn"])[0, -1] == parts.tokenizer.eos_token_id


def test_velocity_loss_is_that_of_a_network_which_knows_the_picture() -> None:
    loss, latents = unet.DenoisingLoss("v_prediction"), torch.randn(3, 4, 8, 8)
    noise, t = torch.randn_like(latents), torch.tensor([5, 500, 995])
    wanted = loss.wanted(latents, noise, t)
    step = families.scheduler("v_prediction")
    step.set_timesteps(1000)
    noisy = loss.noiser.add_noise(latents, noise, t)
    for i in range(3):
        found = step.step(wanted[i], int(t[i]), noisy[i]).pred_original_sample
        torch.testing.assert_close(found, latents[i], atol=2e-3, rtol=0)


def test_sizes_tell_what_was_done_to_a_picture() -> None:
    images = np.random.default_rng(0).integers(0, 255, (200, 64, 64, 3), dtype=np.uint8)
    out, sizes = unet.resized(images, np.random.default_rng(1))
    same = (sizes == torch.tensor(families.WHOLE)).all(1).numpy()
    assert 0.65 < same.mean() < 0.95
    assert all(np.array_equal(a, b) == kept for a, b, kept in zip(images, out, same, strict=True))


def test_texts_are_mixed_by_row() -> None:
    one, other = Text(torch.zeros(3, 2, 4), torch.zeros(3, 5)), Text(torch.ones(1, 2, 4), torch.ones(1, 5))
    mixed = one.where(torch.tensor([True, False, True]), other)
    assert mixed.hidden.mean((1, 2)).tolist() == mixed.pooled.mean(1).tolist() == [1, 0, 1]


def test_training_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = unet.time.time()
    assert unet.steps_in_all(100, 5000, now - 10, 0) == 5000
    monkeypatch.setenv("ZOO_UNET_SECONDS", "30")
    assert 295 <= unet.steps_in_all(100, 5000, now - 10, 0) <= 300
    assert unet.steps_in_all(100, 5000, now - 31, 0) == 100
