"""The demo replaces what an earlier demo left, and nothing else, and not before there is something new."""

from __future__ import annotations

from pathlib import Path

import pytest

from sau_scan import demo
from sau_scan.demo import _aside, _prepare
from sau_scan.errors import UsageError, WriteError
from tests.test_verify import scan


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


@pytest.mark.parametrize("before", [None, {}, {"report.txt": "first"}])
def test_what_is_stopped_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: dict[str, str] | None
) -> None:
    out = tmp_path / "demo"
    if before is not None:
        out.mkdir()
    if before:
        _prepare(out)
        (out / "report.txt").write_text(before["report.txt"])

    def stopped(found: object, place: Path, progress: object) -> None:
        (place / "half").write_text("x")
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_repair", stopped)
    with pytest.raises(KeyboardInterrupt):
        demo.repair(scan(), out)
    assert list(tmp_path.iterdir()) == ([] if before is None else [out])
    assert before is None or {p.name: p.read_text() for p in out.glob("[!.]*")} == before


def test_a_folder_in_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="no does not exist") as caught:
        demo.scan(tmp_path / "no/demo")
    assert "mkdir -p" in caught.value.hint and not list(tmp_path.iterdir())
