"""Where cross-attention happens in a denoiser, and which of these places can be recomputed from outside."""

from __future__ import annotations

from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
from torch import nn

# By exact class: a subclass may compute anything.
REPRODUCIBLE = (AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor, XFormersAttnProcessor)


def cross_attention_sites(unet: nn.Module) -> dict[str, Attention]:
    """Cross-attention modules by module path, in the order in which the denoiser registers them."""
    return {
        path: module
        for path, module in unet.named_modules()
        if isinstance(module, Attention) and module.is_cross_attention
    }


def why_not_reproducible(attn: Attention) -> str | None:
    """Why the attention of this module cannot be recomputed from its own projections; None when it can."""
    processor = attn.processor
    if type(processor) not in REPRODUCIBLE:
        return f"attention processor {type(processor).__name__} is not one that can be recomputed"
    if attn.fused_projections:
        return "key and value projections are fused into one"
    if attn.to_k is None or attn.added_kv_proj_dim is not None:
        return "keys come from added projections"
    if attn.spatial_norm is not None:
        return "its input is normalised by another latent"
    if attn.inner_kv_dim != attn.inner_dim:
        return "several query heads share a key head"
    return None
