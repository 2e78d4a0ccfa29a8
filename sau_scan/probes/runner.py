"""Runs probes: places candidates in carriers, evaluates in batches, reduces while streaming, counts passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from sau_scan.checkpoint.memory import chunk, passes_at_once
from sau_scan.checkpoint.model import DiffusionModel, finite
from sau_scan.checkpoint.readers import Output
from sau_scan.findings import Slot
from sau_scan.options import Progress, Silent
from sau_scan.probes.candidates import Candidate
from sau_scan.probes.carriers import noise_like
from sau_scan.recordings import PART, NoiseRecording, PictureRecording, TextRecording, stack_noise, stack_text

IN_PLACE = (Slot.INSIDE, Slot.REPLACE)


@dataclass
class Counter:
    """Model evaluations so far."""

    text: int = 0
    unet: int = 0


@dataclass
class Prober:
    """Evaluates candidates in carriers on one model. Values that are not finite raise DamagedFile.

    ``carriers``: the pool of clean prompts; a rung of K carriers uses, for each candidate, the first K of the pool in
    which it has a place. ``neutrals``: words that stand for "nothing" in the same slot. ``batch``: texts and pictures
    in hand at once; the UNet takes as many of them as ``checkpoint.memory`` finds room for.
    """

    model: DiffusionModel
    carriers: tuple[str, ...]
    neutrals: tuple[str, ...]
    seed: int = 0
    batch: int = 64
    progress: Progress = field(default_factory=Silent)
    counter: Counter = field(default_factory=Counter)
    _clean: dict[str, Tensor] = field(default_factory=dict)

    def places(self, candidate: Candidate, count: int) -> list[int]:
        """Indices of the first ``count`` carriers in which the candidate has a place (fewer if there are fewer)."""
        found: list[int] = []
        for index, carrier in enumerate(self.carriers):
            if len(found) == count:
                break
            if candidate.apply(carrier) is not None:
                found.append(index)
        return found

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts -> hidden [B, L, D], pooled [B, D]."""
        self.counter.text += len(texts)
        hidden, pooled = self.model.encode(self.model.token_ids(texts))
        return self._finite(hidden), self._finite(pooled.float())

    @torch.no_grad()
    def pooled(self, texts: Sequence[str], anchor: str | None = None) -> Tensor:
        """Texts -> pooled [B, D]. ``anchor``: a text that most of them begin like (default: the first)."""
        self.counter.text += len(texts)
        ids = self.model.token_ids(texts)
        start = None if anchor is None else self.model.token_ids([anchor])[0]
        return self._finite(self.model.pooled(ids, start).float())

    @torch.no_grad()
    def predict(self, hidden: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """Noise predictions [B, C, h, w] for ``hidden`` [B, L, D] on latents ``noise`` [B, C, h, w]."""
        parts, size = [], self.at_once
        for i in range(0, len(hidden), size):
            parts.append(self.model.predict_noise(noise[i : i + size], timestep, hidden[i : i + size]).float())
            self.counter.unet += len(parts[-1])
            self.progress.advance(len(parts[-1]))
        return self._finite(torch.cat(parts))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Of the several text encoders, in the order of ``TextRecording.retained``; empty where there is one."""
        return self.model.conditioning.outputs(self.model)

    @cached_property
    def at_once(self) -> int:
        """Rows of one UNet pass."""
        return passes_at_once(self.model)

    def _finite(self, values: Tensor) -> Tensor:
        return finite(values, self.model.dtype)

    def _placed(self, batch: Sequence[Candidate], count: int) -> tuple[list[str], Tensor, Tensor]:
        """Texts of all candidates in their carriers, and for each its candidate and its carrier."""
        texts, owner, where = [], [], []
        for row, candidate in enumerate(batch):
            for index in self.places(candidate, count):
                texts.append(candidate.apply(self.carriers[index]) or "")
                owner.append(row)
                where.append(index)
        return texts, torch.tensor(owner), torch.tensor(where)

    def _neutral_texts(self, slot: Slot, carrier: str) -> list[str]:
        if slot in IN_PLACE:
            return [carrier]
        return [Candidate(word, slot).apply(carrier) or carrier for word in self.neutrals]

    def _needed(self, candidates: Sequence[Candidate], count: int) -> list[int]:
        """The carriers in which any of ``candidates`` has one of its ``count`` places."""
        alike = {(c.replaces, c.text if c.slot is Slot.INSIDE else ""): c for c in candidates}
        return sorted({i for candidate in alike.values() for i in self.places(candidate, count)})

    def text_reference(self, candidates: Sequence[Candidate], count: int) -> dict[int, Tensor]:
        """Per carrier the median pooled output [D] of neutral words (in-place slots: the clean carrier's)."""
        slot, carriers = candidates[0].slot, {i: self.carriers[i] for i in self._needed(candidates, count)}
        return {i: self.pooled(self._neutral_texts(slot, c), c).median(0).values for i, c in carriers.items()}

    def text(self, candidates: Sequence[Candidate], count: int) -> TextRecording:
        """Pooled text outputs of ``candidates`` (all of one slot) in ``count`` carriers."""
        reference = self.text_reference(candidates, count)
        clean, widths = self.pooled(self.carriers), [output.width for output in self.outputs]
        parts = []
        for start in range(0, len(candidates), self.batch):
            batch = candidates[start : start + self.batch]
            pooled, owner, where = self.placed_texts(batch, count)
            moved = pooled - torch.stack([reference[int(i)] for i in where])
            parts.append(_reduce_text(moved, pooled, clean[where], owner, len(batch), widths))
            self.progress.advance(len(batch))
        return stack_text(parts)

    def placed_texts(self, batch: Sequence[Candidate], count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled outputs [M, D] of candidates in their carriers, and for each its candidate and its carrier."""
        texts, owner, where = self._placed(batch, count)
        found: dict[int, Tensor] = {}
        for index in sorted(set(where.tolist())):  # texts of one carrier begin alike
            rows = torch.nonzero(where == index)[:, 0].tolist()
            pooled = self.pooled([texts[r] for r in rows], self.carriers[index])
            found |= dict(zip(rows, pooled, strict=True))
        return torch.stack([found[r] for r in range(len(texts))]), owner, where

    def noise_reference(
        self, candidates: Sequence[Candidate], count: int, timesteps: Sequence[int]
    ) -> dict[tuple[int, int], Tensor]:
        """Per carrier and timestep the median noise prediction [C, h, w] of neutral words in the candidates' slot."""
        found = {}
        for index in self._needed(candidates, count):
            hidden = self.encode(self._neutral_texts(candidates[0].slot, self.carriers[index]))[0]
            for time in timesteps:
                noise = self.latents(index).expand(len(hidden), -1, -1, -1)
                found[index, time] = self.predict(hidden, noise, time).median(0).values
        return found

    def latents(self, index: int) -> Tensor:
        """The noise [1, C, h, w] that belongs to carrier ``index``."""
        return noise_like(self.model, 1, self.seed * 1009 + index)

    def noise(self, candidates: Sequence[Candidate], count: int, timesteps: Sequence[int]) -> NoiseRecording:
        """Noise predictions of ``candidates`` (all of one slot) in ``count`` carriers at each of ``timesteps``."""
        reference = self.noise_reference(candidates, count, timesteps)
        noises = torch.cat([self.latents(i) for i in range(len(self.carriers))])
        size, parts = max(1, self.batch // count), []
        for start in range(0, len(candidates), size):
            batch = candidates[start : start + size]
            texts, owner, where = self._placed(batch, count)
            hidden, _ = self.encode(texts)
            moved = [
                self.predict(hidden, noises[where], time) - torch.stack([reference[int(i), time] for i in where])
                for time in timesteps
            ]
            parts.append(_reduce_noise(torch.stack(moved), owner, len(batch)))
        return stack_noise(parts)

    @torch.no_grad()
    def pictures(self, texts: Sequence[str], noise: Tensor, *, steps: int, guidance: float) -> Tensor:
        """Finished latents [B, C, h, w] of ``texts`` from ``noise`` [B, C, h, w]."""
        done, empty = [], self._finite(self.model.unconditional())
        self.counter.text += 1
        size = chunk(self.model, self.batch, guided=True)
        for i in range(0, len(texts), size):
            hidden = self.encode(texts[i : i + size])[0]
            latents = self.model.sample(hidden, empty, noise[i : i + size], steps=steps, guidance=guidance)
            done.append(self._finite(latents.float()))
            passes = (2 if guidance > 1 else 1) * steps * len(hidden)
            self.counter.unet += passes
            self.progress.advance(passes)
        return torch.cat(done)

    def generate(
        self, candidates: Sequence[Candidate], pairs: int, noises: int, *, steps: int, guidance: float
    ) -> PictureRecording:
        """Finished latents of every candidate over ``pairs`` pairs of carrier and noise; pair p has noise p % noises.

        Pictures are compared pair by pair, so all candidates must have their places in the same carriers.
        """
        where = self.places(candidates[0], pairs)
        where = (where * pairs)[:pairs]
        noise = noise_like(self.model, noises, self.seed * 2003 + 17)[[p % noises for p in range(pairs)]]
        rows = []
        for candidate in candidates:
            texts = [candidate.apply(self.carriers[i]) for i in where]
            if not where or None in texts:
                raise ValueError(f"{candidate.text!a} has no place where {candidates[0].text!a} has")
            rows.append(self.pictures([t or "" for t in texts], noise, steps=steps, guidance=guidance))
        return PictureRecording(torch.stack(rows))


def _reduce_text(
    moved: Tensor, pooled: Tensor, clean: Tensor, owner: Tensor, count: int, widths: Sequence[int]
) -> TextRecording:
    """Rows of one batch: moved, pooled, clean [M, D] with their candidate [M]; ``widths``: of several outputs in D."""
    mean, size = _group_mean(moved, owner, count)
    spreads = zip(_sides(pooled, widths), _sides(clean, widths), strict=True)
    left = [_group_spread(p, owner, count) / _group_spread(c, owner, count).clamp_min(1e-12) for p, c in spreads]
    return TextRecording(
        shift=mean.norm(dim=1),
        each=_group_mean(moved.norm(dim=1, keepdim=True), owner, count)[0][:, 0],
        # Two carriers may be alike by chance: nothing can be said, so nothing is claimed.
        retained=torch.where(size[:, None] > 2, torch.stack(left, dim=1), 1.0),
    )


def _sides(pooled: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """The whole of ``pooled`` [M, D], then each encoder's output."""
    return [pooled, *torch.split(pooled, list(widths), dim=1)] if widths else [pooled]


def _reduce_noise(moved: Tensor, owner: Tensor, count: int) -> NoiseRecording:
    """moved: [T, M, C, h, w] differences, with their candidate [M]."""
    mean = torch.stack([_group_mean(m.flatten(1), owner, count)[0] for m in moved])
    energy = torch.stack([_group_mean(m.flatten(1).square().mean(1, keepdim=True), owner, count)[0] for m in moved])
    where = mean.reshape(len(moved), count, *moved.shape[2:]).square().sum((0, 2))
    where = where / where.sum((1, 2), keepdim=True).clamp_min(1e-12)
    top = max(1, round(PART * where[0].numel()))
    return NoiseRecording(
        effect=mean.square().mean((0, 2)).sqrt(),
        each=energy.mean(0)[:, 0].sqrt(),
        focus=where.flatten(1).topk(top, dim=1).values.sum(1),
    )


def _group_mean(rows: Tensor, owner: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Means [count, D] of rows [M, D] by owner [M], and the group sizes [count]."""
    owner = owner.to(rows.device)
    size = torch.zeros(count, device=rows.device).index_add_(0, owner, torch.ones(len(rows), device=rows.device))
    total = torch.zeros(count, rows.shape[1], device=rows.device).index_add_(0, owner, rows)
    return total / size.clamp_min(1)[:, None], size


def _group_spread(rows: Tensor, owner: Tensor, count: int) -> Tensor:
    """Mean squared distance [count] of rows to their group's mean."""
    mean, _ = _group_mean(rows, owner, count)
    off = (rows - mean[owner.to(rows.device)]).square().sum(1, keepdim=True)
    return _group_mean(off, owner, count)[0][:, 0]
