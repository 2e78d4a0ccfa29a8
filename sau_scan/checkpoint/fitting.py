"""Whether the components of a checkpoint belong together."""

from __future__ import annotations

import math
from typing import Any

from sau_scan.checkpoint.source import Checkpoint
from sau_scan.errors import DamagedFile, NotACheckpoint

# What transformers writes when a tokenizer has no limit of its own is larger.
NO_LIMIT = 10**6
# Latents of 512 are pictures of 4,096 pixels, beyond this family.
SIZE_LIMIT = 512
MIXED = "Its components come from different checkpoints, or one was damaged: download it again."
OTHER_INPUTS = (
    "addition_embed_type",
    "class_embed_type",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "num_class_embeds",
    "time_cond_proj_dim",
)


def check_fit(checkpoint: Checkpoint, tokenizer: Any, text_encoder: Any, unet: Any, vae: Any) -> None:
    """Raises DamagedFile where one component's size does not fit another's, NotACheckpoint for other kinds of UNet."""
    _check_rows(checkpoint, tokenizer, int(text_encoder.config.vocab_size))
    _check_kind(checkpoint, unet, vae)
    width, heard = text_encoder.config.hidden_size, unet.config.cross_attention_dim
    where = checkpoint.show("")
    if heard != width:
        raise DamagedFile(f"{where}: the UNet reads texts of width {heard}, the encoder writes {width}.", hint=MIXED)
    size = unet.config.sample_size
    sizes = [size] if isinstance(size, int) else size
    if not isinstance(sizes, (list, tuple)) or len(sizes) > 2 or not all(_whole(n, SIZE_LIMIT) for n in sizes):
        raise DamagedFile(f"{checkpoint.show('unet/config.json')} gives no usable sample_size.", hint=MIXED)
    scale = vae.config.scaling_factor
    if not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale <= 0:
        raise DamagedFile(f"{checkpoint.show('vae/config.json')} gives no usable scaling_factor.", hint=MIXED)


def context_length(checkpoint: Checkpoint, tokenizer: Any, text_encoder: Any) -> int:
    """Tokens of a prompt, as diffusers pads it: the tokenizer's limit, which the encoder's positions must allow."""
    positions = int(text_encoder.config.max_position_embeddings)
    limit = tokenizer.model_max_length
    if isinstance(limit, (int, float)) and limit > NO_LIMIT:
        return positions
    if not _whole(limit, positions) or limit < 3:
        raise DamagedFile(
            f"{checkpoint.show('tokenizer')} allows {limit!a} tokens; the text encoder has {positions} positions.",
            hint="The tokenizer does not belong to this text encoder. " + MIXED,
        )
    return int(limit)


def _check_rows(checkpoint: Checkpoint, tokenizer: Any, rows: int) -> None:
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= rows:
        raise DamagedFile(
            f"{checkpoint.show('tokenizer')} has the token id {highest:,}, but the text encoder has {rows:,} rows.",
            hint="The tokenizer does not belong to this text encoder. " + MIXED,
        )


def _check_kind(checkpoint: Checkpoint, unet: Any, vae: Any) -> None:
    takes, gives, latent = unet.config.in_channels, unet.config.out_channels, vae.config.latent_channels
    others = [key for key in OTHER_INPUTS if unet.config.get(key) is not None]
    if not takes == gives == latent:
        what = f"takes {takes} channels and gives {gives}, while the VAE has {latent}"
    elif others:
        what = f"asks for inputs beside a text ({', '.join(others)})"
    else:
        return
    raise NotACheckpoint(
        f"{checkpoint.show('unet/config.json')}: the UNet {what}.",
        hint="Only text-to-image checkpoints are scanned (no inpainting, depth or upscaling).",
    )


def _whole(number: object, limit: int) -> bool:
    return type(number) is int and 0 < number <= limit
