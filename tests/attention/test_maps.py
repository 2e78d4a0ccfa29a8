"""Measures of attention maps: their properties, and the published figures on real maps of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sau_scan.attention.maps import (
    covariance_log_eigenvalues,
    daa_i,
    daa_s,
    evolution_rates,
    frobenius,
    ftt,
    peak_normalised,
    relative_eos_evolution,
    spatial_entropy,
    token_mass,
)
from tests.third_party import third_party

seeds = st.integers(0, 2**31 - 1)


def attention(seed: int, steps: int = 6, tokens: int = 5, side: int = 4, sharpness: float = 2.0) -> Tensor:
    """Attention of random logits: [T, L, h, w], summing to 1 over tokens at each place."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(steps, tokens, side, side, generator=generator, dtype=torch.float64)
    return (sharpness * logits).softmax(dim=1)


@given(seed=seeds, sharpness=st.floats(0, 30))
def test_mass_of_all_tokens_is_one(seed: int, sharpness: float) -> None:
    mass = token_mass(attention(seed, sharpness=sharpness))
    assert mass.shape == (6, 5)
    assert torch.allclose(mass.sum(-1), torch.ones(6, dtype=torch.float64))


@given(seed=seeds, sharpness=st.floats(0, 30), scale=st.floats(0.1, 10))
def test_entropy_is_between_0_and_1_and_ignores_scale_and_order(seed: int, sharpness: float, scale: float) -> None:
    maps = attention(seed, sharpness=sharpness)
    entropy = spatial_entropy(maps)
    assert bool(((entropy >= -1e-9) & (entropy <= 1 + 1e-9)).all())
    assert torch.allclose(spatial_entropy(scale * maps), entropy, atol=1e-6)
    shuffled = maps.flatten(-2)[..., torch.randperm(16)].unflatten(-1, (4, 4))
    assert torch.allclose(spatial_entropy(shuffled), entropy)


def test_entropy_of_known_maps() -> None:
    uniform, point, half = torch.full((1, 4, 4), 0.3), torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    point[0, 1, 2], half[0, :2] = 0.7, 0.1
    entropy = spatial_entropy(torch.stack([uniform, point, half, torch.zeros(1, 4, 4)]))
    assert torch.allclose(entropy.flatten(), torch.tensor([1.0, 0.0, 0.75, 1.0]), atol=1e-5)
    assert spatial_entropy(torch.ones(2, 1, 1)).tolist() == [0.0, 0.0]


@given(seed=seeds)
def test_ftt_is_zero_for_assimilated_maps_and_ignores_each_maps_scale(seed: int) -> None:
    maps = attention(seed)
    one = maps[:, :1]
    scales = torch.linspace(0.2, 3, 5, dtype=torch.float64)[:, None, None]
    assert torch.allclose(ftt(scales * one), torch.zeros(6, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(ftt(scales * maps), ftt(maps))
    assert bool((ftt(maps) > 0.1).all())


def test_ftt_of_two_known_maps() -> None:
    maps = torch.zeros(2, 2, 2)
    maps[0, 0, 0], maps[1, 1, 1] = 5.0, 0.5
    # Peaks become 1, the mean is 1/2 at both, so each map is sqrt(1/4 + 1/4) away.
    assert float(ftt(maps)) == pytest.approx(0.5**0.5)


@given(seed=seeds, tokens=st.integers(3, 30), count=st.integers(1, 20))
@settings(deadline=None)
def test_cda_equals_the_published_procedure(seed: int, tokens: int, count: int) -> None:
    maps = attention(seed, steps=1, tokens=tokens, side=6)[0]
    ours = covariance_log_eigenvalues(maps, count)
    kept = min(count, tokens - 1)
    flat = 255 * peak_normalised(maps).flatten(1).numpy()
    components = np.linalg.eigh(np.cov(flat.T))[1][:, ::-1][:, :kept]
    covariance = np.atleast_2d(np.cov((flat @ components).T))
    assert ours.shape == (kept,)
    assert np.allclose(ours.numpy(), np.log(np.diag(covariance)), atol=1e-6)
    assert bool((ours.diff() <= 0).all())


def test_cda_falls_without_bound_but_stays_finite_as_maps_assimilate() -> None:
    maps = attention(3)[0]
    near = maps[:1] + 1e-3 * maps
    assert bool((covariance_log_eigenvalues(near) < covariance_log_eigenvalues(maps) - 2).all())
    assert bool(covariance_log_eigenvalues(maps[:1].expand(5, 4, 4)).isfinite().all())


@given(seed=seeds, scale=st.floats(0.1, 10))
def test_evolution_scales_with_the_maps_and_vanishes_for_still_ones(seed: int, scale: float) -> None:
    maps = attention(seed)
    assert evolution_rates(maps).shape == (5, 5)
    assert torch.allclose(evolution_rates(scale * maps), scale * evolution_rates(maps))
    assert torch.allclose(daa_i(scale * maps), scale * daa_i(maps))
    still = maps[:1].expand(6, 5, 4, 4)
    assert float(evolution_rates(still).abs().max()) == float(daa_i(still)) == 0


@given(seed=seeds)
def test_daa_i_ignores_the_first_token_and_the_order_of_the_inner_ones(seed: int) -> None:
    maps = attention(seed)
    changed = maps[:, [0, 3, 1, 2, 4]].clone()
    changed[:, 0] = torch.rand(6, 4, 4)
    assert torch.allclose(daa_i(changed), daa_i(maps))
    assert not torch.allclose(daa_i(maps[:, [0, 4, 1, 2, 3]]), daa_i(maps), atol=1e-6)


def test_relative_evolution_of_known_rates() -> None:
    rates = torch.tensor([[9.0, 1.0, 2.0, 3.0, 5.0]])
    assert relative_eos_evolution(rates).tolist() == [pytest.approx(5 - 6 / 5)]


def test_daa_i_takes_leading_dimensions() -> None:
    batch = torch.stack([attention(1), attention(2)])
    assert torch.allclose(daa_i(batch), torch.stack([daa_i(attention(1)), daa_i(attention(2))]))


def test_daa_s_grows_when_the_last_token_decays_faster() -> None:
    maps = attention(5, steps=10)
    assert daa_s(maps, eos_decay=20) > daa_s(maps, eos_decay=1)


def test_daa_s_stays_finite_for_identical_maps() -> None:
    assert np.isfinite(daa_s(torch.ones(6, 5, 4, 4)))


@pytest.mark.parametrize("measure", [token_mass, spatial_entropy, ftt, covariance_log_eigenvalues, daa_i, frobenius])
def test_measures_have_finite_gradients_that_are_not_zero(measure: Callable[[Tensor], Tensor]) -> None:
    maps = attention(7).requires_grad_(True)
    value = measure(maps)
    (value if value.ndim == 0 else value[..., 0].square().sum()).backward()
    assert maps.grad is not None
    assert bool(maps.grad.isfinite().all())
    assert float(maps.grad.abs().sum()) > 0


def test_gradient_of_the_norm_at_zero_is_zero() -> None:
    maps = torch.zeros(1, 2, 2, requires_grad=True)
    frobenius(maps).sum().backward()
    assert maps.grad is not None
    assert float(maps.grad.abs().sum()) == 0


@pytest.fixture(scope="module")
def maps() -> Tensor:
    return torch.from_numpy(np.load(third_party("DAA/attention_metrics_0.npy"), allow_pickle=False))


class TestPublishedFigures:
    """Real cross-attention of Stable Diffusion 1.4 on a triggered prompt: (50 steps, 14 tokens, 16, 16)."""

    def test_daa_i(self, maps: Tensor) -> None:
        assert float(daa_i(maps)) == pytest.approx(-0.0113396, abs=1e-6)
        assert float(daa_i(maps, steps=(2, 3, 4))) == pytest.approx(-0.0160798, abs=1e-6)

    def test_daa_s(self, maps: Tensor) -> None:
        assert daa_s(maps) == pytest.approx(-0.028416, abs=1e-5)

    def test_ftt_misses_this_backdoor(self, maps: Tensor) -> None:
        assert float(ftt(maps[:, 1:].mean(0))) == pytest.approx(3.39, abs=0.03)

    def test_cda_has_one_value_less_than_tokens(self, maps: Tensor) -> None:
        values = covariance_log_eigenvalues(maps[:, 1:].mean(0))
        assert values.shape == (12,)
        assert bool(values.isfinite().all())

    def test_only_the_diagonal_of_the_trained_discriminant_carries_information(self) -> None:
        with np.load(third_party("T2IShield/lda_extracted.npz"), allow_pickle=False) as data:
            means = data["means"].reshape(2, 20, 20)
        diagonals = np.diagonal(means, axis1=1, axis2=2)
        assert diagonals.mean(axis=1) == pytest.approx([5.97, 6.96], abs=0.01)
        assert (np.diff(diagonals, axis=1) <= 0).all()  # descending, as ours are
        assert np.abs(means[:, ~np.eye(20, dtype=bool)]).max() < 1e-3
