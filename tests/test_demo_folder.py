"""The demo replaces what an earlier demo left, and nothing else, and not before there is something new."""

from __future__ import annotations

from pathlib import Path

import pytest

from sau_scan.demo import _aside, _prepare
from sau_scan.errors import UsageError


def test_results_of_the_run_before_stay_until_there_are_new_ones(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    _prepare(out)
    (out / "report.txt").write_text("first")
    for _ in range(2):  # the second run, and, after it was interrupted, the third
        _prepare(out)
        assert not (out / "report.txt").exists()
        assert (_aside(out) / "report.txt").read_text() == "first"
        (out / "half").write_text("x")


def test_a_folder_that_no_demo_wrote_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UsageError, match="is not empty"):
        _prepare(tmp_path)
    assert (tmp_path / "mine").exists()
