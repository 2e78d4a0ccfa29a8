"""Where the third-party data lies that is used in tests and never copied into the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(os.environ.get("SAU_SCAN_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "third_party"


def third_party(relative: str) -> Path:
    """Path of a file of the third-party data; the test is skipped where it is absent."""
    path = _ROOT / relative
    if not path.exists():
        pytest.skip(f"third-party data not here: {path}")
    return path
