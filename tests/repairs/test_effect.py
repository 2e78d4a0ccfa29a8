from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.findings import Component, Trigger
from sau_scan.probes.runner import Counter
from sau_scan.repairs.effect import Effect, make_probe, react, robust_z
from sau_scan.repairs.locate import locate
from sau_scan.repairs.pictures import Firing, contrast
from sau_scan.repairs.prompts import HELD_OUT, PromptSource
from tests.repairs.conftest import STAR

POSITIVE = st.floats(1e-3, 1e3)


@given(st.lists(POSITIVE, min_size=3, max_size=30), POSITIVE, st.floats(1e-2, 1e2))
def test_ranks_and_z_do_not_depend_on_the_unit(null: list[float], value: float, unit: float) -> None:
    assert abs(robust_z(value, null) - robust_z(value * unit, [n * unit for n in null])) < 1e-2 * (
        1 + abs(robust_z(value, null))
    )
    assert 0 < Effect(value, tuple(null)).rank <= 1


def test_the_strongest_of_all_ranks_first() -> None:
    null = tuple(float(i) for i in range(1, 40))
    assert Effect(100.0, null).rank == 1 / 40
    assert Effect(0.5, null).rank == 1
    assert Effect(100.0, null).z > 1.5 > Effect(20.0, null).z
    assert Effect(1.0, null).line() == 38


def test_reactions_are_measured_against_what_was_wanted(
    model: DiffusionModel, source_of: Callable[[Trigger], PromptSource]
) -> None:
    counter = Counter()
    probe = make_probe(model, source_of(STAR), HELD_OUT, counter, places=3)
    reaction = react(model, probe, counter)
    assert reaction.noise.value > 0
    assert reaction.text.value > 0
    assert len(reaction.noise.null) == len(reaction.text.null) == len(probe.nulls)
    assert counter.unet == 2 * 3 * (3 + len(probe.nulls))


def test_an_encoder_that_jumps_is_told_from_a_unet_that_does(
    model: DiffusionModel, source_of: Callable[[Trigger], PromptSource]
) -> None:
    counter = Counter()
    probe = make_probe(model, source_of(STAR), HELD_OUT, counter, places=3)
    reaction = react(model, probe, counter)
    null = tuple(1.0 + 0.01 * i for i in range(20))
    jumps = type(reaction)(text=Effect(30.0, null), noise=Effect(30.0, null))
    sneaks = type(reaction)(text=Effect(1.0, null), noise=Effect(30.0, null))
    assert locate(model, probe, jumps, counter).component is Component.TEXT_ENCODER
    assert locate(model, probe, sneaks, counter).component is Component.UNET
    hinted = locate(model, probe, sneaks, counter, Component.CROSS_ATTENTION)
    assert hinted.component is Component.CROSS_ATTENTION


def firing(moved: torch.Tensor) -> Firing:
    generator = torch.Generator().manual_seed(0)
    harmless = torch.randn(16, 4, 8, 8, generator=generator)
    other = harmless + 0.1 * torch.randn(harmless.shape, generator=generator)
    triggered = harmless + moved
    weight = contrast(triggered - harmless, other - harmless)
    line = float(((other - harmless).square() * weight).mean((1, 2, 3)).max())
    return Firing(("x",) * 16, harmless, triggered, harmless, weight, line, 0.0)


def test_a_patch_fires_until_it_is_gone() -> None:
    patch = torch.zeros(16, 4, 8, 8)
    patch[..., 6:, 6:] = 1
    made = firing(patch)
    noisy = 0.1 * torch.randn(patch.shape, generator=torch.Generator().manual_seed(3))
    assert made.weight[7, 7] > 5 * made.weight[0, 0]
    assert made.rate(made.triggered + noisy) == 1
    assert made.rate(made.wanted + 0.5 * noisy) == 0
    half = torch.cat([made.triggered[:8], made.wanted[8:]])
    assert made.rate(half) == 0.5
