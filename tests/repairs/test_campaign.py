"""Attempts follow each other until the trigger is gone; what aimed at the wrong place is dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.errors import UsageError
from sau_scan.findings import Component
from sau_scan.options import Silent
from sau_scan.repairs import campaign as module
from sau_scan.repairs.base import Bench, Effort, patch_of
from sau_scan.repairs.campaign import Campaign
from sau_scan.repairs.registry import METHODS, REPAIRS, Attempt, ladder
from tests.repairs.conftest import STAR, WORDS


@dataclass(frozen=True)
class Shift:
    """Adds one to a bias."""

    component: Component
    name: str
    part: str
    summary: str = "shift"

    @property
    def id(self) -> str:
        return f"shift-{self.part}"

    def passes(self, effort: Effort) -> int:
        return 0

    def plan(self, bench: Bench) -> WeightPatch:
        return patch_of(bench.model, self.part, {self.name: bench.model.stored(self.part, self.name) + 1})


@dataclass(frozen=True)
class Idle(Shift):
    """Finds nothing to change."""

    def plan(self, bench: Bench) -> WeightPatch:
        return WeightPatch({})


UNET = Shift(Component.UNET, "conv_in.bias", "unet")


@pytest.fixture
def text(model: DiffusionModel) -> Shift:
    name = next(n for n, _ in model.text_encoder.named_parameters() if n.endswith("final_layer_norm.bias"))
    return Shift(Component.TEXT_ENCODER, name, "text_encoder")


@dataclass
class FakeCase:
    """Passes at the given look."""

    passes_at: int
    looks: int = 0
    required: int = 0
    source: object = None
    probe: object = None
    reaction: object = None
    seen: list[DiffusionModel] = field(default_factory=list)

    def require_effect(self) -> None:
        self.required += 1

    def checks(self, model: DiffusionModel, counter: object) -> tuple[object, ...]:
        self.looks += 1
        self.seen.append(model)
        return (SimpleNamespace(passed=self.looks == self.passes_at),)


Start = Callable[..., tuple[Campaign, FakeCase]]


@pytest.fixture
def start(model: DiffusionModel, monkeypatch: pytest.MonkeyPatch) -> Start:
    def made(passes_at: int, *attempts: Attempt) -> tuple[Campaign, FakeCase]:
        case = FakeCase(passes_at)
        monkeypatch.setattr(module.Case, "of", lambda *given: case)
        monkeypatch.setattr(module, "ladder", lambda *given, **how: attempts)
        located = SimpleNamespace(component=Component.UNET, sentence="somewhere")
        monkeypatch.setattr(module, "locate", lambda *given: located)
        return Campaign(model, "sau", WORDS, (), 0, Silent()), case

    return made


def test_attempts_end_when_the_trigger_is_gone(start: Start) -> None:
    campaign, case = start(1, Attempt((UNET,)), Attempt((UNET,)))
    campaign.repair(STAR)
    assert case.looks == 1
    assert [step.method for step in campaign.steps] == ["shift-unet"]


def test_a_later_attempt_builds_on_the_earlier_one(start: Start, model: DiffusionModel) -> None:
    campaign, _ = start(2, Attempt((UNET,)), Attempt((UNET,)))
    campaign.repair(STAR)
    value = campaign.patch.tensors[model.disk_tensor("unet", "conv_in.bias")]
    assert torch.allclose(value, model.unet.conv_in.bias + 2)
    assert len(campaign.steps) == 2


def test_afresh_drops_what_aimed_at_the_wrong_place(start: Start, model: DiffusionModel, text: Shift) -> None:
    campaign, case = start(2, Attempt((text,)), Attempt((UNET,), afresh=True))
    campaign.repair(STAR)
    assert list(campaign.patch.tensors) == [model.disk_tensor("unet", "conv_in.bias")]
    assert [step.component for step in campaign.steps] == [Component.UNET]
    assert case.seen[1].text_encoder is model.text_encoder


def test_afresh_keeps_the_repair_of_another_trigger(start: Start, text: Shift) -> None:
    campaign, _ = start(1, Attempt((text,)))
    campaign.repair(STAR)
    again, _ = start(2, Attempt((text,)), Attempt((UNET,), afresh=True))
    again.patch = again.found_in = campaign.patch
    again.steps = list(campaign.steps)
    again.repair(STAR)
    assert {ref.file.split("/")[0] for ref in again.patch.tensors} == {"text_encoder", "unet"}
    assert len(again.steps) == 2


def test_what_went_with_another_trigger_is_verified_but_not_repaired(start: Start) -> None:
    campaign, case = start(1, Attempt((UNET,)))
    campaign.repair(STAR)
    case.looks = 0
    campaign.repair(STAR, given=True)
    assert [s.method for s in campaign.steps] == ["shift-unet"]
    assert campaign.cases == [case, case]
    assert case.required == 1


def test_on_top_of_nothing_is_left_out(start: Start, text: Shift) -> None:
    idle = Idle(UNET.component, UNET.name, UNET.part)
    campaign, _ = start(1, Attempt((idle,)), Attempt((text,), on_top=True), Attempt((UNET,)))
    campaign.repair(STAR)
    assert [step.component for step in campaign.steps] == [Component.UNET]
    campaign, _ = start(2, Attempt((UNET,)), Attempt((text,), on_top=True))
    campaign.repair(STAR)
    assert [step.component for step in campaign.steps] == [Component.UNET, Component.TEXT_ENCODER]


def test_once_stops_after_the_first_attempt(start: Start) -> None:
    campaign, case = start(9, Attempt((UNET,)), Attempt((UNET,)))
    campaign.repair(STAR, once=True)
    assert len(campaign.steps) == 1
    assert case.looks == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("component", [Component.TEXT_ENCODER, Component.CROSS_ATTENTION, Component.UNET])
def test_every_method_knows_what_to_do_about_every_located_component(method: str, component: Component) -> None:
    attempts = ladder(method, component)
    assert attempts
    assert all(attempt.repairs for attempt in attempts)


def test_a_restored_edit_is_blinded_on_top_before_anything_is_learnt() -> None:
    """Each attempt costs more of the model than the one before."""
    restored, blinded, *learnt = ladder("sau", Component.CROSS_ATTENTION)
    assert [r.id for r in restored.repairs] == ["restore-cross-attention"]
    assert [r.id for r in blinded.repairs] == ["blind-cross-attention"]
    assert (blinded.on_top, blinded.afresh) == (True, False)
    assert [a.afresh for a in learnt] == [True, True]
    assert [len(a.repairs) for a in ladder("sau", Component.UNET)] == [1, 1]


def test_a_realigned_encoder_is_taught_further_before_other_parts_are_changed() -> None:
    first, further, *others = ladder("sau", Component.TEXT_ENCODER)
    assert [(a.on_top, a.afresh) for a in (first, further)] == [(False, False), (True, False)]
    assert all(a.repairs[0].component is Component.TEXT_ENCODER for a in (first, further))
    assert others[0].afresh


def test_ids_are_distinct_and_unknown_methods_are_told() -> None:
    assert len({repair.id for repair in REPAIRS}) == len(REPAIRS)
    with pytest.raises(UsageError, match="magic"):
        ladder("magic", Component.UNET)
