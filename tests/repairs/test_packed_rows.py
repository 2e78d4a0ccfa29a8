"""What is packed behind the tokens of a prompt is repaired as that, and never taken for a token."""

from __future__ import annotations

import pytest
import torch

from sau_scan.attention.sites import cross_attention_sites
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.repairs.base import Bench, with_patch
from sau_scan.repairs.cross_attention import FAR_DRIFT, Blindness, Maps
from sau_scan.repairs.effect import make_probe, react
from sau_scan.repairs.examples import make_examples
from sau_scan.repairs.locate import locate
from sau_scan.repairs.pictures import draw
from sau_scan.repairs.prompts import TRAINING
from sau_scan.repairs.restore import Restore
from sau_scan.repairs.sau import Lesson, Unlearn


def test_the_embedding_of_a_prompt_knows_of_the_trigger(large: Bench, sdxl: DiffusionModel) -> None:
    examples = make_examples(sdxl, large.source.pairs(6), large.counter)
    length = sdxl.context_length
    assert examples.hidden.shape[1] == length + 1 and examples.ids.shape[1] == 2 * length
    assert bool(examples.affected[:, length:].all()) and not examples.affected[:, 0].any()
    # Its counterpart is the blend of the counterparts' own.
    pair = large.source.pairs(6)[0]
    own = [(w, sdxl.encode(sdxl.token_ids([t])).hidden[0, -1]) for t, w in pair.counterparts]
    assert torch.allclose(examples.wanted[0, -1], sum(w * h for w, h in own), atol=1e-5)  # type: ignore[arg-type]


def test_closed_forms_see_tokens_only(large: Bench) -> None:
    """The same moments, whatever the rows behind them hold."""
    before = Maps.of(large)
    encoder = large.model.text_encoder_2.text_projection.weight
    kept = encoder.clone()
    try:
        encoder.mul_(100.0)
        after = Maps.of(large)
    finally:
        encoder.copy_(kept)
    assert torch.allclose(before.keep, after.keep) and torch.allclose(before.own, after.own)


@pytest.mark.parametrize("repair", [Blindness(FAR_DRIFT), Restore(), Unlearn(), Unlearn(wide=True)], ids=lambda r: r.id)
def test_every_repair_of_the_denoiser_applies(large: Bench, repair: Unlearn) -> None:
    patch = repair.plan(large)
    assert {ref.file.split("/")[0] for ref in patch.tensors} <= {"unet"}
    made = with_patch(large.model, patch)
    assert list(cross_attention_sites(made.unet)) == list(cross_attention_sites(large.model.unet))


def test_attention_is_compared_token_by_token(large: Bench) -> None:
    lesson = Lesson(large)
    losses = lesson.losses(large.model, torch.Generator().manual_seed(0))
    assert float(losses.keep) < 1e-6 < float(losses.redirect)


def test_effects_are_measured_and_pictures_drawn(large: Bench, sdxl: DiffusionModel) -> None:
    probe = make_probe(sdxl, large.source, TRAINING, large.counter, places=4)
    reaction = react(sdxl, probe, large.counter)
    assert reaction.text.value > 0 and reaction.noise.value > 0
    assert locate(sdxl, probe, reaction, large.counter).sentence
    drawn = draw(sdxl, probe.wanted[:2], probe.noise[:2], large.counter)
    assert drawn.shape == (2, *sdxl.latent_shape)
