"""A patch is not lost in the rest of the picture, and nothing stands out by chance of one rung."""

from __future__ import annotations

import numpy as np
import torch

from sau_scan.recordings import NoiseRecording
from sau_scan.tiers.denoise import _unexplained


def recording(effect: torch.Tensor, focus: torch.Tensor) -> NoiseRecording:
    return NoiseRecording(effect, effect, focus)


def test_a_patch_of_ordinary_energy_stands_out_and_so_does_a_strong_effect_everywhere() -> None:
    rng = np.random.default_rng(0)
    effect, focus = np.exp(rng.normal(0, 0.3, 400)), np.exp(rng.normal(np.log(0.12), 0.2, 400))
    focus[0], effect[0] = 0.8, 1.2
    focus[1], effect[1] = 0.05, 8.0
    z = _unexplained(recording(torch.tensor(effect), torch.tensor(focus)), rng.uniform(1, 3, 400))
    assert set(np.argsort(-z)[:2].tolist()) == {0, 1}
    assert z[0] > 2.5
    assert z[1] > 5
