import torch
from torch import nn

from sau_scan.repairs.training import optimise


def test_steps_are_relative_to_the_size_of_a_tensor() -> None:
    large, small = nn.Parameter(torch.full((4,), 100.0)), nn.Parameter(torch.full((4,), 1.0))
    optimise([large, small], lambda step: large.sum() + small.sum(), 1, 0.01)
    assert torch.allclose(large, torch.tensor(99.0), atol=1e-2)
    assert torch.allclose(small, torch.tensor(0.99), atol=1e-4)


def test_the_loss_goes_down_and_the_end_is_calm() -> None:
    weight, seen = nn.Parameter(torch.ones(8)), []
    losses = optimise(
        [weight], lambda step: (weight - 0.5).square().sum(), 200, 0.02, lambda step: seen.append(weight.clone())
    )
    assert losses[-1] < 1e-2 * losses[0]
    assert (seen[-1] - seen[-2]).norm() < (seen[11] - seen[10]).norm()
