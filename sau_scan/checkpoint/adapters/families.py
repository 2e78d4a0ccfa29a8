"""Which family of models a LoRA was made for, as far as its names and shapes tell."""

from __future__ import annotations

from sau_scan.checkpoint.adapters.layouts import Part, Shapes, split

# Part of a name -> the only family that has it. The first that occurs decides.
_NAMES = {
    "lora_te2_": "Stable Diffusion XL",
    "text_encoder_2.": "Stable Diffusion XL",
    "single_transformer_blocks": "FLUX.1",
    "single_blocks": "FLUX.1",
    "double_blocks": "FLUX.1",
    "joint_blocks": "Stable Diffusion 3.x",
    "add_k_proj": "Stable Diffusion 3.x",
    "adaln_single": "PixArt",
    "caption_projection": "PixArt",
}
# FLUX and Stable Diffusion 3 have several text encoders, too; their transformers' names come first.
_TRANSFORMERS = ("FLUX.1", "Stable Diffusion 3.x", "PixArt")
# Width of the texts that cross-attention reads.
_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}


def family_of(shapes: Shapes) -> str | None:
    """The family's title, or None where nothing tells."""
    seen = {family for part, family in _NAMES.items() if any(part in name for name in shapes)}
    for family in (*_TRANSFORMERS, *sorted(seen)):
        if family in seen:
            return family
    widths = {_text_width(name, shape) for name, shape in shapes.items()} - {0}
    return _WIDTHS.get(widths.pop()) if len(widths) == 1 else None


def _text_width(name: str, shape: tuple[int, ...]) -> int:
    """Of the texts that this tensor reads; 0 for one that reads none."""
    parts = split(name)
    if parts is None or parts[1] is not Part.DOWN or len(shape) < 2:
        return 0
    return shape[1] if "attn2" in name and ("to_k" in name or "to_v" in name) else 0
