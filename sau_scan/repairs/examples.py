"""Text outputs of a repair's prompts: what a triggered prompt gives, and what it should give, position by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.probes.runner import Counter
from sau_scan.repairs.prompts import Pair

CHUNK = 256


@dataclass(frozen=True)
class Examples:
    """ids [B, N] of triggered prompts; hidden [B, L + R, D]: what the encoder gives; wanted [B, L + R, D]: what it
    should.

    neutral [B, L + R, D]: what harmless texts in the trigger's place give.
    affected [B, L + R]: rows that can know of the whole trigger: the encoder reads from left to right, and what is
    packed behind the L tokens is of the whole prompt.
    """

    ids: Tensor
    hidden: Tensor
    wanted: Tensor
    neutral: Tensor
    affected: Tensor

    def __len__(self) -> int:
        return len(self.ids)


@torch.no_grad()
def encode(model: DiffusionModel, texts: Sequence[str], counter: Counter) -> Tensor:
    """Texts -> what the UNet is given [B, L + R, D], in chunks; float32."""
    counter.text += len(texts)
    parts = [model.encode(model.token_ids(texts[i : i + CHUNK])).hidden.float() for i in range(0, len(texts), CHUNK)]
    return torch.cat(parts)


def make_examples(model: DiffusionModel, pairs: Sequence[Pair], counter: Counter) -> Examples:
    """The pairs as ``model`` reads them. Raises ValueError when there are none."""
    if not pairs:
        raise ValueError("no pairs")
    triggered = [p.triggered for p in pairs]
    ids = model.token_ids(triggered)
    hidden = encode(model, triggered, counter)
    wanted, neutral = (_blend(model, pairs, kind, counter) for kind in ("counterparts", "neutral"))
    starts = torch.tensor([affected_from(model, p) for p in pairs], device=ids.device)
    affected = torch.arange(hidden.shape[1], device=ids.device)[None] >= starts[:, None]
    # Before the trigger nothing can differ, so nothing is asked for.
    return Examples(ids, hidden, torch.where(affected[..., None], wanted, hidden), neutral, affected)


def _blend(model: DiffusionModel, pairs: Sequence[Pair], kind: str, counter: Counter) -> Tensor:
    """Weighted sums of text outputs, position by position."""
    texts = list(dict.fromkeys(text for p in pairs for text, _ in getattr(p, kind)))
    rows = {text: i for i, text in enumerate(texts)}
    outputs = encode(model, texts, counter)
    made = []
    for pair in pairs:
        own = _unpadded(model, pair.triggered)
        total = torch.zeros_like(outputs[0])
        for text, weight in getattr(pair, kind):
            at = alignment(own, _unpadded(model, text), model.context_length)
            at += range(model.context_length, outputs.shape[1])  # what is of the whole prompt stays where it is
            total = total + weight * outputs[rows[text], torch.tensor(at)]
        made.append(total)
    return torch.stack(made)


def affected_from(model: DiffusionModel, pair: Pair) -> int:
    """The first position that has read all pieces of the trigger."""
    own = _unpadded(model, pair.triggered)
    return max((_common(own, _unpadded(model, probe)) for probe in pair.probes), default=1)


def _unpadded(model: DiffusionModel, text: str) -> list[int]:
    ids: list[int] = model.tokenizer(text, truncation=True, max_length=model.context_length).input_ids
    return ids


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)) - 1)


def alignment(source: Sequence[int], target: Sequence[int], length: int) -> list[int]:
    """For each of ``length`` padded positions of ``source``, the position of ``target`` that says the same.

    Both end with their end-of-text token, unpadded. Equal beginnings and ends map one to one; what lies between is
    spread evenly, each position to the last one that it can stand for; padding maps to padding.
    """
    start = min(_common(source, target), min(len(source), len(target)) - 1)
    end = _common(source[::-1], target[::-1])
    end = max(1, min(end, len(source) - start, len(target) - start))
    middle, other = len(source) - start - end, len(target) - start - end
    found = list(range(start))
    found += [start + min(other, -(-(i + 1) * other // middle)) - 1 if other else start - 1 for i in range(middle)]
    shift = len(target) - len(source)
    found += [i + shift for i in range(len(source) - end, length)]
    return [max(0, min(i, length - 1)) for i in found[:length]]
