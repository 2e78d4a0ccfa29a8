"""How a fact about a file becomes a finding."""

from __future__ import annotations

import shlex

from sau_scan.checkpoint.source import Checkpoint
from sau_scan.findings import Component, Confidence, Finding, Kind, Location, Severity

COMPONENTS = {
    "text_encoder": Component.TEXT_ENCODER,
    "text_encoder_2": Component.TEXT_ENCODER,
    "text_encoder_3": Component.TEXT_ENCODER,
    "tokenizer": Component.TOKENIZER,
    "tokenizer_2": Component.TOKENIZER,
    "tokenizer_3": Component.TOKENIZER,
    "transformer": Component.UNET,
    "unet": Component.UNET,
    "vae": Component.VAE,
}


def file_finding(
    checkpoint: Checkpoint,
    rule: str,
    severity: Severity,
    path: str,
    title: str,
    behaviour: str,
    *,
    tensor: str | None = None,
    next_step: str = "",
) -> Finding:
    """A finding of kind ``file``; ``rule`` is the part of its id after ``file/``."""
    return Finding(
        id=f"file/{rule}",
        kind=Kind.FILE,
        severity=severity,
        confidence=Confidence.CERTAIN,
        component=COMPONENTS.get(path.split("/")[0], Component.FILE),
        title=title,
        behaviour=behaviour,
        location=Location(path=path, tensor=tensor),
        next_step=next_step or f"less {shell_path(checkpoint, path)}",
    )


def shell_path(checkpoint: Checkpoint, path: str = "") -> str:
    """A path below the checkpoint, quoted for a shell."""
    return shlex.quote(str(checkpoint.root / path))
