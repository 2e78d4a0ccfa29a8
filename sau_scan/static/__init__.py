"""Checks of a checkpoint's files, without running the model."""

from __future__ import annotations

from sau_scan.static.files import check_files
from sau_scan.static.weights import check_weights

__all__ = ["check_files", "check_weights"]
