"""Joint attention: blocks in which places of the picture and tokens of the text attend to all of both at once.

What places of the picture look at in the text is a part of such a block's attention; a token's share is of everything
that a place looks at, other places included.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxAttnProcessor
from torch import Tensor, nn

from sau_scan.attention.recompute import heads_of

# By exact class: a subclass may compute anything.
PROCESSORS = {Attention: JointAttnProcessor2_0, FluxAttention: FluxAttnProcessor}
Rotary = tuple[Tensor, Tensor]


def joint_attention_sites(denoiser: nn.Module) -> dict[str, nn.Module]:
    """Joint attention modules by module path, in the order in which the denoiser registers them."""
    return {path: module for path, module in denoiser.named_modules() if is_joint(module)}


def is_joint(module: nn.Module) -> bool:
    # Blocks of one stream join picture and text before they attend, so nothing is added to their projections.
    if isinstance(module, FluxAttention):
        return True
    added = isinstance(module, Attention) and module.added_kv_proj_dim is not None
    return added and not module.is_cross_attention and hasattr(module, "add_q_proj")


def why_not_joint(attn: nn.Module) -> str | None:
    """Why the attention of this module cannot be recomputed from its own projections; None when it can."""
    processor = getattr(attn, "processor", None)
    if type(attn) not in PROCESSORS or type(processor) is not PROCESSORS[type(attn)]:
        return f"attention processor {type(processor).__name__} is not one that can be recomputed"
    if attn.fused_projections:
        return "its projections are fused into one"
    return None


def joint_map(attn: Any, hidden: Tensor, context: Tensor | None, rotary: Rotary | None, text: int) -> Tensor:
    """How places of the picture attend to the text, mean over heads: [B, N, L].

    Head by head: all of them at once would take gigabytes in models of full size.
    """
    queries, keys = queries_and_keys(attn, hidden, context, rotary, text)
    pairs = zip(queries.unbind(1), keys.unbind(1), strict=True)
    return sum((attend(q, k)[..., :text].float() for q, k in pairs), torch.zeros(())) / queries.shape[1]


def attend(queries: Tensor, keys: Tensor) -> Tensor:
    """softmax(Q K^T) [..., N, L + N] of queries [..., N, d] and keys [..., L + N, d], as the fused kernel does it."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    probabilities: Tensor = scores.float().softmax(dim=-1).to(queries.dtype)
    return probabilities


def queries_and_keys(
    attn: Any, hidden: Tensor, context: Tensor | None, rotary: Rotary | None, text: int
) -> tuple[Tensor, Tensor]:
    """Queries [B, heads, N, d] of the picture, keys [B, heads, L + N, d] of the text and then of the picture.

    ``hidden`` [B, N, C] and ``context`` [B, L, C]: what the module is called with; without ``context``, ``hidden``
    [B, L + N, C] begins with the ``text`` = L tokens. ``rotary``: cosines and sines [L + N, d] by position, text first.
    """
    queries = _normed(attn.norm_q, heads_of(attn.to_q(hidden), attn.heads))
    keys = _normed(attn.norm_k, heads_of(attn.to_k(hidden), attn.heads))
    if context is None:
        queries = queries[:, :, text:]
    else:
        keys = torch.cat([_normed(attn.norm_added_k, heads_of(attn.add_k_proj(context), attn.heads)), keys], dim=2)
    if rotary is not None:
        queries = _turned(queries, (rotary[0][text:], rotary[1][text:]))
        keys = _turned(keys, rotary)
    return queries, keys


def _normed(norm: Any, part: Tensor) -> Tensor:
    return part if norm is None else norm(part)


def _turned(part: Tensor, rotary: Rotary) -> Tensor:
    turned: Any = apply_rotary_emb(part, rotary, sequence_dim=2)  # type: ignore[arg-type]
    made: Tensor = turned
    return made
