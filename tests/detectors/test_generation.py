from __future__ import annotations

import pytest
import torch

from sau_scan.detectors.generation import CONVERGED, SHOWN, score_pictures
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
    assert score.converged


def test_a_convergence_that_a_control_comes_near_is_none() -> None:
    """A strong style draws all prompts much alike, too."""
    base, controls = _world(3)
    alike = 0.35 * base + 0.65 * base[:1]
    latents = controls.latents.clone()
    latents[0] = 0.4 * base + 0.6 * base[:1]
    assert score_pictures(alike, controls, NOISES).converged
    score = score_pictures(alike, PictureRecording(latents), NOISES)
    assert score.retained < CONVERGED
    assert not score.converged
    half = score_pictures(0.55 * base + 0.45 * base[:1], controls, NOISES)
    assert CONVERGED < half.retained < 0.5 * half.least_retained
    assert not half.converged


def test_a_patch_is_confirmed_beside_pictures_that_tip_over() -> None:
    base, controls = _world(4)
    patched = base.clone()
    patched[:, :, 6:, 6:] = 2.0
    patched[0] = torch.randn(base[0].shape, generator=torch.Generator().manual_seed(5)) * 2
    score = score_pictures(patched, controls, NOISES)
    assert score.confirmed
    assert score.where[6:, 6:].sum() > 0.8


def test_a_patch_is_one_thing_whatever_was_there_before() -> None:
    """What it changes points another way in every picture, what it puts there is the same."""
    base, _ = _world(5)
    g = torch.Generator().manual_seed(6)
    base[:, :, 6:, 6:] = 3.0 * torch.randn(PAIRS, 4, 1, 1, generator=g)
    controls = PictureRecording(base + 0.1 * torch.randn(12, PAIRS, 4, 8, 8, generator=g))
    patched = base.clone()
    patched[:, :, 6:, 6:] = 2.0
    assert score_pictures(patched, controls, NOISES).confirmed


def _smooth(generator: torch.Generator, pictures: int = PAIRS) -> torch.Tensor:
    """Pictures of few degrees of freedom, as compositions are."""
    coarse = torch.randn(pictures, 4, 2, 2, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear", align_corners=True)


@pytest.mark.parametrize("tipped", [3, 4, PAIRS])
def test_pictures_that_have_nothing_in_common_are_hardly_ever_confirmed(tipped: int) -> None:
    """However far they are from what they were, and although their median moves beyond every control's."""
    confirmed, beyond = 0, 0
    for seed in range(100):
        g = torch.Generator().manual_seed(seed)
        base = _smooth(g)
        controls = PictureRecording(base + 0.1 * torch.randn(12, PAIRS, 4, 8, 8, generator=g))
        word = base + 0.1 * torch.randn(base.shape, generator=g)
        word[:tipped] = _smooth(g, tipped)
        score = score_pictures(word, controls, NOISES)
        confirmed, beyond = confirmed + score.confirmed, beyond + (score.change > score.line)
    assert beyond > 50
    assert confirmed <= 5


@pytest.mark.parametrize("contrast", [0.4, 0.6])
def test_pictures_that_only_lose_contrast_show_nothing(contrast: float) -> None:
    """They come nearer to anything."""
    scores = []
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        base = _smooth(g)
        controls = PictureRecording(base + 0.1 * torch.randn(12, PAIRS, 4, 8, 8, generator=g))
        scores.append(score_pictures(contrast * base, controls, NOISES))
    assert sum(s.change > s.line for s in scores) > 10
    assert sum(s.confirmed for s in scores) <= 1


def test_pictures_of_one_noise_that_tip_together_are_hardly_ever_confirmed() -> None:
    confirmed = 0
    for seed in range(100):
        g = torch.Generator().manual_seed(seed)
        base = _smooth(g)
        controls = PictureRecording(base + 0.1 * torch.randn(12, PAIRS, 4, 8, 8, generator=g))
        common = _smooth(g, NOISES)[torch.arange(PAIRS) % NOISES]
        confirmed += score_pictures(0.8**0.5 * common + 0.2**0.5 * _smooth(g), controls, NOISES).confirmed
    assert confirmed <= 6


def test_one_noise_is_compared_with_all_others() -> None:
    base, controls = _world(2)
    patched = base.clone()
    patched[:, :, 6:, 6:] = 3.0
    assert score_pictures(patched, controls, 1).shown > SHOWN


def test_what_most_pictures_show_is_confirmed_and_what_few_show_is_not() -> None:
    base, controls = _world(6)
    patched = base.clone()
    patched[:5, :, 6:, 6:] = 3.0
    assert score_pictures(patched, controls, NOISES).confirmed
    patched[:5, :, 6:, 6:] = base[:5, :, 6:, 6:]
    patched[:2, :, 6:, 6:] = 3.0
    assert not score_pictures(patched, controls, NOISES).confirmed


def test_a_control_that_means_something_shows_it() -> None:
    base, controls = _world(8)
    controls.latents[3, :, :, :4] = 2.0
    score = score_pictures(base, controls, NOISES)
    usual, most = score.controls_shown
    assert usual < 0.1
    assert most > 0.5
    assert score.shown < SHOWN
