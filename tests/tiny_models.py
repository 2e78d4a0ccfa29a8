"""Tiny pipelines of every family with random weights, built in code and saved as ordinary folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from tests.conftest import CONTEXT, WORDS, tiny_tokenizer

WIDTH = 32
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FAMILIES = ("sd2", "sdxl", "sd3", "sd3 without T5", "flux", "pixart", "pixart-sigma")


def tiny_t5_tokenizer() -> T5Tokenizer:
    """Unigrams of ``WORDS`` and of letters; padded and cut to ``CONTEXT``."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,-'"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -3.0) for word in WORDS] + [(f"▁{letter}", -6.0) for letter in letters]
    pieces += [(letter, -6.0) for letter in letters]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=CONTEXT)


def tiny_clip(width: int = WIDTH, *, projected: bool = False, **changes: Any) -> Any:
    """A CLIP text encoder with three layers, so that the last but one is not the first."""
    tokenizer = tiny_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        projection_dim=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
        **changes,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def bang_tokenizer() -> Any:
    """As OpenCLIP's towers are used: prompts are filled up with the token 0, which is "!"."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = "!"
    assert tokenizer.pad_token_id == 0
    return tokenizer


def tiny_t5(width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tiny_t5_tokenizer()),
            d_model=width,
            d_kv=8,
            d_ff=2 * width,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    )


def tiny_vae(channels: int = 4, **changes: Any) -> AutoencoderKL:
    """64x64 pictures, latents of 8x8."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=64,
        **changes,
    )


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(32, 64),
        norm_num_groups=8,
        use_linear_projection=True,
        attention_head_dim=[2, 4],
        **changes,
    )


def tiny_sd2() -> StableDiffusionPipeline:
    unet = tiny_unet(
        cross_attention_dim=WIDTH,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        upcast_attention=True,
    )
    scheduler = DDIMScheduler(
        **BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction"
    )
    return StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_clip(hidden_act="gelu"),
        tokenizer=bang_tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_sdxl(**options: Any) -> StableDiffusionXLPipeline:
    unet = tiny_unet(
        cross_attention_dim=WIDTH + 40,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2],
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    return StableDiffusionXLPipeline(
        vae=tiny_vae(force_upcast=True),
        text_encoder=tiny_clip(),
        text_encoder_2=tiny_clip(40, projected=True, hidden_act="gelu"),
        tokenizer=tiny_tokenizer(),
        tokenizer_2=bang_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
        **options,
    )


def tiny_sd3(*, t5: bool = True) -> StableDiffusion3Pipeline:
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=80,
        caption_projection_dim=32,
        pooled_projection_dim=48,
        pos_embed_max_size=12,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_vae(8, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=tiny_clip(projected=True),
        tokenizer=tiny_tokenizer(),
        text_encoder_2=tiny_clip(40, projected=True, hidden_act="gelu"),
        tokenizer_2=bang_tokenizer(),
        text_encoder_3=tiny_t5(80) if t5 else None,
        tokenizer_3=tiny_t5_tokenizer() if t5 else None,
    )


def tiny_flux() -> FluxPipeline:
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=40,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=tiny_vae(4, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=tiny_clip(),
        tokenizer=tiny_tokenizer(),
        text_encoder_2=tiny_t5(40),
        tokenizer_2=tiny_t5_tokenizer(),
    )


def tiny_pixart(
    kind: type[PixArtAlphaPipeline] | type[PixArtSigmaPipeline] = PixArtAlphaPipeline, **changes: Any
) -> Any:
    config: dict[str, Any] = {
        "num_attention_heads": 4,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 2,
        "cross_attention_dim": 48,
        "sample_size": 8,
        "caption_channels": 40,
    }
    transformer = PixArtTransformer2DModel(**{**config, **changes})
    return kind(
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear"),
        vae=tiny_vae(),
        text_encoder=tiny_t5(40),
        tokenizer=tiny_t5_tokenizer(),
    )


def tiny_of(family: str, seed: int = 0) -> Any:
    """The pipeline of a family, one of ``FAMILIES``."""
    torch.manual_seed(seed)
    made = {
        "sd2": tiny_sd2,
        "sdxl": tiny_sdxl,
        "sd3": tiny_sd3,
        "sd3 without T5": lambda: tiny_sd3(t5=False),
        "flux": tiny_flux,
        "pixart": tiny_pixart,
        "pixart-sigma": lambda: tiny_pixart(PixArtSigmaPipeline),
    }[family]()
    made.set_progress_bar_config(disable=True)
    return made


def save(family: str, folder: Path, seed: int = 0) -> Path:
    tiny_of(family, seed).save_pretrained(folder)
    return folder
