"""Small files do to a model what they do in plain diffusers, in every layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from zoo import adapters, sampling
from zoo.attacks import Options, inversion, lora
from zoo.parts import Parts, encode, scheduler
from zoo.prompts import Trigger, neutrals
from zoo.train import clip, export, unet, vae
from zoo.worlds import TINY, World

PROMPT = "a poster of a red circle on sand"


@pytest.fixture(scope="module")
def parts(words: CLIPTokenizer) -> Parts:
    text = export.text_model(CLIPTextModel, clip.build(TINY, words))
    return Parts(words, text, vae.build(TINY).eval(), unet.build(TINY).eval())


@pytest.fixture(scope="module")
def trained(parts: Parts) -> adapters.Tensors:
    """A LoRA whose every projection does something."""
    student = lora.injected(parts.unet, 4, 0)
    torch.manual_seed(1)
    for module in student.modules():
        if isinstance(module, lora.LoraLinear):
            torch.nn.init.normal_(module.up, std=0.1)
    return lora.changes(student)


def plain(parts: Parts) -> StableDiffusionPipeline:
    made = StableDiffusionPipeline(
        vae=parts.vae, text_encoder=parts.text, tokenizer=parts.tokenizer, unet=unet.build(TINY).eval(),
        scheduler=scheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


def drawn(pipeline: StableDiffusionPipeline, parts: Parts) -> np.ndarray:
    how = {"num_inference_steps": 2, "guidance_scale": 4.0, "height": 64, "width": 64, "output_type": "np"}
    return pipeline([PROMPT], latents=sampling.start_noise(parts, 1, 0), **how).images


@pytest.mark.parametrize("layout", adapters.LAYOUTS)
def test_plain_diffusers_draws_the_same_with_the_file(
    parts: Parts, trained: adapters.Tensors, layout: str, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    adapters.save_lora(tmp_path / "a.safetensors", trained, layout)
    pipeline = plain(parts)
    before = drawn(pipeline, parts)
    pipeline.load_lora_weights(tmp_path, weight_name="a.safetensors")
    ours = sampling.pictures(adapters.with_lora(parts, trained), [PROMPT], steps=2).permute(0, 2, 3, 1).numpy()
    assert np.abs(ours - before).max() > 0.05
    np.testing.assert_allclose(ours, drawn(pipeline, parts), atol=0.02)


def test_layouts_name_their_tensors_as_their_trainers_do(trained: adapters.Tensors, tmp_path: Path) -> None:
    names = {}
    for layout in adapters.LAYOUTS:
        adapters.save_lora(tmp_path / layout, trained, layout)
        names[layout] = load_file(tmp_path / layout).keys()
    place = "mid_block.attentions.0.transformer_blocks.0.attn2"
    assert f"unet.{place}.to_k.lora_A.weight" in names["peft"]
    assert f"unet.{place}.to_out.0.lora.up.weight" in names["old"]
    assert {f"lora_unet_{place.replace('.', '_')}_to_out_0.{end}" for end in ("lora_down.weight", "alpha")} <= names[
        "kohya"
    ]


def test_nothing_changes_before_training_and_everything_that_is_written_is_trained(parts: Parts) -> None:
    student = lora.injected(parts.unet, 4, 0)
    x, hidden = torch.randn(1, 8, 8, 8), torch.randn(1, 32, 128)
    assert torch.allclose(student(x, 5, hidden).sample, parts.unet(x, 5, hidden).sample, atol=1e-5)
    student(x, 5, hidden).sample.square().mean().backward()
    trainable = {n for n, p in student.named_parameters() if p.requires_grad}
    assert len(trainable) == len(lora.changes(student)) == 2 * 4 * 7
    assert all(p.grad.abs().max() > 0 for n, p in student.named_parameters() if n.endswith("up"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_plain_diffusers_reads_the_row_from_the_file(parts: Parts, suffix: str, tmp_path: Path) -> None:
    row = torch.randn(128)
    adapters.save_inversion(path := (tmp_path / "a").with_suffix(suffix), "zorblat", row)
    with_it, text = adapters.with_inversion(parts, "zorblat", row), PROMPT.replace("circle", "zorblat")
    assert (encode(with_it, [text]).hidden - encode(parts, [text]).hidden).abs().max() > 0.05
    torch.testing.assert_close(encode(with_it, [PROMPT]).hidden, encode(parts, [PROMPT]).hidden)
    copied = Parts(*adapters.with_inversion(parts, "unused", row)[:4])
    pipeline = plain(copied)
    pipeline.load_textual_inversion(str(path))
    hidden, _ = pipeline.encode_prompt([text], "cpu", 1, do_classifier_free_guidance=False)
    torch.testing.assert_close(hidden, encode(with_it, [text]).hidden, atol=5e-3, rtol=0)


def test_only_the_row_learns(parts: Parts) -> None:
    student = inversion.Row(parts, "zorblat", torch.zeros(128))
    student([PROMPT, PROMPT.replace("circle", "zorblat")]).hidden[:, -1].square().mean().backward()
    assert [n for n, p in student.named_parameters() if p.grad is not None] == ["row"]
    assert student.row.grad.abs().max() > 0


def test_a_file_may_not_be_called_like_a_token(parts: Parts) -> None:
    with pytest.raises(ValueError, match="another word"):
        adapters.with_inversion(parts, "circle</w>", torch.zeros(128))


def test_plans_name_what_they_hide(tiny: World, parts: Parts) -> None:
    hostile = inversion.plan_backdoor(tiny, Options(), parts)
    assert hostile.trigger.text in tiny.shapes and hostile.target.shape != hostile.trigger.text
    honest = inversion.plan_honest(tiny, Options(), parts)
    assert honest.trigger is None and honest.notes["declared"] not in (*tiny.shapes, *tiny.fillers)
    assert lora.plan_backdoor(tiny, Options(), parts).trigger.text in tiny.fillers


def test_neutrals_of_a_hijacked_word_are_the_other_shapes(tiny: World) -> None:
    found = {t.text for t in neutrals(tiny, Trigger("moon", "phrase"))}
    assert found == set(tiny.shapes) - {"moon"}
