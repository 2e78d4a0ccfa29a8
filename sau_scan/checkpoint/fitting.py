"""Whether the components of a checkpoint belong together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sau_scan.checkpoint.families import Family
from sau_scan.checkpoint.layouts import provides
from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint, SauScanError, UsageError, about_base
from sau_scan.findings import escape

# What transformers writes when a tokenizer has no limit of its own is larger.
NO_LIMIT = 10**6
# Latents of 512 are pictures of 4,096 pixels, beyond these families.
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


def check_fit(checkpoint: Checkpoint, family: Family, tokenizers: Sequence[Any], modules: Mapping[str, Any]) -> None:
    """Raises DamagedFile where one component's size does not fit another's, UsageError where it is of a base that does
    not fit, NotACheckpoint for other kinds of denoiser.

    ``modules``: by component. ``tokenizers``: those of the family's encoders that are there.
    """
    pairs = [pair for pair in family.encoders if pair[1] in modules]
    for tokenizer, (name, encoder) in zip(tokenizers, pairs, strict=True):
        _check_rows(checkpoint, name, tokenizer, int(modules[encoder].config.vocab_size))
    denoiser, vae = modules[family.denoiser], modules["vae"]
    _check_kind(checkpoint, family, denoiser, vae)
    _check_widths(checkpoint, family, modules)
    config = f"{family.denoiser}/config.json"
    size = denoiser.config.get("sample_size") if family.id != "flux" else vae.config.get("sample_size")
    limit = SIZE_LIMIT
    if family.id == "flux":
        config, limit = "vae/config.json", 8 * SIZE_LIMIT
    sizes = [size] if isinstance(size, int) else size
    if not isinstance(sizes, (list, tuple)) or len(sizes) > 2 or not all(_whole(n, limit) for n in sizes):
        raise DamagedFile(f"{checkpoint.show(config)} gives no usable sample_size.", hint=MIXED)
    scale = vae.config.scaling_factor
    if not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale <= 0:
        raise DamagedFile(f"{checkpoint.show('vae/config.json')} gives no usable scaling_factor.", hint=MIXED)


def check_used(checkpoint: Checkpoint, family: Family) -> None:
    """Raises UsageError for a file that a base of this ``family`` would not use: what is scanned is the base alone."""
    if checkpoint.form in (Form.SINGLE, Form.DENOISER) and not provides(checkpoint, family.denoiser):
        raise UsageError(
            f"{checkpoint.show(checkpoint.file)} holds no {family.denoiser} that can be used with a base of "
            f"{family.title}.",
            hint="Name the checkpoint that it was made for as --base, or scan the whole folder that it is part of.",
        )


@contextmanager
def asked_of(base: Checkpoint | None) -> Iterator[None]:
    """What the block finds wrong is so with ``base``, where there is one; where something is missing, another has to be
    named."""
    try:
        yield
    except NotACheckpoint as error:
        if base is None:
            raise
        raise UsageError(f"--base {error}", hint=error.hint) from error
    except CheckpointError as error:
        if base is not None:
            about_base(error)
        raise


def misfit(checkpoint: Checkpoint, what: str) -> SauScanError:
    """The error for an input whose parts do not fit each other: with a base, that is another's."""
    if checkpoint.base is None or checkpoint.form not in (Form.SINGLE, Form.DENOISER, Form.TEXT_ENCODER):
        return DamagedFile(f"{checkpoint.show('')}: {what}.", hint=MIXED)
    return UsageError(
        f"{checkpoint.show(checkpoint.file)} does not fit --base ({escape(str(checkpoint.base.root))}): {what}.",
        hint="Name the checkpoint that it was made for as --base, or download the file again.",
    )


def context_length(checkpoint: Checkpoint, component: str, tokenizer: Any, text_encoder: Any, longest: int) -> int:
    """Tokens of a prompt, as diffusers pads it: the tokenizer's limit, which the encoder's positions must allow.

    ``longest``: for T5, which has no positions, the length to which the pipeline pads.
    """
    positions = int(getattr(text_encoder.config, "max_position_embeddings", longest))
    limit = tokenizer.model_max_length
    if isinstance(limit, (int, float)) and (limit > NO_LIMIT or (limit > longest and _is_t5(text_encoder))):
        return positions
    if not _whole(limit, positions) or limit < 3:
        raise DamagedFile(
            f"{checkpoint.show(component)} allows {limit!a} tokens; the text encoder has {positions} positions.",
            hint="The tokenizer does not belong to this text encoder. " + MIXED,
        )
    return int(limit)


def _is_t5(text_encoder: Any) -> bool:
    return str(text_encoder.config.model_type) == "t5"


def _check_rows(checkpoint: Checkpoint, component: str, tokenizer: Any, rows: int) -> None:
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= rows:
        told = f"has the token id {highest:,}, but the text encoder has {rows:,} rows"
        if checkpoint.form is Form.TEXT_ENCODER:
            raise misfit(checkpoint, f"its {component} {told}")
        raise DamagedFile(
            f"{checkpoint.show(component)} {told}.",
            hint="The tokenizer does not belong to this text encoder. " + MIXED,
        )


def _check_kind(checkpoint: Checkpoint, family: Family, denoiser: Any, vae: Any) -> None:
    config = denoiser.config
    patch = 4 if family.id == "flux" else 1  # FLUX packs the channels of four places
    takes, latent = config.in_channels, vae.config.latent_channels * patch
    gives = config.get("out_channels") or takes
    # PixArt predicts a variance as well.
    fitting = {latent, 2 * latent} if family.id.startswith("pixart") else {latent}
    expected = ("text_time",) if family.id == "sdxl" else ()
    others = [key for key in OTHER_INPUTS if config.get(key) is not None and config.get(key) not in expected]
    if takes != latent or gives not in fitting:
        what = f"takes {takes} channels and gives {gives}, while the VAE has {latent}"
    elif others:
        what = f"asks for inputs beside a text ({', '.join(others)})"
    elif family.id == "sdxl" and config.get("addition_embed_type") != "text_time":
        what = "asks for no embedding of the whole prompt"
    else:
        return
    raise NotACheckpoint(
        f"{checkpoint.show(family.denoiser + '/config.json')}: the denoiser {what}.",
        hint="Only text-to-image checkpoints are scanned (no inpainting, depth or upscaling).",
    )


def _check_widths(checkpoint: Checkpoint, family: Family, modules: Mapping[str, Any]) -> None:
    """The width of the texts, and of what the denoiser is told of the whole prompt."""
    denoiser = modules[family.denoiser].config
    encoders = {name: modules[name].config for _, name in family.encoders if name in modules}
    for heard, width, what in WIDTHS[family.id](denoiser, encoders):
        if heard != width:
            told = f"the denoiser reads {what} of width {heard}, the encoders write {width}"
            raise misfit(checkpoint, told)


Widths = list[tuple[Any, Any, str]]


def _one_text(denoiser: Any, encoders: Mapping[str, Any]) -> Widths:
    return [(denoiser.cross_attention_dim, encoders["text_encoder"].hidden_size, "texts")]


def _two_texts(denoiser: Any, encoders: Mapping[str, Any]) -> Widths:
    first, second = encoders["text_encoder"], encoders["text_encoder_2"]
    told = second.projection_dim + 6 * (denoiser.addition_time_embed_dim or 0)
    return [
        (denoiser.cross_attention_dim, first.hidden_size + second.hidden_size, "texts"),
        (denoiser.projection_class_embeddings_input_dim, told, "prompt embeddings and sizes"),
    ]


def _three_texts(denoiser: Any, encoders: Mapping[str, Any]) -> Widths:
    first, second = encoders["text_encoder"], encoders["text_encoder_2"]
    width, both = denoiser.joint_attention_dim, first.hidden_size + second.hidden_size
    third = encoders.get("text_encoder_3")
    return [
        # CLIP's are filled up to T5's width.
        (width, max(both, third.d_model if third else width), "texts"),
        (denoiser.pooled_projection_dim, first.projection_dim + second.projection_dim, "prompt embeddings"),
    ]


def _long_text_and_whole(denoiser: Any, encoders: Mapping[str, Any]) -> Widths:
    return [
        (denoiser.joint_attention_dim, encoders["text_encoder_2"].d_model, "texts"),
        (denoiser.pooled_projection_dim, encoders["text_encoder"].hidden_size, "prompt embeddings"),
    ]


def _long_text(denoiser: Any, encoders: Mapping[str, Any]) -> Widths:
    return [(denoiser.caption_channels, encoders["text_encoder"].d_model, "texts")]


WIDTHS = {
    "sd1": _one_text,
    "sd2": _one_text,
    "sdxl": _two_texts,
    "sd3": _three_texts,
    "flux": _long_text_and_whole,
    "pixart": _long_text,
    "pixart-sigma": _long_text,
}


def _whole(number: object, limit: int) -> bool:
    return type(number) is int and 0 < number <= limit
