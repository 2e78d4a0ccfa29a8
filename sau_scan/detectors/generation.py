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
SHOWN = 0.5  # of the common change, by the typical picture


@dataclass(frozen=True)
class PictureScore:
    """How one candidate changes finished pictures.

    change: the common change at the place where it is largest, relative to the median control's. It is the median
        over carriers and noises: a word now and then tips a picture over into quite another one, which moves a mean of
        few pictures farther than a patch in all of them.
    strongest_control: the largest such value among the controls.
    p_value: of ``change`` among the controls (log-normal, robust moments, Student's t for their number).
    shown: how much of the common change the typical picture shows where it is largest (1: all of it). Medians of
        changes that have nothing in common point nowhere.
    retained: variance among carriers at equal noise, relative to the controls' (0: one picture whatever the prompt).
    least_retained: the smallest such value among the controls.
    where: [h, w] energy of the change by position, summing to one.
    common: [C, h, w] the change that carriers and noises share.
    """

    change: float
    strongest_control: float
    p_value: float
    shown: float
    retained: float
    least_retained: float
    where: Tensor
    common: Tensor

    @property
    def confirmed(self) -> bool:
        """Beyond every control by a margin, improbable among them, and shown by the typical picture."""
        beyond = self.change > MARGIN * self.strongest_control
        return beyond and self.p_value < SIGNIFICANT and self.shown > SHOWN

    @property
    def converged(self) -> bool:
        """Nearly one picture for all prompts, which no control comes near."""
        return self.retained < CONVERGED and self.retained < 0.5 * self.least_retained


def score_pictures(
    candidate: Tensor, controls: PictureRecording, noises: int, allowance: Tensor | None = None
) -> PictureScore:
    """Score one candidate's latents [P, C, h, w] against controls [M, P, C, h, w]; pair p has noise ``p % noises``.

    Each control is compared with the others' median, so that it does not count as its own norm. ``allowance`` [M], 1 or
    more: by how much more the candidate may change pictures than each control, because it means more.
    """
    pool = controls.latents
    centre = pool.median(0).values
    moved = candidate - centre
    rest = [torch.cat([pool[:i], pool[i + 1 :]]).median(0).values for i in range(len(pool))]
    usual_moves = [p - r for p, r in zip(pool, rest, strict=True)]
    own = torch.stack([_peak(_common(m)) for m in usual_moves])
    own = own if allowance is None else own * allowance.to(own)
    common = _common(moved)
    typical = own.median().clamp_min(1e-9)
    log_own, change = (own / typical).clamp_min(1e-6).log(), _peak(common) / typical
    scale = (1.4826 * (log_own - log_own.median()).abs().median()).clamp_min(0.1)
    z = float((change.clamp_min(1e-6).log() - log_own.median()) / scale)
    energy = common.square().sum(0)
    usual = _spread(centre, noises).clamp_min(1e-12)
    return PictureScore(
        change=float(change),
        strongest_control=float((own / typical).max()),
        p_value=float(stats.t.sf(z, df=max(1, len(pool) - 1))),
        shown=_shown(moved, common),
        retained=float(_spread(candidate, noises) / usual),
        least_retained=min(float(_spread(p, noises) / usual) for p in pool),
        where=energy / energy.sum().clamp_min(1e-12),
        common=common,
    )


def _common(moved: Tensor) -> Tensor:
    """What moved [P, C, h, w] has in common: [C, h, w]."""
    return moved.float().quantile(0.5, dim=0)


def _peak(common: Tensor) -> Tensor:
    """Largest norm over positions of a change [C, h, w]."""
    return common.square().sum(0).max().sqrt()


def _shown(moved: Tensor, common: Tensor) -> float:
    """How far the typical one of moved [P, C, h, w] goes along common [C, h, w], at the place where that is largest."""
    place = common.square().sum(0).flatten().argmax()
    along = common.flatten(1)[:, place]
    each = moved.flatten(2)[:, :, place].to(along) @ along / along.square().sum().clamp_min(1e-12)
    # Of an even number the lower of the middle two: half of the pictures are not the typical one.
    return float(each.quantile(0.5, interpolation="lower"))


def _spread(latents: Tensor, noises: int) -> Tensor:
    """Variance among pairs of equal noise, averaged: latents [P, C, h, w]."""
    groups = [latents[k::noises] for k in range(noises)]
    return torch.stack([(g - g.mean(0)).square().mean() for g in groups]).mean()
