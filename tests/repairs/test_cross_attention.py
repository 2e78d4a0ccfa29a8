import torch
from hypothesis import given
from hypothesis import strategies as st

from sau_scan.probes.runner import Counter
from sau_scan.repairs.base import Bench, with_patch
from sau_scan.repairs.cross_attention import DRIFT, Blindness, Maps, projections
from sau_scan.repairs.examples import make_examples
from sau_scan.repairs.prompts import HELD_OUT

SIZE = 12


def moments(c: torch.Tensor, n: torch.Tensor, k: torch.Tensor) -> Maps:
    return Maps(n.T @ c / len(c), c.T @ c / len(c), k.T @ k / len(k), k)


def rows(seed: int, count: int = 40) -> torch.Tensor:
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed)).double()


@given(st.integers(0, 50), st.sampled_from([0.03, 1.0, 10.0]))
def test_nothing_to_redirect_changes_nothing(seed: int, keeping: float) -> None:
    c = rows(seed)
    solved = moments(c, c, rows(seed + 1000)).solve(keeping)
    assert torch.allclose(solved, torch.eye(SIZE).double(), atol=1e-8)


@given(st.integers(0, 50))
def test_the_trigger_s_direction_goes_and_the_rest_stays(seed: int) -> None:
    """Kept prompts never use one direction; the trigger only adds a vector along it."""
    k, n = rows(seed, 200), rows(seed + 1000, 200)
    k[:, 0] = n[:, 0] = 0
    c = n.clone()
    c[:, 0] = 3
    maps = moments(c, n, k)
    solved = maps.solve(1.0)
    assert ((c @ solved.T - n).square().sum() / (c - n).square().sum()).item() < 0.01
    assert maps.drift(solved, {"w": torch.eye(SIZE)}) < 1e-6


@given(st.integers(0, 50))
def test_more_keeping_means_less_drift(seed: int) -> None:
    maps, weights = moments(rows(seed), rows(seed + 1), rows(seed + 2)), {"w": rows(seed + 3)}
    drifts = [maps.drift(maps.solve(keeping), weights) for keeping in (10.0, 1.0, 0.1)]
    assert drifts == sorted(drifts)
    assert maps.drift(torch.eye(SIZE).double(), weights) == 0


def test_keys_and_values_of_the_trigger_move_towards_the_wanted_ones(bench: Bench) -> None:
    patch = Blindness().plan(bench)
    names = {ref.name for ref in patch.tensors}
    assert names
    assert all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in names)
    examples = make_examples(bench.model, bench.source.pairs(8, HELD_OUT), Counter())
    old, new = projections(bench.model.unet), projections(with_patch(bench.model, patch).unet)
    for name, weight in old.items():
        goal = (examples.wanted @ weight.T)[examples.affected]
        before = ((examples.hidden @ weight.T)[examples.affected] - goal).square().sum()
        after = ((examples.hidden @ new[name].T)[examples.affected] - goal).square().sum()
        assert after < 0.9 * before


def test_clean_prompts_keep_their_responses(bench: Bench) -> None:
    patch = Blindness().plan(bench)
    new = projections(with_patch(bench.model, patch).unet)
    maps = Maps.of(bench)
    for name, weight in projections(bench.model.unet).items():
        response = maps.held @ weight.double().T
        moved = maps.held @ (new[name] - weight).double().T
        assert moved.square().sum() <= 1.01 * DRIFT * (response - response.mean(0)).square().sum()
