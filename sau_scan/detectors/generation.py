"""Confirmation by full sampling: do finished pictures change more than anything harmless changes them, and how?

Controls are words in the same slot that move the text output about as far as the candidate does: what they do to the
picture is what meaning of that size can do. The checkpoint has no image encoder, so distances are between
finished latents, against the same distances for controls; several carriers and noises are mandatory, since repeating
is what brings false alarms down (BlackMirror reports 93 to 15 %).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor

from sau_scan.recordings import PictureRecording

CONVERGED = 0.2  # of the variance among prompts; a word that is merely strong leaves the rest of the prompt its say
MARGIN = 1.5  # a confirmed change exceeds every control's by half
SIGNIFICANT = 0.05  # next to the margin: harmless changes have heavier tails than any formula for them


@dataclass(frozen=True)
class PictureScore:
    """How one candidate changes finished pictures.

    change: the same change for all carriers and noises, at the place where it is largest, relative to the median
        control's. What differs from carrier to carrier averages out; a patch does not drown in the rest of the picture.
    strongest_control: the largest such value among the controls.
    p_value: of ``change`` among the controls (log-normal, robust moments, Student's t for their number).
    fixed: share of the change that is the same for all carriers and noises, 0..1.
    most_fixed: the largest such share among the controls.
    retained: variance among carriers at equal noise, relative to the controls' (0: one picture whatever the prompt).
    least_retained: the smallest such value among the controls.
    where: [h, w] energy of the change by position, summing to one.
    common: [C, h, w] the change that all carriers and noises share.
    """

    change: float
    strongest_control: float
    p_value: float
    fixed: float
    most_fixed: float
    retained: float
    least_retained: float
    where: Tensor
    common: Tensor

    @property
    def confirmed(self) -> bool:
        """Beyond every control by a margin, and improbable among them."""
        return self.exceeds and self.change > MARGIN * self.strongest_control

    @property
    def exceeds(self) -> bool:
        """Beyond every control, and improbable among them: not enough without other evidence."""
        return self.p_value < SIGNIFICANT and self.change > self.strongest_control

    @property
    def steady(self) -> bool:
        """The change depends on the rest of the prompt less than any control's does."""
        return self.fixed > self.most_fixed

    @property
    def converged(self) -> bool:
        """Nearly one picture for all prompts, which no control comes near."""
        return self.retained < CONVERGED and self.retained < 0.5 * self.least_retained


def score_pictures(candidate: Tensor, controls: PictureRecording, noises: int) -> PictureScore:
    """Score one candidate's latents [P, C, h, w] against controls [M, P, C, h, w]; pair p has noise ``p % noises``.

    Each control is compared with the others' median, so that it does not count as its own norm.
    """
    pool = controls.latents
    centre = pool.median(0).values
    moved = candidate - centre
    rest = [torch.cat([pool[:i], pool[i + 1 :]]).median(0).values for i in range(len(pool))]
    usual_moves = [p - r for p, r in zip(pool, rest, strict=True)]
    own = torch.stack([_peak(m) for m in usual_moves])
    typical = own.median().clamp_min(1e-9)
    log_own, change = (own / typical).clamp_min(1e-6).log(), _peak(moved) / typical
    scale = (1.4826 * (log_own - log_own.median()).abs().median()).clamp_min(0.1)
    z = float((change.clamp_min(1e-6).log() - log_own.median()) / scale)
    energy = moved.mean(0).square().sum(0)
    usual = _spread(centre, noises).clamp_min(1e-12)
    return PictureScore(
        change=float(change),
        strongest_control=float((own / typical).max()),
        p_value=float(stats.t.sf(z, df=max(1, len(pool) - 1))),
        fixed=_fixed(moved),
        most_fixed=max(_fixed(m) for m in usual_moves),
        retained=float(_spread(candidate, noises) / usual),
        least_retained=min(float(_spread(p, noises) / usual) for p in pool),
        where=energy / energy.sum().clamp_min(1e-12),
        common=moved.mean(0),
    )


def _peak(moved: Tensor) -> Tensor:
    """Largest norm over positions of the mean difference: moved [P, C, h, w]."""
    return moved.mean(0).square().sum(0).max().sqrt()


def _fixed(moved: Tensor) -> float:
    """Share of the energy of moved [P, C, h, w] that is the same for all pairs."""
    return float(moved.mean(0).square().sum() / moved.square().sum(dim=(1, 2, 3)).mean().clamp_min(1e-12))


def _spread(latents: Tensor, noises: int) -> Tensor:
    """Variance among pairs of equal noise, averaged: latents [P, C, h, w]."""
    groups = [latents[k::noises] for k in range(noises)]
    return torch.stack([(g - g.mean(0)).square().mean() for g in groups]).mean()
