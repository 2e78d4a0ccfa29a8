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
    with pytest.raises(UsageError, match="is a file"):
        demo.scan(tmp_path / "mine")
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


@pytest.mark.parametrize("out", [".", "../link"])
def test_what_is_stopped_leaves_an_empty_folder_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    monkeypatch.chdir(folder)

    def stopped(found: object, place: Path, progress: object) -> None:
        (place / "half").write_text("x")
        (place / "pictures").mkdir()
        (place / "pictures/half").write_text("x")
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_repair", stopped)
    with pytest.raises(KeyboardInterrupt):
        demo.repair(scan(), Path(out))
    assert Path.cwd() == folder and not list(folder.iterdir())
    assert link.is_symlink() and set(tmp_path.iterdir()) == {folder, link}


def test_what_stopped_it_is_told_though_the_folder_cannot_be_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"
    _prepare(out)

    def refused(*_: object) -> None:
        raise PermissionError("not now")

    def stopped(*_: object) -> None:
        monkeypatch.setattr(Path, "rename", refused)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_repair", stopped)
    with pytest.raises(KeyboardInterrupt):
        demo.repair(scan(), out)
    assert _aside(out).exists()


def test_a_folder_in_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="no does not exist") as caught:
        demo.scan(tmp_path / "no/demo")
    assert "mkdir -p" in caught.value.hint and not list(tmp_path.iterdir())
