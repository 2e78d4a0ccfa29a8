"""Over the whole corpus: what is hostile is found and does not run, what is benign raises no alarm."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import sau_scan.scan
from sau_scan.cli.app import app
from sau_scan.cli.exits import Code
from sau_scan.errors import TooLittleTime
from sau_scan.findings import Severity
from sau_scan.static import vet_file
from tests.corpus import BENIGN, HOSTILE, SAMPLES, Sample, make
from tests.corpus.verdicts import right

CANARY = "canary"


def named(samples: tuple[Sample, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("sample", samples, ids=[sample.id for sample in samples])


@named(SAMPLES)
def test_vetting_finds_what_is_hostile_and_runs_nothing(sample: Sample, tmp_path: Path) -> None:
    path = make(sample, tmp_path, tmp_path / CANARY)
    results = vet_file(path)
    assert not (tmp_path / CANARY).exists()
    assert right(sample, results), (sample.what, results)


@pytest.fixture
def no_probing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is opened, vetted and loaded, and then nothing is asked of it."""

    def stop(*_: object) -> None:
        raise TooLittleTime("enough seen", hint="Nothing to do.")

    monkeypatch.setattr(sau_scan.scan, "examine", stop)


@pytest.mark.usefixtures("no_probing")
@named(tuple(sample for sample in HOSTILE if sample.load))
def test_detect_runs_nothing(sample: Sample, tmp_path: Path) -> None:
    path = make(sample, tmp_path, tmp_path / CANARY)
    result = CliRunner().invoke(app, ["detect", str(path)])
    assert not (tmp_path / CANARY).exists()
    assert result.exit_code == Code.FOUND, result.output


@pytest.mark.slow
@pytest.mark.usefixtures("no_probing")
@named(tuple(sample for sample in HOSTILE if not sample.load))
def test_detect_stops_at_a_blocking_file(sample: Sample, tmp_path: Path) -> None:
    """The rest of the hostile half: never clean, never a traceback."""
    path = make(sample, tmp_path, tmp_path / CANARY)
    result = CliRunner().invoke(app, ["detect", str(path)])
    assert not (tmp_path / CANARY).exists()
    assert result.exit_code in (Code.FOUND, Code.USAGE, Code.INCOMPLETE), result.output


@pytest.mark.slow
@pytest.mark.usefixtures("no_probing")
@named(BENIGN)
def test_detect_blames_no_benign_file(sample: Sample, tmp_path: Path) -> None:
    path = make(sample, tmp_path, tmp_path / CANARY)
    result = CliRunner().invoke(app, ["detect", str(path), "--fail-on", Severity.MEDIUM.value])
    assert result.exit_code in (Code.USAGE, Code.INCOMPLETE), result.output
