from __future__ import annotations

import torch

from sau_scan.detectors.generation import score_pictures
from sau_scan.recordings import PictureRecording

PAIRS, NOISES = 6, 3


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


def test_a_patch_is_confirmed_beside_pictures_that_tip_over() -> None:
    base, controls = _world(4)
    patched = base.clone()
    patched[:, :, 6:, 6:] += 1.0
    patched[0] = torch.randn(base[0].shape, generator=torch.Generator().manual_seed(5)) * 2
    score = score_pictures(patched, controls, NOISES)
    assert score.confirmed
    assert score.where[6:, 6:].sum() > 0.8
    assert score.shown > 0.8


def test_one_noise_whose_pictures_tip_over_is_not_enough() -> None:
    base, controls = _world(6)
    tipped = base + 0.1 * torch.randn(base.shape, generator=torch.Generator().manual_seed(7))
    tipped[::NOISES] += 2 * torch.randn(base[0].shape, generator=torch.Generator().manual_seed(8))
    assert not score_pictures(tipped, controls, NOISES).confirmed


def test_a_change_that_the_typical_picture_lacks_is_not_confirmed() -> None:
    base, controls = _world(6)
    # Half of the pictures change strongly, the others not at all: the median lies between.
    moved = base.clone()
    moved[:3] += 3.0
    score = score_pictures(moved, controls, NOISES)
    assert score.change > 1.5 * score.strongest_control
    assert not score.confirmed


def test_a_text_that_means_more_may_change_more() -> None:
    base, controls = _world(8)
    moved = base + 0.25
    assert score_pictures(moved, controls, NOISES).confirmed
    more = torch.full((12,), 4.0)
    assert not score_pictures(moved, controls, NOISES, more).confirmed
