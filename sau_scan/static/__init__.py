"""Checks of a checkpoint's files, without running the model."""

from __future__ import annotations

from sau_scan.checkpoint.source import Checkpoint
from sau_scan.findings import Finding, Skipped
from sau_scan.static.facts import blocks
from sau_scan.static.vetting import vet_file
from sau_scan.static.watch import Sink, Watch

__all__ = ["Sink", "Watch", "blocks", "check_files", "vet_file"]


def check_files(checkpoint: Checkpoint) -> list[Finding | Skipped]:
    """Everything about the files of an opened checkpoint. They are read again; a :class:`Watch` saves that."""
    return vet_file(checkpoint.root)
