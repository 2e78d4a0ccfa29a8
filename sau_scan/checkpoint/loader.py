"""From a vetted checkpoint to a model that was tried once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from sau_scan.checkpoint.adapters.applying import add_words, merge_lora
from sau_scan.checkpoint.builders import load_scheduler
from sau_scan.checkpoint.components import Disk, load_components
from sau_scan.checkpoint.families import Family, absent, identify
from sau_scan.checkpoint.fitting import MIXED, asked_of, check_fit, check_used, context_length
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.prediction import settle_prediction
from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.checkpoint.timing import fastest_dtype
from sau_scan.checkpoint.tokenizer import load_tokenizer
from sau_scan.errors import DamagedFile, UsageError
from sau_scan.findings import Skipped

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CORNER = 8  # of a latent: of a large model, a whole picture takes a gigabyte to draw


def load_model(checkpoint: Checkpoint, *, device: str = "cpu", dtype: str = "auto") -> DiffusionModel:
    """Builds the checkpoint's components on ``device`` and tries each of them once.

    ``dtype``: ``float32``, ``float16``, ``bfloat16``, ``auto`` (float32) or ``fastest`` (whatever a few timed passes of
    the denoiser say). Raises CheckpointError, or UsageError for an unknown device or type, or a base that does not fit.
    """
    with _quiet_libraries():
        whole = checkpoint.base or checkpoint  # what is no weights is all of the base, where there is one
        with asked_of(checkpoint.base):
            family = identify(whole)
            check_used(checkpoint, family)
            place, compute = _device(device), _dtype(dtype)
            missing = absent(whole, family)
            scheduler = load_scheduler(whole)
            pairs = [pair for pair in family.encoders if not missing & {*pair}]
            tokenizers = tuple(load_tokenizer(whole, name) for name, _ in pairs)
        disk: Disk = {}
        modules = load_components(checkpoint, [name for name in family.weighted if name not in missing], disk)
        expand, uneven = _adapt(
            checkpoint, family, dict(zip((name for name, _ in pairs), tokenizers, strict=True)), modules, disk
        )
        check_fit(checkpoint, family, tokenizers, modules)
        lengths = tuple(
            context_length(checkpoint, name, tokenizer, modules[encoder], family.t5_length)
            for tokenizer, (name, encoder) in zip(tokenizers, pairs, strict=True)
        )
        # Module.to itself: the method of diffusers warns about types, which are chosen on purpose here.
        for module in modules.values():
            torch.nn.Module.to(module, place)
        model = DiffusionModel(
            checkpoint,
            family,
            tokenizers,
            unet=modules.pop(family.denoiser),
            scheduler=scheduler,
            device=place,
            dtype=torch.float32,
            context_lengths=lengths,
            expand=expand,
            uneven=uneven,
            disk=disk,
            **modules,
        )
        if compute is None:
            _rehearse(model)  # what cannot make a picture cannot be timed
        _convert(model, compute or fastest_dtype(model))
        _rehearse(model)
        settle_prediction(model)
        return model


def _adapt(
    checkpoint: Checkpoint, family: Family, tokenizers: Mapping[str, Any], modules: Mapping[str, Any], disk: Disk
) -> tuple[tuple[tuple[str, str], ...], Skipped | None]:
    """Puts an adapter into its base; what it makes of words in prompts, and the other way to merge it."""
    if checkpoint.form is Form.LORA:
        return (), merge_lora(checkpoint, family, modules, disk)
    if checkpoint.form is Form.EMBEDDING:
        return (add_words(checkpoint, family, tokenizers, modules, disk),), None
    return (), None


def _convert(model: DiffusionModel, dtype: torch.dtype) -> None:
    """Everything in ``dtype``; a VAE that says it overflows in float16 is left in float32, as the pipelines decode."""
    for module in (*model.encoders.values(), model.unet):
        torch.nn.Module.to(module, dtype)
    upcast = dtype == torch.float16 and model.vae.config.get("force_upcast", False)
    torch.nn.Module.to(model.vae, torch.float32 if upcast else dtype)
    model.dtype = dtype


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """The libraries' warnings quote configurations as they are: text of a stranger's, on somebody's terminal."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def check_compute(device: str, dtype: str) -> None:
    """Raises UsageError for a device or type that cannot be used: before files are hashed rather than after."""
    _device(device)
    _dtype(dtype)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except Exception as error:  # by backend: RuntimeError, AssertionError, NotImplementedError
        raise UsageError(f"The device {name!a} cannot be used.", hint="Use --device cpu.") from error
    return device


def _dtype(name: str) -> torch.dtype | None:
    """The type of that name; None when it has to be measured."""
    known = {"auto": torch.float32, "fastest": None, **DTYPES}
    if name not in known:
        raise UsageError(f"Unknown type {name!a}.", hint=f"Use one of {', '.join(known)}.")
    return known[name]


@torch.no_grad()
def _rehearse(model: DiffusionModel) -> None:
    """One small run through everything. Raises DamagedFile if it fails: better here than halfway through a scan."""
    noise = torch.zeros(1, *model.latent_shape, device=model.device, dtype=model.dtype)
    try:
        model.schedule.sampler(2, noise[0, 0].numel() // 4, model.device)
        text = model.encode(model.token_ids(["a", ""]))
        predicted = model.predict_noise(noise, 1, text.hidden[:1])
        pictures = model.decode(noise[:, :, :CORNER, :CORNER])
    except Exception as error:  # a configuration that builds can still not fit together
        raise _unfit(model) from error
    sound = all(bool(torch.isfinite(part).all()) for part in (*text, predicted, pictures))
    rows = model.tokens_of(text.hidden).shape[1]
    if predicted.shape != noise.shape or rows < model.context_length or not sound:
        raise _unfit(model)


def _unfit(model: DiffusionModel) -> DamagedFile:
    what = "gives values that are not numbers" if model.dtype != torch.float32 else "cannot make a picture"
    hint = "Try --dtype float32." if model.dtype != torch.float32 else MIXED
    return DamagedFile(f"{model.checkpoint.show('')} loads, but {what} in {model.dtype}.", hint=hint)
