"""Whether the components of a checkpoint belong together."""

from __future__ import annotations

from typing import Any

from sau_scan.checkpoint.source import Checkpoint
from sau_scan.errors import DamagedFile, NotACheckpoint

# What transformers writes when a tokenizer has no limit of its own.
NO_LIMIT = 10**6
MIXED = "Its components come from different checkpoints, or one was damaged: download it again."


def check_fit(checkpoint: Checkpoint, tokenizer: Any, text_encoder: Any, unet: Any, vae: Any) -> None:
    """Raises DamagedFile where one component's size does not fit another's, NotACheckpoint for other kinds of UNet."""
    rows = int(text_encoder.config.vocab_size)
    highest = max(tokenizer.get_vocab().values(), default=-1)
    width, heard = int(text_encoder.config.hidden_size), unet.config.cross_attention_dim
    drawn, latent = int(unet.config.in_channels), int(vae.config.latent_channels)
    where = checkpoint.show("")
    if highest >= rows:
        raise DamagedFile(
            f"{checkpoint.show('tokenizer')} has the token id {highest:,}, but the text encoder has {rows:,} rows.",
            hint="The tokenizer does not belong to this text encoder. " + MIXED,
        )
    if heard != width:
        raise DamagedFile(f"{where}: the UNet reads texts of width {heard}, the encoder writes {width}.", hint=MIXED)
    if drawn != latent or int(unet.config.out_channels) != drawn:
        raise NotACheckpoint(
            f"{where}: the UNet takes {drawn} channels and gives {unet.config.out_channels}, the VAE has {latent}.",
            hint="Only text-to-image checkpoints are scanned (no inpainting, depth or upscaling variants).",
        )
    extra = [key for key in ("class_embed_type", "addition_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")
             if unet.config.get(key) is not None]
    if extra or unet.config.get("num_class_embeds") is not None:
        raise NotACheckpoint(
            f"{checkpoint.show('unet/config.json')} asks for inputs beside a text: {', '.join(extra) or 'classes'}.",
            hint="Only text-to-image checkpoints are scanned.",
        )


def context_length(checkpoint: Checkpoint, tokenizer: Any, text_encoder: Any) -> int:
    """Tokens of a prompt, as diffusers pads it: the tokenizer's limit, which the encoder's positions must allow."""
    positions = int(text_encoder.config.max_position_embeddings)
    limit = int(tokenizer.model_max_length)
    if limit > NO_LIMIT:
        return positions
    if not 2 < limit <= positions:
        raise DamagedFile(
            f"{checkpoint.show('tokenizer')} allows {limit} tokens, but the text encoder has {positions} positions.",
            hint="The tokenizer does not belong to this text encoder. " + MIXED,
        )
    return limit
