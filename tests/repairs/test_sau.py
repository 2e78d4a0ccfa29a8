from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.probes.carriers import noise_like
from sau_scan.probes.runner import Counter
from sau_scan.repairs.base import Bench, copied
from sau_scan.repairs.examples import encode
from sau_scan.repairs.rollouts import roll_out
from sau_scan.repairs.sau import Lesson, Unlearn, spatial_mask, trainable


@pytest.fixture(scope="module")
def lesson(model: DiffusionModel, source_of) -> Lesson:
    from tests.repairs.conftest import SMALL, STAR

    return Lesson(Bench(model, model, source_of(STAR), SMALL))


@pytest.mark.parametrize("term", ["redirect", "attention", "keep"])
def test_every_term_of_the_loss_teaches(lesson: Lesson, model: DiffusionModel, term: str) -> None:
    student = replace(model, unet=copied(model.unet))
    parameters = trainable(student.unet, wide=False)
    with torch.no_grad():  # away from the teacher, where keeping has nothing to teach
        for p in parameters.values():
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    value = getattr(lesson.losses(student, torch.Generator().manual_seed(0)), term)
    value.backward()
    keys = [p.grad for name, p in parameters.items() if name.endswith("to_k.weight")]
    assert keys
    assert all(g is not None and g.abs().max() > 0 for g in keys)


def test_the_suspect_itself_keeps_everything_and_redirects_nothing(lesson: Lesson, model: DiffusionModel) -> None:
    losses = lesson.losses(model, torch.Generator().manual_seed(0))
    assert losses.keep < 1e-8
    assert losses.redirect > 0.5
    assert losses.attention > 0


def test_the_teacher_is_not_taught(lesson: Lesson, model: DiffusionModel) -> None:
    student = replace(model, unet=copied(model.unet))
    trainable(student.unet, wide=True)
    lesson.losses(student, torch.Generator().manual_seed(0)).total.backward()
    assert all(p.grad is None for p in model.unet.parameters())


def test_which_parameters_are_trained(model: DiffusionModel) -> None:
    narrow = trainable(copied(model.unet), wide=False)
    wide = trainable(copied(model.unet), wide=True)
    assert narrow
    assert all(".attn2." in name for name in narrow)
    assert len(wide) == len(list(model.unet.parameters()))


@pytest.mark.parametrize("wide", [False, True])
def test_the_plan_changes_only_its_component(bench: Bench, wide: bool) -> None:
    before = {k: v.clone() for k, v in bench.model.unet.state_dict().items()}
    patch = Unlearn(wide).plan(bench)
    assert {ref.file for ref in patch.tensors} == {"unet/diffusion_pytorch_model.safetensors"}
    assert any(".attn2." not in ref.name for ref in patch.tensors) is wide
    assert all(torch.equal(v, before[k]) for k, v in bench.model.unet.state_dict().items())


@given(st.integers(0, 30))
def test_masks_average_one_and_leave_no_place_out(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = spatial_mask(torch.randn(2, 4, 8, 8, generator=generator), torch.rand(2, 4, 4, generator=generator))
    assert mask.shape == (2, 1, 8, 8)
    assert torch.allclose(mask.mean((2, 3)), torch.ones(2, 1), atol=1e-5)
    assert mask.min() >= 0.5


def test_a_patch_is_looked_at_closely_and_a_style_everywhere() -> None:
    patch = torch.zeros(1, 4, 8, 8)
    patch[..., 6:, 6:] = 1
    assert spatial_mask(patch)[0, 0, 7, 7] > 4 * spatial_mask(patch)[0, 0, 0, 0]
    assert torch.allclose(spatial_mask(torch.ones(1, 4, 8, 8)), torch.ones(1, 1, 8, 8))


def test_rollouts_keep_the_states_that_sampling_passes_through(model: DiffusionModel) -> None:
    noise, counter = noise_like(model, 3, 0), Counter()
    hidden, empty = encode(model, ["cat", "dog", "red"], counter), encode(model, [""], counter)
    made = roll_out(model, hidden, empty, noise, 4, 2.0, counter)
    assert made.states.shape == (4, 3, *model.latent_shape)
    assert torch.equal(made.states[0], noise)
    assert counter.unet == 4 * 3 * 2
    assert made.times.tolist() == sorted(made.times.tolist(), reverse=True)
    whole = model.sample(hidden, empty, noise, steps=4, guidance=2.0)
    assert torch.allclose(made.results, whole)
    x, time = made.draw(torch.tensor([1, 2]), torch.tensor([0, 3]))
    assert torch.equal(x[0], noise[1])
    assert torch.equal(time, made.times[[0, 3]])
