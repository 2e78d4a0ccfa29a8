"""Shared fixtures: a tiny Stable Diffusion with random weights, saved as an ordinary folder."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from hypothesis import settings
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

# Correct or not, not fast or slow: a machine with other work on it must not fail a test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

CONTEXT = 16
WIDTH = 32
# Pieces merged one after the other; the last of each word ends it.
WORDS = ("cat", "dog", "red", "blue", "house", "photo", "of", "and", "the", "star")


def tiny_tokenizer() -> CLIPTokenizer:
    """A byte-level CLIP tokenizer of about 540 tokens that knows ``WORDS`` whole."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.append("".join(pair))
            pieces[:2] = ["".join(pair)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    ids = {token: number for number, token in enumerate(vocabulary)}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=CONTEXT)


def tiny_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """64x64 pictures, latents 4x8x8, text width 32, UNet (32, 64) with cross-attention at both levels."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        sample_size=64,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random pipeline. Shared: tests that change files work on a copy."""
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def copy_of(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may change."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


Lock = Callable[[Path], None]


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Lock:
    """Makes a folder one that may be listed, but not entered; by hand, since no permission stops root."""

    def locked(folder: Path) -> None:
        for name in ("stat", "lstat"):
            monkeypatch.setattr(os, name, refusing(getattr(os, name), folder))

    def refusing(plain: Callable[..., os.stat_result], folder: Path) -> Callable[..., os.stat_result]:
        def ask(path: int | str | os.PathLike[str], **options: object) -> os.stat_result:
            if not isinstance(path, int) and folder in Path(path).absolute().parents:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return plain(path, **options)

        return ask

    return locked


@pytest.fixture
def deny(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Takes the permission to read a file, from root as well."""

    def take(path: Path) -> None:
        real_open, real_access, place = os.open, os.access, path.resolve()

        def refusing(name: Any, *given: Any, **options: Any) -> int:
            if str(name) == str(place):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name))
            return real_open(name, *given, **options)

        monkeypatch.setattr("os.open", refusing)
        monkeypatch.setattr("os.access", lambda name, mode: Path(name).resolve() != place and real_access(name, mode))

    return take
