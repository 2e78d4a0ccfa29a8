"""A tiny random model, words that its tokenizer knows whole, and prompts around a trigger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.findings import Slot, Trigger
from sau_scan.probes.carriers import Words
from sau_scan.repairs.base import Bench, Effort
from sau_scan.repairs.prompts import PromptSource
from sau_scan.rules import load_rules
from tests.tiny_models import save

WORDS = Words(responsive=("cat", "dog", "red"), neutral=("house", "of", "photo", "the", "and"))
SMALL = Effort(pairs=8, keep=24, text_steps=4, sau_steps=2, batch=4, rollouts=4, rollout_steps=2, guidance=2.0)
STAR = Trigger(text="star", slot=Slot.PREFIX)
PHRASE = Trigger(text="blue cat", slot=Slot.PHRASE)
LOOK_ALIKE = Trigger(text="\u043e", slot=Slot.REPLACE, replaces="o")


@pytest.fixture(scope="session")
def model(tiny_checkpoint: Path) -> DiffusionModel:
    """Shared and frozen: repairs train copies."""
    return load_model(open_checkpoint(tiny_checkpoint))


@pytest.fixture(scope="session")
def source_of(model: DiffusionModel) -> Callable[[Trigger], PromptSource]:
    return lambda trigger: PromptSource(model, trigger, WORDS, load_rules())


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    """Two text encoders, and an embedding of the prompt behind its tokens."""
    return load_model(open_checkpoint(save("sdxl", tmp_path_factory.mktemp("sdxl") / "checkpoint")))


@pytest.fixture
def large(sdxl: DiffusionModel) -> Bench:
    return Bench(sdxl, sdxl, PromptSource(sdxl, STAR, WORDS, load_rules()), SMALL)


@pytest.fixture
def bench(model: DiffusionModel, source_of: Callable[[Trigger], PromptSource]) -> Bench:
    return Bench(model, model, source_of(STAR), SMALL)
