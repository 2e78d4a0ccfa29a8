"""What a file of weights is, told by the names of its tensors: their layouts are known from print and from trainers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from os.path import isfile  # unlike Path's, it raises nothing
from typing import Any

from sau_scan.checkpoint.adapters.inversion import is_inversion
from sau_scan.checkpoint.adapters.lora import grouped
from sau_scan.checkpoint.adapters.peft import ADAPTER_WEIGHTS
from sau_scan.checkpoint.files import opened
from sau_scan.checkpoint.naming import WEIGHT_NAMES
from sau_scan.checkpoint.shipped import shipped_files
from sau_scan.checkpoint.source import ADAPTER_CONFIG, INDEX, JSON_LIMIT, Checkpoint, Form, parse_json
from sau_scan.checkpoint.tensor_file import Entry
from sau_scan.checkpoint.weights import weight_file
from sau_scan.errors import NotACheckpoint, UsageError
from sau_scan.findings import escape

UNET_PREFIX = "model.diffusion_model."
ADAPTER_MARKS = ("lora_", ".lora.", "_lora.", "hada_w", "lokr_w", ".dora_scale", ".oft_blocks")
DENOISER_MARKS = ("down_blocks.", "input_blocks.", "mid_block.", "middle_block.", "transformer_blocks.")
ENCODER_MARKS = ("embeddings.token_embedding.weight", "token_embedding.weight")
KNOWN = (
    "Known are single files of Stable Diffusion, bare UNets and text encoders, LoRAs, and embeddings as A1111 "
    "(string_to_param, emb_params), diffusers (one table called as the word) and Stable Diffusion XL (clip_l, clip_g) "
    "have them."
)


def recognise(checkpoint: Checkpoint) -> tuple[Form, str]:
    """The form of a file, and the family that a single file's names speak for (empty for the others).

    Raises NotACheckpoint for a file of something else or another kind of adapter, and whatever reading the file raises.
    """
    if checkpoint.root.suffix.lower() not in WEIGHT_NAMES:
        raise NotACheckpoint(
            f"{checkpoint.show(checkpoint.file)} is called as no file of weights that is read here.",
            hint=f"Read are {', '.join(sorted(WEIGHT_NAMES))}; of other formats, scan the weights they were made from.",
        )
    entries = weight_file(checkpoint, checkpoint.file).entries
    form = form_of(entries)
    if form is None:
        some = ", ".join(ascii(name)[:60] for name in list(entries)[:3]) or "no tensor at all"
        raise NotACheckpoint(
            f"It is not known what {checkpoint.show(checkpoint.file)} is; it holds {some}{_told_beside(checkpoint)}.",
            hint=KNOWN,
        )
    if form is Form.LORA:
        grouped(entries, checkpoint.show(checkpoint.file))  # other kinds of adapters are refused whatever the base is
    return form, family_of(entries) if form is Form.SINGLE else ""


def _has_settings(checkpoint: Checkpoint) -> bool:
    """Whether PEFT's settings lie beside a file that is called as PEFT would look for it."""
    return checkpoint.file in ADAPTER_WEIGHTS and isfile(checkpoint.folder / ADAPTER_CONFIG)


def _told_beside(checkpoint: Checkpoint) -> str:
    """What PEFT's settings say that an unknown adapter is, as the rest of a sentence about it."""
    if not _has_settings(checkpoint):
        return ""
    with opened(checkpoint.folder, ADAPTER_CONFIG) as file:
        settings = parse_json(file.read(JSON_LIMIT + 1), escape(str(checkpoint.folder / ADAPTER_CONFIG)))
    return f", and {ADAPTER_CONFIG} calls it {ascii(settings.get('peft_type'))[:60]}"


def form_of(entries: Mapping[str, Entry]) -> Form | None:
    names = list(entries)
    if _any(names, ADAPTER_MARKS, anywhere=True):
        return Form.LORA
    if _any(names, (UNET_PREFIX,)):
        return Form.SINGLE
    if _any(names, DENOISER_MARKS) or _any([n.removeprefix("unet.") for n in names], DENOISER_MARKS):
        return Form.DENOISER
    if any(name.endswith(ENCODER_MARKS) for name in names):
        return Form.TEXT_ENCODER
    return Form.EMBEDDING if is_inversion(entries) else None


def has_settings(checkpoint: Checkpoint) -> bool:
    """Whether PEFT's settings lie beside a LoRA that PEFT would read them for: others say themselves how strong they
    are, though diffusers, too, spells its tensors so."""
    if not _has_settings(checkpoint):
        return False
    return _any(weight_file(checkpoint, checkpoint.file).entries, (".lora_A.",), anywhere=True)


def family_of(entries: Mapping[str, Entry]) -> str:
    """Which shipped configuration a single file goes with; empty where its names do not tell."""
    if _any(entries, ("conditioner.embedders.1.",)):
        return "sdxl"
    if _any(entries, ("cond_stage_model.model.",)):
        return "sd2"
    if _any(entries, ("cond_stage_model.transformer.",)):
        return "sd1"
    return ""


def require_base(checkpoint: Checkpoint, form: Form, base: Checkpoint | None) -> None:
    """Raises UsageError where a base is missing."""
    shown = checkpoint.show(checkpoint.file)
    if base is None and form is not Form.SINGLE:
        raise UsageError(
            f"{shown} is a {form.value}: it says nothing without the checkpoint that it is used with.",
            hint="Name that checkpoint with --base.",
        )


def shipped_index(family: str) -> tuple[dict[str, Any], Mapping[str, bytes]]:
    """``model_index.json`` and all other configuration of ``family``. Raises UsageError for none."""
    if not family:
        raise UsageError(
            "The file holds a UNet without a text encoder that could be recognised.",
            hint="Name the checkpoint that it is used with: --base BASE.",
        )
    files = shipped_files(family)
    return json.loads(files[INDEX]), files


def _any(names: Iterable[str], marks: tuple[str, ...], *, anywhere: bool = False) -> bool:
    if anywhere:
        return any(mark in name for name in names for mark in marks)
    return any(name.startswith(marks) for name in names)
