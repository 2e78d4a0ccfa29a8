"""What the text encoders say of token ids."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class TextOutput(NamedTuple):
    """``hidden`` [B, L + R, D]: what the denoiser is given, tokens first (see packing); ``pooled`` [B, P]: what the
    whole prompt comes to, by which texts are compared."""

    hidden: Tensor
    pooled: Tensor


class Output(NamedTuple):
    """A text encoder, and the width of one of the outputs that ``pooled`` is put together from."""

    encoder: str
    width: int


class Read(NamedTuple):
    """Of one encoder: ``tokens`` [B, L, D], and ``whole`` [B, P] of the prompt."""

    tokens: Tensor
    whole: Tensor


def ends_of(ids: Tensor, tokenizer: Any) -> Tensor:
    """Positions [B] of the end of each text in ``ids`` [B, L].

    Found through the tokenizer: the encoders' own pooling trusts an id in their config.json.
    """
    found: Tensor = (ids == tokenizer.eos_token_id).int().argmax(dim=1)
    return found


def at_ends(tokens: Tensor, ends: Tensor) -> Tensor:
    """Rows [B, D] of ``tokens`` [B, L, D] at positions ``ends`` [B]."""
    return tokens[torch.arange(len(tokens), device=tokens.device), ends]


def read_clip(encoder: Any, ids: Tensor, ends: Tensor) -> Read:
    """The last layer, and its output at the end of the text."""
    tokens: Tensor = encoder(ids).last_hidden_state
    return Read(tokens, at_ends(tokens, ends))


def read_clip_early(encoder: Any, ids: Tensor, ends: Tensor) -> Read:
    """The last layer but one, without the final norm; the whole is the last one's output at the end of the text,
    projected where the encoder projects."""
    output = encoder(ids, output_hidden_states=True)
    whole = at_ends(output.last_hidden_state, ends)
    projection = getattr(encoder, "text_projection", None)
    return Read(output.hidden_states[-2], whole if projection is None else projection(whole))


def read_t5(encoder: Any, ids: Tensor, ends: Tensor, *, masked: bool) -> tuple[Read, Tensor]:
    """The tokens, their mean up to the end of the text, and the mask [B, L] of what is no padding.

    ``masked``: padding is hidden from the encoder, too; not every pipeline does so.
    """
    mask = torch.arange(ids.shape[1], device=ids.device)[None] <= ends[:, None]
    tokens: Tensor = encoder(ids, attention_mask=mask.long() if masked else None).last_hidden_state
    weight = mask.to(tokens)[..., None]
    return Read(tokens, (tokens * weight).sum(1) / weight.sum(1)), mask
