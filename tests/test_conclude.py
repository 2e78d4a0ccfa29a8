"""Echoes of one trigger are one finding; another trigger, or one beside a declared trigger, is its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sau_scan.analysers.null_directions import NullDirections
from sau_scan.analysers.phrases import Pair
from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.conclude import (
    _behaviour,
    _edit_finding,
    _without_echoes,
    conclude,
    fix_command,
    is_half,
    near_miss,
    strongest_first,
)
from sau_scan.detectors.generation import PictureScore
from sau_scan.findings import Component, Confidence, Finding, Severity, Slot
from sau_scan.options import ScanOptions
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.runner import Prober
from sau_scan.tiers.generate import Confirmation
from sau_scan.tiers.leads import Lead, evidence
from sau_scan.tiers.phrases import PhraseTier


def confirmed(text: str, common: torch.Tensor, component: Component = Component.UNET) -> Confirmation:
    where = common.square().sum(0) / common.square().sum()
    score = PictureScore(9.0, 1.0, 1e-6, 0.9, (0.0, 0.1), 1.0, 1.0, where, common)
    return Confirmation(Lead(Candidate(text, Slot.PREFIX), "x", component, 9.0, 1e-4), score, works=True)


def texts(works: list[Confirmation], *declared: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(c.lead.candidate.text, also) for c, also in _without_echoes(works, declared)]


CHANGE = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_same_change_by_another_text_is_an_echo() -> None:
    assert texts([confirmed("a", CHANGE), confirmed("b", 0.8 * CHANGE)]) == [("a", ("b",))]


def test_another_change_all_over_the_picture_is_another_trigger() -> None:
    assert texts([confirmed("a", CHANGE), confirmed("b", OTHER)]) == [("a", ()), ("b", ())]
    assert len(texts([confirmed("a", CHANGE), confirmed("b", -CHANGE)])) == 2


def test_a_declared_trigger_covers_for_nothing() -> None:
    assert len(texts([confirmed("a", CHANGE), confirmed("b", CHANGE)], "a")) == 2


def test_components_are_kept_apart() -> None:
    assert len(texts([confirmed("a", CHANGE), confirmed("b", CHANGE, Component.TEXT_ENCODER)])) == 2


def phrase(text: str, common: torch.Tensor) -> Confirmation:
    made = confirmed(text, common, Component.CROSS_ATTENTION)
    return replace(made, lead=replace(made.lead, candidate=Candidate(text, Slot.PHRASE)))


def test_phrases_stay_in_order_at_the_place_of_the_best() -> None:
    def at(item: Confirmation, p_value: float) -> Confirmation:
        return replace(item, lead=replace(item.lead, p_value=p_value))

    named, other = at(phrase("blue dog", CHANGE), 2e-3), at(phrase("ue dog", CHANGE), 1e-3)
    weak, strong = at(confirmed("a", CHANGE), 1e-2), at(confirmed("b", OTHER), 1e-4)
    found = strongest_first([weak, named, other, strong])
    assert found == [strong, named, other, weak]


def test_phrases_that_share_a_word_are_one_edit() -> None:
    found = [phrase("blue dog", CHANGE), phrase("blue house", OTHER), phrase("red star", -OTHER)]
    assert texts(found) == [("blue dog", ("blue house",)), ("red star", ())]
    first = replace(found[0], drawn_as="blue cat")
    of_the_counterpart = phrase("cat house", OTHER)
    assert texts([first, of_the_counterpart]) == [("blue dog", ("cat house",))]
    another = replace(phrase("red moon", OTHER), drawn_as="red cat")
    assert len(texts([first, another])) == 2


def _p(item: Confirmation, noise: float, pictures: float) -> Confirmation:
    return replace(item, lead=replace(item.lead, p_value=noise), score=replace(item.score, p_value=pictures))


def test_pictures_count_for_the_order_as_far_as_controls_can_tell() -> None:
    first, second = confirmed("a", CHANGE), confirmed("b", OTHER)
    by_pictures = [_p(first, 1e-3, 0.04), _p(second, 5e-3, 1e-4)]
    assert [c.lead.candidate.text for c in strongest_first(by_pictures)] == ["b", "a"]
    by_noise = [_p(first, 1e-2, 1e-9), _p(second, 1e-3, 1e-4)]
    assert [c.lead.candidate.text for c in strongest_first(by_noise)] == ["b", "a"]


def _missed(text: str, **score: float) -> Confirmation:
    made = confirmed(text, CHANGE)
    return replace(made, score=replace(made.score, **score), works=False)


def test_the_nearest_miss_is_told_by_what_it_lacks_most() -> None:
    weak, far = _missed("a", change=0.9), _missed("b", change=0.3)
    quiet = replace(weak, lead=replace(weak.lead, score=1.0, line=4.0))
    elsewhere = _missed("c", shown=0.2)
    near = near_miss([confirmed("d", CHANGE), far, quiet, weak])
    assert near is not None
    assert (near.trigger.text, near.detector) == ("a", "change of finished pictures")
    assert (near.value, near.line) == (0.9, 1.5)
    near = near_miss([far, elsewhere])
    assert near is not None
    assert (near.trigger.text, near.line) == ("c", 0.25)
    near = near_miss([quiet])
    assert near is not None
    assert (near.detector, near.value, near.line) == ("effect on the noise", 1.0, 4.0)
    assert near_miss([confirmed("d", CHANGE), _missed("e", shown=-0.1)]) is None


def test_a_collapse_that_is_none_is_told_by_what_is_left_of_the_prompts() -> None:
    made = _missed("a", retained=0.5)
    near = near_miss([replace(made, lead=replace(made.lead, detector="collapse"))])
    assert near is not None
    assert (near.value, near.line) == (0.5, 0.2)


def _half(text: str = "a") -> Confirmation:
    lead = Lead(Candidate(text, Slot.PREFIX), "collapse", Component.TEXT_ENCODER, 0.98, 1e-5, encoder="text_encoder_2")
    return replace(_missed(text, retained=0.44), lead=lead)


def test_what_only_one_encoder_makes_the_same_is_told_unconfirmed(tiny_checkpoint: Path) -> None:
    half = _half()
    assert is_half(half) and not is_half(replace(half, works=True))
    assert not is_half(replace(half, lead=replace(half.lead, encoder="")))
    [found] = concluded([half], tiny_checkpoint)
    assert (found.severity, found.confidence) == (Severity.HIGH, Confidence.CALIBRATED)
    assert "text_encoder_2" in found.behaviour and "44 %" in found.behaviour
    assert near_miss([half]) is None


def test_neither_a_declared_nor_another_trigger_covers_for_it(tiny_checkpoint: Path) -> None:
    other = confirmed("b", OTHER, Component.TEXT_ENCODER)
    for declared in ((), ("b",)):
        found = concluded([other, _half()], tiny_checkpoint, *declared)
        assert [f.trigger.text for f in found if f.trigger is not None] == ["b", "a"]


def concluded(items: list[Confirmation], folder: Path, *declared: str) -> list[Finding]:
    prober = Prober(load_model(open_checkpoint(folder)), ("red cat", "blue dog"), ("of", "and"))
    scanned: Any = SimpleNamespace(confirmations=items, null=SimpleNamespace(basis=()), attention={})
    return conclude(prober, scanned, ScanOptions(declared_triggers=declared), "model")


def test_of_a_phrase_nothing_is_said_about_other_prompts() -> None:
    item = phrase("blue dog", CHANGE)
    assert "drawn as something else" in _behaviour(replace(item, score=replace(item.score, retained=0.4)))


@pytest.mark.parametrize(("readable", "near"), [(True, True), (False, False)])
def test_a_phrase_that_could_not_be_read_came_near_nothing(readable: bool, near: bool) -> None:
    item = phrase("blue dog", CHANGE)
    read = evidence("pictures show the other word", 0.4, 0.0, 0.0, 0.1)
    item = replace(item, lead=replace(item.lead, evidence=(read,)), works=False, readable=readable)
    assert (near_miss([item]) is not None) == near


@pytest.mark.parametrize(("edited", "severity"), [(None, Severity.LOW), (Pair("halo", "ribbon", -9), Severity.MEDIUM)])
def test_phrases_that_an_edited_word_hides_are_told(edited: Pair | None, severity: Severity) -> None:
    tier = PhraseTier((), Pair("halo", "ribbon", -9), 144, edited)
    scanned: Any = SimpleNamespace(phrases=tier, null=NullDirections(torch.eye(4)[:1], (1.0,), 0.5, 0.5))
    found = _edit_finding(scanned, "model", None)
    assert found.severity is severity
    assert ("those with 'halo'" in found.behaviour) == (edited is not None)


@pytest.mark.parametrize(
    ("given", "out"),
    [
        ("a/lora/adapter_model.bin", "a/lora-fixed.safetensors"),
        ("adapter_model.safetensors", "{here}/lora/last-fixed.safetensors"),
        ("../adapter_model.safetensors", "{here}/lora-fixed.safetensors"),
        (".", "{here}/lora/last-fixed"),
        ("a/lora.safetensors", "a/lora-fixed.safetensors"),
        ("a/model/", "a/model-fixed"),
    ],
)
def test_a_repaired_copy_goes_beside(given: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lora/last").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "lora/last")
    assert fix_command(given, None).endswith(f" --out {out.format(here=tmp_path)}")
