"""Sharing a beginning changes nothing: the pooled outputs are those of the whole encoder on whole texts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sau_scan.checkpoint import prefix
from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from tests.tiny_models import save

CARRIER = "a photo of the red cat"
SUFFIXES = ("star", "zq\u200bx", "dog and house", "\U0001f600", "cat", ",", "blue " * 20)
TEXTS = {
    "suffix": [f"{CARRIER} {text}" for text in SUFFIXES],
    "merging": [CARRIER, CARRIER + "s", CARRIER[:-1], CARRIER + "\u0301", "a photo of the re\u0430d cat"],
    "prefix": [f"{text} {CARRIER}" for text in SUFFIXES],
    "foreign": ["", "star", "cat " * 40],
}


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> DiffusionModel:
    return load_model(open_checkpoint(tiny_checkpoint))


def plain(model: DiffusionModel, ids: Tensor) -> Tensor:
    """The library's own encoder on whole texts."""
    ends = (ids == model.tokenizer.eos_token_id).int().argmax(dim=1)
    hidden: Tensor = model.text_encoder(ids).last_hidden_state
    return hidden[torch.arange(len(ids)), ends]


@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize("kind", [*TEXTS, "all"])
def test_pooled_outputs_are_those_of_whole_texts(kind: str, anchored: bool, model: DiffusionModel) -> None:
    texts = [t for some in TEXTS.values() for t in some] if kind == "all" else TEXTS[kind]
    ids = model.token_ids(texts)
    anchor = model.token_ids([CARRIER])[0] if anchored else None
    got, want = model.pooled(ids, anchor), plain(model, ids)
    assert (got - want).abs().max() < 1e-5 * want.abs().max()


@pytest.mark.parametrize("family", ["sd2", "sdxl", "sd3", "flux", "pixart"])
def test_every_familys_pooled_outputs_are_those_of_whole_texts(family: str, tmp_path: Path) -> None:
    other = load_model(open_checkpoint(save(family, tmp_path)))
    for texts in (TEXTS["suffix"], [t for some in TEXTS.values() for t in some]):
        ids = other.token_ids(texts)
        want, anchor = other.encode(ids).pooled, other.token_ids([CARRIER])[0]
        for got in (other.pooled(ids, anchor), other.pooled(ids)):
            assert (got - want).abs().max() < 1e-5 * want.abs().max()
    sides = [output.width for output in other.conditioning.outputs(other)]
    assert sum(sides) == (want.shape[1] if sides else 0)
    for side in want.split(sides, dim=1) if sides else ():
        assert torch.allclose(side.norm(dim=1), torch.ones(len(want)), atol=1e-4)  # each is one encoder's output


def test_the_layer_before_the_last_is_the_librarys_too(model: DiffusionModel) -> None:
    ids = model.token_ids([t for some in TEXTS.values() for t in some])
    ends = (ids == model.tokenizer.eos_token_id).int().argmax(dim=1)
    want = model.text_encoder(ids, output_hidden_states=True).hidden_states[-2][torch.arange(len(ids)), ends]
    got = prefix.end_states(model.text_encoder, ids, model.tokenizer.eos_token_id).early
    assert (got - want).abs().max() < 1e-5 * want.abs().max()


def test_only_what_differs_is_computed(model: DiffusionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    original = prefix._embedded
    monkeypatch.setattr(
        prefix, "_embedded", lambda clip, ids, start: computed.append(ids.numel()) or original(clip, ids, start)
    )
    carrier = model.token_ids([CARRIER])
    length = int((carrier[0] != model.tokenizer.eos_token_id).sum())
    model.pooled(model.token_ids([f"{CARRIER} {word}" for word in ("star", "dog", "and")]), carrier[0])
    assert sum(computed) == length + 3 * 2


def test_another_kind_of_encoder_is_asked_itself(model: DiffusionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(type(model.text_encoder)):  # type: ignore[misc]
        """May compute anything."""

    monkeypatch.setattr(model.text_encoder, "__class__", Other)
    monkeypatch.setattr(prefix, "_embedded", None)
    ids = model.token_ids(TEXTS["suffix"])
    assert torch.equal(model.pooled(ids), plain(model, ids))
