"""Weights that cannot be honest numbers."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sau_scan.checkpoint.source import DOWNLOAD_AGAIN, Checkpoint
from sau_scan.checkpoint.tensor_file import read_entries, read_tensor
from sau_scan.errors import CheckpointError
from sau_scan.findings import Evidence, Finding, Severity, Skipped
from sau_scan.static.facts import file_finding, shell_path


def check_weights(checkpoint: Checkpoint) -> list[Finding | Skipped]:
    """One finding for each weight file with values that are NaN or infinite; Skipped for a file that is no file."""
    results: list[Finding | Skipped] = []
    files = {file for files in checkpoint.weights.values() for file in files if file.endswith(".safetensors")}
    for file in sorted(files):
        try:
            results += _check(checkpoint, file)
        except CheckpointError as error:
            results.append(Skipped(what=file, reason=str(error), planned=True))
    return results


def _check(checkpoint: Checkpoint, file: str) -> Iterator[Finding]:
    data = checkpoint.read_buffer(file)
    entries = read_entries(data, checkpoint.show(file))
    counts: dict[str, int] = {}
    for name, entry in entries.items():
        if entry.dtype.is_floating_point:
            bad = int((~torch.isfinite(read_tensor(data, entry).float())).sum())
            if bad:
                counts[name] = bad
    if counts:
        first = next(iter(counts))
        finding = file_finding(
            checkpoint,
            "nan-weights",
            Severity.HIGH,
            file,
            "weights that are not numbers",
            f"{len(counts):,} of {len(entries):,} tensors hold NaN or infinite values. {DOWNLOAD_AGAIN}",
            tensor=first if first.isprintable() else ascii(first),
            next_step=f"sha256sum {shell_path(checkpoint, file)}",
        )
        yield finding.model_copy(
            update={"evidence": (Evidence(name="values that are not numbers", value=sum(counts.values())),)}
        )
