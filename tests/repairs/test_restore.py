import torch
from hypothesis import given
from hypothesis import strategies as st

from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.repairs.base import Bench, patch_of, with_patch
from sau_scan.repairs.cross_attention import Maps, projections
from sau_scan.repairs.examples import make_examples
from sau_scan.repairs.restore import Restore, acting, moved, refitted, standing_out

ROWS, SIZE = 200, 64


def gaussian(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def prompts(seed: int, count: int = 2000) -> torch.Tensor:
    """Text outputs that hardly use the first direction."""
    made = gaussian(seed, count, SIZE)
    made[:, 0] *= 0.03
    return made


def edit(seed: int, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(A, d): an output direction of this size, and the first text direction with a little of others."""
    d = torch.nn.functional.normalize(torch.eye(SIZE)[0].double() + 0.02 * gaussian(seed, SIZE), dim=0)
    return size * torch.nn.functional.normalize(gaussian(seed + 1, ROWS), dim=0), d


@given(st.integers(0, 200))
def test_in_trained_weights_nothing_stands_out(seed: int) -> None:
    assert standing_out(torch.linalg.svdvals(gaussian(seed, ROWS, SIZE))) == 0


@given(st.integers(0, 200), st.integers(1, 3))
def test_every_edit_of_great_size_stands_out(seed: int, count: int) -> None:
    weights = gaussian(seed, ROWS, SIZE)
    top = float(torch.linalg.matrix_norm(weights, 2))
    for i in range(count):
        a, d = edit(seed + 1000 * i, (5 + 5 * i) * top)
        weights = weights + a[:, None] * torch.roll(d, i)
    assert standing_out(torch.linalg.svdvals(weights)) == count


@given(st.integers(0, 50))
def test_an_edit_goes_and_the_rest_stays(seed: int) -> None:
    """Refitted along the edit's output direction alone, the weights are nearly those from before the edit."""
    clean, keep = gaussian(seed, ROWS, SIZE), prompts(seed + 7)
    a, d = edit(seed, 200.0)
    edited = clean + a[:, None] * d
    left = torch.linalg.svd(edited, full_matrices=False).U[:, :1]
    rows = left.T @ edited
    restored = edited + left @ (refitted(rows, keep.T @ keep / len(keep), 0.1) - rows)
    phrase = 0.5 * torch.eye(SIZE)[:1].double() + prompts(seed + 9, 50)
    honest = phrase @ clean.T
    assert (phrase @ restored.T - honest).square().sum() < 0.2 * (phrase @ edited.T - honest).square().sum()
    assert moved(edited, restored - edited, keep) < moved(edited, -edited, keep)


def test_a_direction_that_prompts_use_stays() -> None:
    """However large: the mean output, say, which is part of every prompt."""
    keep = prompts(3)
    rows = 100 * gaussian(4, 1, SIZE)
    rows[:, 0] = 0
    fitted = refitted(rows, keep.T @ keep / len(keep), 0.1)
    assert (fitted - rows).norm() < 0.15 * rows.norm()


def test_only_directions_in_which_the_trigger_acts_are_touched() -> None:
    weights = torch.eye(SIZE).double()
    triggered = prompts(1, 100)
    wanted = triggered.clone()
    triggered[:, 0] += 1
    maps = Maps(wanted.T @ triggered / 100, triggered.T @ triggered / 100, weights, triggered)
    assert acting(weights, weights[:, :5], maps).tolist() == [True, False, False, False, False]


def test_weights_without_an_edit_are_left_alone(bench: Bench) -> None:
    assert Restore().plan(bench) == WeightPatch()


def edited(bench: Bench) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Projections of ``bench`` before and after an edit of great size, which is then in its model."""
    maps, examples = Maps.of(bench), make_examples(bench.model, bench.source.pairs(64), bench.counter)
    adds = (examples.hidden - examples.wanted)[examples.affected].double().mean(0)
    d = torch.linalg.solve(maps.keep + 1e-6 * torch.eye(len(adds)).double(), adds)
    d = (200 * d / d.norm()).float()
    old = projections(bench.model.unet)
    aims = {
        n: torch.nn.functional.normalize(gaussian(i, len(w)), dim=0).float() for i, (n, w) in enumerate(old.items())
    }
    changed = {n: w + aims[n][:, None] * d for n, w in old.items()}
    bench.model = with_patch(bench.model, patch_of(bench.model, "unet", changed))
    return old, changed


def test_an_implanted_edit_is_taken_back(bench: Bench) -> None:
    old, changed = edited(bench)
    # This encoder is not trained, so no text direction is rare, and the edit acts on all prompts.
    new = projections(with_patch(bench.model, Restore(drift=1.0).plan(bench)).unet)
    before = sum(float((changed[n] - w).square().sum()) for n, w in old.items())
    after = sum(float((new[n] - w).square().sum()) for n, w in old.items())
    assert after < 0.05 * before


def test_what_would_move_clean_prompts_too_far_is_left(bench: Bench) -> None:
    edited(bench)
    assert Restore(drift=1e-6).plan(bench) == WeightPatch()
