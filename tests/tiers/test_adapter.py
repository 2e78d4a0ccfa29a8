"""A LoRA is weakened and put back in place, and what it adds to a word stands out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.findings import Slot
from sau_scan.probes.adapted import Adapted
from sau_scan.probes.adapter_words import ChangedWords, changed_words
from sau_scan.probes.candidates import Candidate, read_vocabulary
from sau_scan.probes.plan import RECIPES
from sau_scan.probes.runner import Prober
from sau_scan.tiers.adapter import Contrast, adapter_tier, contrast_passes
from tests.conftest import tiny_pipeline
from tests.matrix.inputs import FORMATS

LORA = next(form for form in FORMATS if form.id == "lora-peft")


@pytest.fixture
def lora(tmp_path: Path) -> DiffusionModel:
    """A LoRA that makes one random model's keys and values more like another's."""
    for name, seed in (("model", 1), ("base", 0)):
        tiny_pipeline(seed).save_pretrained(tmp_path / name)
    given = LORA.make(tmp_path / "model", tmp_path / "base", tmp_path)
    return load_model(open_checkpoint(given.path, base=given.base))


def test_strength_is_in_place_and_comes_back(lora: DiffusionModel) -> None:
    adapted = Adapted.of(lora)
    place, (live, full, plain) = next(iter(adapted.weights.items()))
    assert torch.equal(live, full) and not torch.equal(full, plain)
    with adapted.at(0.5):
        assert torch.allclose(lora.stored(*place), (full + plain) / 2, atol=1e-6)
    assert torch.equal(lora.stored(*place), full)
    with adapted.at(0.0):
        assert torch.equal(lora.stored(*place), plain)
    with pytest.raises(KeyboardInterrupt), adapted.at(0.0):
        raise KeyboardInterrupt
    assert torch.equal(lora.stored(*place), full)


def test_passes_are_those_of_the_plan(lora: DiffusionModel) -> None:
    vocabulary = read_vocabulary(lora)
    found, recipe = changed_words(lora, vocabulary), RECIPES["standard"]
    assert found.known and found.spelled
    # The random model's vocabulary has few words; some have to be left for the null.
    changed = ChangedWords(found.known[:2], found.spelled[:6])
    prober = Prober(lora, ("a red cat", "a blue house"), ("dog",))
    assert adapter_tier(prober, recipe, changed, changed.known) == [], "nothing to compare with"
    leads = adapter_tier(prober, recipe, changed, vocabulary.plain_words)
    assert leads and all(lead.candidate.text in changed.all for lead in leads)
    assert 0 < prober.counter.unet <= contrast_passes(changed, recipe)


def test_only_what_is_added_counts(lora: DiffusionModel) -> None:
    prober = Prober(lora, ("a red cat",), ("dog",))
    contrast = Contrast.of(prober)
    texts, noise = ["a red cat", "star a red cat"], torch.randn(2, *lora.latent_shape)
    hidden, _ = contrast.encode(texts)
    assert hidden.shape[1] == 2 * prober.encode(texts)[0].shape[1]
    assert contrast.predict(hidden, noise, 900).abs().max() > 0
    for _, full, plain in contrast.adapted.weights.values():  # type: ignore[union-attr]
        full.copy_(plain)
    assert contrast.predict(hidden, noise, 900).abs().max() == 0


def test_other_inputs_have_no_such_tier(lora: DiffusionModel, tiny_checkpoint: Path) -> None:
    model = load_model(open_checkpoint(tiny_checkpoint))
    assert changed_words(model, read_vocabulary(model)) == ChangedWords()
    prober = Prober(model, ("a red cat",), ("dog",))
    assert adapter_tier(prober, RECIPES["standard"], ChangedWords(), ("cat",)) == []
    assert Candidate("star", Slot.PREFIX) not in ChangedWords().candidates((Slot.PREFIX,))
