"""Attention probabilities of a module, recomputed beside it from its own projections."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor


def attention_probabilities(
    attn: Attention, hidden: Tensor, context: Tensor | None, mask: Tensor | None = None
) -> Tensor:
    """softmax(Q K^T) of ``attn``, as its processor computes it, whatever kernel that uses.

    ``hidden`` [B, N, C] or [B, C, h, w]: what the module is called with; ``context`` [B, L, D]: the encoder's output
    (None: self-attention); ``mask``: the additive mask that the module is called with. Returns [B, heads, N, L].
    Only for modules of which ``why_not_reproducible`` says None.
    """
    if hidden.ndim == 4:
        hidden = hidden.flatten(2).transpose(1, 2)
    if attn.group_norm is not None:
        hidden = attn.group_norm(hidden.transpose(1, 2)).transpose(1, 2)
    if context is None:
        context = hidden
    elif attn.norm_cross is not None:
        context = attn.norm_encoder_hidden_states(context)
    query, key = heads_of(attn.to_q(hidden), attn.heads), heads_of(attn.to_k(context), attn.heads)
    bias = _head_mask(attn, mask, context)
    if isinstance(attn.processor, AttnProcessor2_0):
        return _fused_softmax(attn, query, key, bias)
    return _eager_softmax(attn, query, key, bias)


def heads_of(projected: Tensor, heads: int) -> Tensor:
    """[B, N, heads * d] -> [B, heads, N, d]."""
    return projected.view(*projected.shape[:-1], heads, -1).transpose(1, 2)


def _head_mask(attn: Attention, mask: Tensor | None, context: Tensor) -> Tensor | None:
    if mask is None:
        return None
    batch, length = context.shape[:2]
    prepared: Tensor = attn.prepare_attention_mask(mask, length, batch)
    return prepared.reshape(batch, attn.heads, -1, prepared.shape[-1])


def _fused_softmax(attn: Attention, query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    # The fused kernel knows neither attn.scale nor the upcast settings, and accumulates in float32 by itself.
    if attn.norm_q is not None:
        query = attn.norm_q(query)
    if attn.norm_k is not None:
        key = attn.norm_k(key)
    scores: Tensor = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    return scores.float().softmax(dim=-1).to(query.dtype)


def _eager_softmax(attn: Attention, query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    dtype = query.dtype
    if attn.upcast_attention:
        query, key = query.float(), key.float()
    scores = (query * attn.scale) @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    if attn.upcast_softmax:
        scores = scores.float()
    return torch.softmax(scores, dim=-1).to(dtype)
