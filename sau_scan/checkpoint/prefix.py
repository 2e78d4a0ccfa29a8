"""Pooled outputs of texts that begin alike: what they share is computed once, what follows their end not at all.

CLIP's attention is causal, so a position sees itself and what stands before it. Keys and values of a shared beginning
are therefore the same for all texts, and the output at a text's end does not know what follows. Of a prompt with one
more word at its end, two positions of 77 are left to compute.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import CLIPTextModel, CLIPTextModelWithProjection


class Ends(NamedTuple):
    """Outputs [B, D] at the ends of texts: of the last layer, normed, and of the one before it, as it is."""

    last: Tensor
    early: Tensor


KeysAndValues = list[tuple[Tensor, Tensor]]  # by layer, each [1, heads, positions, d]
POSITIONS = 2048  # at once: enough to keep a processor busy, and a few dozen megabytes


def tower(encoder: Any) -> Any | None:
    """The causal CLIP text model in ``encoder``, or None for another kind: of that, nothing is known here."""
    if type(encoder) is CLIPTextModelWithProjection:
        encoder = encoder.text_model
    return encoder if type(encoder) is CLIPTextModel else None


@torch.no_grad()
def end_states(clip: Any, ids: Tensor, eos: int, anchor: Tensor | None = None) -> Ends:
    """Outputs of ``clip`` at the first ``eos`` of each row of ids [B, L].

    ``anchor`` [L]: a text that most rows begin like (default: the first row). Where a row departs from it is told by
    the ids, so words that merge with their neighbours are no special case.
    """
    anchor = ids[0] if anchor is None else anchor
    ends = (ids == eos).int().argmax(dim=1)
    same = (ids == anchor).int().cumprod(dim=1).sum(dim=1)
    shared = torch.minimum(same, ends)  # the end itself is always computed
    groups = sorted(set(zip(shared.tolist(), ends.tolist(), strict=True)))
    known = _keys_and_values(clip, anchor[None, : int(shared.max())])
    weight, shape = clip.final_layer_norm.weight, (len(ids), clip.config.hidden_size)
    found = Ends(weight.new_empty(shape), weight.new_empty(shape))
    for start, end in groups:
        rows = torch.nonzero((shared == start) & (ends == end))[:, 0]
        before = [(keys[:, :, :start], values[:, :, :start]) for keys, values in known]
        for some in torch.split(rows, max(1, POSITIONS // (end - start + 1))):
            for whole, part in zip(found, _end(clip, ids[some, start : end + 1], before), strict=True):
                whole[some] = part
    return found


def _keys_and_values(clip: Any, ids: Tensor) -> KeysAndValues:
    """What later positions need of a beginning [1, P]."""
    hidden = _embedded(clip, ids, 0)
    found = []
    for layer in clip.encoder.layers:
        hidden, keys, values = _layer(layer, hidden, None)
        found.append((keys, values))
    return found


def _end(clip: Any, ids: Tensor, before: KeysAndValues) -> Ends:
    """Outputs at the last of the positions ids [B, S], which follow those of ``before``."""
    hidden = _embedded(clip, ids, before[0][0].shape[2])
    *lower, last = zip(clip.encoder.layers, before, strict=True)
    for layer, shared in lower:
        hidden, _, _ = _layer(layer, hidden, shared)
    early = hidden[:, -1]
    hidden, _, _ = _layer(last[0], hidden, last[1], only_last=True)
    return Ends(clip.final_layer_norm(hidden[:, -1]), early)


def _embedded(clip: Any, ids: Tensor, start: int) -> Tensor:
    places = torch.arange(start, start + ids.shape[1], device=ids.device)[None]
    hidden: Tensor = clip.embeddings(input_ids=ids, position_ids=places)
    return hidden


def _layer(
    layer: Any, hidden: Tensor, before: tuple[Tensor, Tensor] | None, only_last: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer on positions [B, S, D] that follow ``before``: their outputs, keys and values."""
    attention, normed = layer.self_attn, layer.layer_norm1(hidden)
    keys, values = (_heads(attention, project(normed)) for project in (attention.k_proj, attention.v_proj))
    if only_last:
        hidden, normed = hidden[:, -1:], normed[:, -1:]
    queries = _heads(attention, attention.q_proj(normed))
    seen, told = keys, values
    if before is not None:
        seen, told = (
            torch.cat([old.expand(len(hidden), -1, -1, -1), new], 2)
            for old, new in zip(before, (keys, values), strict=True)
        )
    mixed = scaled_dot_product_attention(
        queries, seen, told, attn_mask=_causal(queries.shape[2], seen.shape[2], hidden.device), scale=attention.scale
    )
    hidden = hidden + attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return hidden + layer.mlp(layer.layer_norm2(hidden)), keys, values


def _heads(attention: Any, values: Tensor) -> Tensor:
    return values.view(*values.shape[:2], attention.num_heads, attention.head_dim).transpose(1, 2)


def _causal(queries: int, keys: int, device: torch.device) -> Tensor:
    """Which of ``keys`` positions each of the last ``queries`` sees."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
