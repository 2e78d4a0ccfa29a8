"""Tensors of a file that no component takes: nobody scanned them, so reports tell of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sau_scan.checkpoint.naming import is_derived
from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.checkpoint.views import TensorRef
from sau_scan.checkpoint.weights import weight_file
from sau_scan.findings import Skipped

# What trainers leave in single files, as far as it is known from print.
LEFTOVERS: Mapping[str, re.Pattern[str]] = {
    "moving averages of the UNet, which programs load only when they are told to": re.compile(r"model_ema\..+"),
    "the noise schedule, which programs compute": re.compile(
        r"(model\.)?((sqrt_|log_|one_|minus_|recip_|recipm1_)*(alphas|betas)(_cumprod)?(_prev)?"
        r"|posterior_\w+|lvlb_weights|logvar|scale_factor|denoiser\.(sigmas|log_sigmas))"
    ),
    "parts of CLIP that make no picture": re.compile(
        r".*(logit_scale|position_ids|model\.text_projection|transformer\.resblocks\.23\..+)|text_projection"
    ),
    "losses of the VAE's training": re.compile(r"first_stage_model\.loss\..+"),
}
UNKNOWN = "no component takes them, and nothing is known of them; another program could"


def strays(checkpoint: Checkpoint, used: Iterable[TensorRef]) -> tuple[Skipped, ...]:
    """What a single file or bare weights hold beside the tensors that are ``used``: counts, each with an example."""
    if checkpoint.form not in (Form.SINGLE, Form.DENOISER, Form.TEXT_ENCODER):
        return ()
    taken = {ref.name for ref in used}
    found: dict[str, list[str]] = {}
    for name in weight_file(checkpoint, checkpoint.file).entries:
        if name not in taken:
            found.setdefault(_reason(name), []).append(name)
    return tuple(
        Skipped(what=f"{len(names):,} tensors such as {ascii(names[0])[:120]}", reason=reason)
        for reason, names in found.items()
    )


def _reason(name: str) -> str:
    if is_derived(name):
        return "computed, not loaded, by current libraries"
    return next((reason for reason, pattern in LEFTOVERS.items() if pattern.fullmatch(name)), UNKNOWN)
