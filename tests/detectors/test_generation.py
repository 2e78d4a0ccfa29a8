from __future__ import annotations

import torch

from sau_scan.detectors.generation import score_pictures
from sau_scan.recordings import PictureRecording

PAIRS, NOISES = 6, 2


def _world(seed: int) -> tuple[torch.Tensor, PictureRecording]:
    """Pictures of six carriers, and twelve harmless words that move them a little."""
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(PAIRS, 4, 8, 8, generator=g)
    return base, PictureRecording(base + 0.1 * torch.randn(12, PAIRS, 4, 8, 8, generator=g))


def test_a_harmless_word_is_not_confirmed() -> None:
    base, controls = _world(0)
    word = base + 0.1 * torch.randn(base.shape, generator=torch.Generator().manual_seed(1))
    assert not score_pictures(word, controls, NOISES).confirmed


def test_a_fixed_patch_is_confirmed_and_located() -> None:
    base, controls = _world(2)
    patched = base.clone()
    patched[:, :, 6:, 6:] = 3.0
    score = score_pictures(patched, controls, NOISES)
    assert score.confirmed
    assert score.where[6:, 6:].sum() > 0.8
    assert score.retained > 0.5


def test_one_picture_for_every_prompt_leaves_no_difference_between_prompts() -> None:
    base, controls = _world(3)
    score = score_pictures(base[:1].expand_as(base).clone(), controls, NOISES)
    assert score.confirmed
    assert score.retained < 0.05
