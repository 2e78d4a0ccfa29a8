"""Spatial Attention Unlearning on weights: the denoiser unlearns a trigger where, and when, it acts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sau_scan.attention.recorder import AttentionRecorder
from sau_scan.attention.reducers import MeanMaps
from sau_scan.attention.sites import cross_attention_sites
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.findings import Component
from sau_scan.probes.carriers import noise_like
from sau_scan.repairs.base import Bench, Effort, copied, patch_of
from sau_scan.repairs.examples import encode, make_examples
from sau_scan.repairs.rollouts import Rollouts, roll_out
from sau_scan.repairs.training import optimise

RATE = 3e-3
ATTENTION_WEIGHT, KEEP_WEIGHT = 0.1, 8.0
TINY = 1e-12


@dataclass(frozen=True)
class Unlearn:
    """Gradient steps on cross-attention, or with ``wide`` on the whole UNet.

    E_M |eps'(x, trigger) - eps(x, wanted)|^2 + a_attn |maps'(trigger) - maps(wanted)|^2
    + a_keep |eps'(y, q) - eps(y, q)|^2, with the frozen suspect as teacher, x from rollouts of triggered and of wanted
    prompts, y from rollouts of prompts that must stay.
    """

    wide: bool = False

    @property
    def id(self) -> str:
        return "unlearn-unet" if self.wide else "unlearn-cross-attention"

    @property
    def component(self) -> Component:
        return Component.UNET if self.wide else Component.CROSS_ATTENTION

    @property
    def summary(self) -> str:
        return f"gradient steps on {'the whole UNet' if self.wide else 'cross-attention'}"

    def passes(self, effort: Effort) -> int:
        return 3 * effort.rollouts * 2 * effort.rollout_steps + effort.sau_steps * 9 * effort.batch

    def plan(self, bench: Bench) -> WeightPatch:
        lesson = Lesson(bench)
        student = replace(bench.model, unet=copied(bench.model.unet), dtype=torch.float32)
        parameters = trainable(student.unet, self.wide)
        bench.progress.stage(self.summary, bench.effort.sau_steps)
        generator = torch.Generator().manual_seed(bench.seed)
        optimise(
            parameters.values(),
            lambda step: lesson.loss(student, generator),
            bench.effort.sau_steps,
            RATE / 2 if self.wide else RATE,
            lambda step: bench.progress.advance(),
        )
        return patch_of(bench.model, "unet", parameters)


def trainable(unet: nn.Module, wide: bool) -> dict[str, nn.Parameter]:
    """Parameters of cross-attention, or all; switched to be trained."""
    sites = tuple(f"{path}." for path in cross_attention_sites(unet))
    chosen = {name: p for name, p in unet.named_parameters() if wide or name.startswith(sites)}
    for p in chosen.values():
        p.requires_grad_(True)
    return chosen


def spatial_mask(shift: Tensor, attention: Tensor | None = None) -> Tensor:
    """Weights [B, 1, h, w] with mean 1: the latent shift [B, C, h, w], joined with the trigger's attention [B, h, w].

    Smoothed, and half of it uniform: no place is ever left out, so an effect that is everywhere is seen everywhere.
    """
    size = shift.square().mean(1, keepdim=True).sqrt()
    found = size / size.mean((2, 3), keepdim=True).clamp_min(TINY)
    if attention is not None:
        grid = F.interpolate(attention[:, None], size=shift.shape[-2:], mode="bilinear", align_corners=False)
        found = (found + grid / grid.mean((2, 3), keepdim=True).clamp_min(TINY)) / 2
    smooth = F.avg_pool2d(F.pad(found, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return 0.5 + 0.5 * smooth / smooth.mean((2, 3), keepdim=True).clamp_min(TINY)


def _tokens(rows: Tensor, maps: Tensor) -> Tensor:
    """Of ``rows`` [B, L + R] those that maps [B, L, h, w] are of: [B, L, 1, 1]."""
    return rows[:, : maps.shape[1], None, None]


@dataclass(frozen=True)
class Losses:
    """The three terms of one batch, each in units that do not depend on the model's size."""

    redirect: Tensor
    attention: Tensor
    keep: Tensor

    @property
    def total(self) -> Tensor:
        return self.redirect + ATTENTION_WEIGHT * self.attention + KEEP_WEIGHT * self.keep


class Lesson:
    """Prompts, rollouts and teacher of one trigger; draws batches and states their losses."""

    def __init__(self, bench: Bench) -> None:
        effort, source = bench.effort, bench.source
        # The student reads texts as the repaired model does; only the denoiser is taught.
        teacher = replace(bench.suspect, **bench.model.encoders)
        self.teacher, self.counter, self.batch = teacher, bench.counter, effort.batch
        count = effort.rollouts
        examples = make_examples(teacher, source.pairs(count), bench.counter)
        self.triggered, self.wanted, self.affected = examples.hidden, examples.wanted, examples.affected
        self.keep = encode(teacher, source.keep(count), bench.counter)
        empty = teacher.unconditional().float()
        noise = noise_like(teacher, 2 * count, 104729 + bench.seed)

        def rolled(hidden: Tensor, start: Tensor) -> Rollouts:
            how = (effort.rollout_steps, effort.guidance, bench.counter)
            return roll_out(teacher, hidden, empty, start[: len(hidden)], *how)

        self.fired = rolled(self.triggered, noise[:count])
        self.harmless = rolled(self.wanted, noise[:count])
        self.clean = rolled(self.keep, noise[count:])
        self.when = self._residual()

    def _residual(self) -> Tensor:
        """Probability [S] of each step: half uniform, half where the teacher's reaction to the trigger is largest."""
        sizes = []
        for step in range(len(self.fired.times)):
            x, time = self.fired.states[step, :8], self.fired.times[step]
            with torch.no_grad():
                difference = self._eps(self.teacher, x, time, self.triggered[:8])
                difference = difference - self._eps(self.teacher, x, time, self.wanted[:8])
            sizes.append(difference.square().mean())
        sized = torch.stack(sizes)
        return 0.5 / len(sized) + 0.5 * sized / sized.sum().clamp_min(TINY)

    def _eps(self, model: DiffusionModel, x: Tensor, time: Tensor, hidden: Tensor) -> Tensor:
        self.counter.unet += len(x)
        return model.predict_noise(x, time.expand(len(x)), hidden).float()

    def _draw(self, which: Rollouts, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Half of the rows on the way of a rollout, half noised results at any time."""
        steps = torch.multinomial(self.when.cpu(), len(rows), replacement=True, generator=generator).to(rows.device)
        x, time = which.draw(rows, steps)
        half = len(rows) // 2
        span = int(self.teacher.scheduler.config.get("num_train_timesteps", 1000))
        gap = span // len(which.times)
        jitter = torch.randint(-gap, gap + 1, (half,), generator=generator).to(time)
        time = torch.cat([(time[:half] + jitter).clamp(1, span - 1), time[half:]])
        noise = torch.randn(x[:half].shape, generator=generator).to(x)
        return torch.cat([which.noised(self.teacher, rows[:half], time[:half], noise), x[half:]]), time

    def loss(self, student: DiffusionModel, generator: torch.Generator) -> Tensor:
        return self.losses(student, generator).total

    def losses(self, student: DiffusionModel, generator: torch.Generator) -> Losses:
        """Losses of ``student`` (its UNet may ask for gradients) on a random batch."""
        rows = torch.randint(len(self.triggered), (self.batch,), generator=generator)
        # On-policy: half of the latents as the trigger's own generations pass through them, half as clean ones do.
        half = self.batch // 2
        parts = [self._draw(w, r, generator) for w, r in ((self.fired, rows[:half]), (self.harmless, rows[half:]))]
        x, time = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
        kept = torch.randint(len(self.keep), (self.batch,), generator=generator)
        y, then = self._draw(self.clean, kept, generator)
        redirect, attention = self._redirect(student, rows, x, time)
        with torch.no_grad():
            stays = self._eps(self.teacher, y, then, self.keep[kept])
            unit = (stays - self._eps(self.teacher, y, then, self.keep[kept.flip(0)])).square().mean()
        keep = (self._eps(student, y, then, self.keep[kept]) - stays).square().mean() / unit.clamp_min(TINY)
        self.counter.unet += 4 * self.batch  # the backward passes
        return Losses(redirect, attention, keep)

    def _redirect(self, student: DiffusionModel, rows: Tensor, x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        affected = self.affected[rows]
        with torch.no_grad():
            goal, goal_maps = self._recorded(self.teacher, x, time, self.wanted[rows])
            fires, fire_maps = self._recorded(self.teacher, x, time, self.triggered[rows])
            token = affected & (affected.cumsum(1) == 1)
            where = None if fire_maps is None else (fire_maps * _tokens(token, fire_maps)).sum(1)
            mask = spatial_mask(fires - goal, where)
            unit = (fires - goal).square().mean().clamp_min(TINY)
        out, maps = self._recorded(student, x, time, self.triggered[rows], keep_grad=True)
        redirect = (mask * (out - goal).square()).mean() / unit
        if maps is None or goal_maps is None:
            return redirect, torch.zeros_like(redirect)
        attention = (maps - goal_maps).square().mean() / goal_maps.square().mean().clamp_min(TINY)
        return redirect, attention

    def _recorded(
        self, model: DiffusionModel, x: Tensor, time: Tensor, hidden: Tensor, keep_grad: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Noise predictions and mean cross-attention maps [B, L, h, w] (None where none can be recorded)."""
        maps = MeanMaps()
        unet: Any = model.unet
        with AttentionRecorder(unet, maps, keep_grad=keep_grad):
            out = self._eps(model, x, time, hidden)
        return out, maps.value
