"""Pictures are compared pair by pair, so every candidate must be drawn in the same carriers from the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.findings import Slot
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.carriers import noise_like, with_letters
from sau_scan.probes.runner import Prober
from tests.tiny_models import save

CARRIERS = ("red cat", "blue dog", "the house", "red star")


@pytest.fixture
def prober(tiny_checkpoint: Path) -> Prober:
    return Prober(load_model(open_checkpoint(tiny_checkpoint)), CARRIERS, ("of", "and"))


def test_pair_p_has_noise_p_modulo_the_number_of_noises(prober: Prober, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Prober, "pictures", lambda self, texts, noise, **how: noise)
    drawn = prober.generate([Candidate("x", Slot.PREFIX), Candidate("y", Slot.PREFIX)], 4, 2, steps=1, guidance=1.0)
    noises = noise_like(prober.model, 2, 17)
    assert torch.equal(drawn.latents[0], drawn.latents[1])
    assert torch.equal(drawn.latents[0], noises[[0, 1, 0, 1]])


def test_candidates_with_other_places_are_not_compared(prober: Prober) -> None:
    letters = [Candidate("x", Slot.REPLACE, "o"), Candidate("x", Slot.REPLACE, "c")]
    with pytest.raises(ValueError, match="no place"):
        prober.generate(letters, 2, 1, steps=1, guidance=1.0)


def test_every_letter_gets_a_place_even_if_no_word_has_it() -> None:
    pool = with_letters(CARRIERS, ["z", "o"], ("house", "photo"), 3)
    assert sum(Candidate("!", Slot.REPLACE, "z").apply(c) is not None for c in pool) >= 2
    assert pool[: len(CARRIERS)] == CARRIERS


def test_each_encoder_is_recorded_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prober = Prober(load_model(open_checkpoint(save("sdxl", tmp_path))), CARRIERS, ("of", "and"))
    assert [output.encoder for output in prober.outputs] == ["text_encoder", "text_encoder_2", "text_encoder_2"]
    first, told = prober.outputs[0].width, Prober.pooled

    def deaf(self: Prober, texts: Sequence[str], anchor: str | None = None) -> torch.Tensor:
        """As if the first encoder said the same of all prompts with the trigger."""
        pooled = told(self, texts, anchor).clone()
        pooled[[text.endswith(" x") for text in texts], :first] = 1.0
        return pooled

    monkeypatch.setattr(Prober, "pooled", deaf)
    left = prober.text([Candidate("x", Slot.SUFFIX), Candidate("y", Slot.SUFFIX)], len(CARRIERS)).retained
    assert left.shape == (2, 4)
    assert left[0, 1] < 1e-6 < 0.1 < left[0, [0, 2, 3]].min() and left[1].min() > 0.1
