"""What goes wrong around a replaced core: the message, the exit code, and the report that is still written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sau_scan.errors import DamagedFile, UnsafeFile, UsageError, WriteError
from sau_scan.findings import FixResult
from sau_scan.reports import read_result
from tests.cli.conftest import Core, Invoke
from tests.conftest import Lock
from tests.reports import samples


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("detect", "m", "-o", "a.html"), 2, "names no report format"),
        (("detect", "m", "-o", "missing/a.json"), 3, "does not exist"),
        (("detect", "m", "-o", "loose.yaml/a.json"), 3, "loose.yaml is a file, not a folder."),
        (("detect", "m", "-o", "loose.yaml/b/a.json"), 3, "loose.yaml is a file, not a folder."),
        (("detect", "m", "-o", f"{'x' * 256}/a.json"), 3, "Take a shorter name"),
        (("detect", "m", "-o", f"{'x' * 251}.json"), 3, "Take a shorter name"),
        (("detect", "m", "-o", "m/a.json"), 2, "inside the model"),
        (("detect", "m", "--fix"), 2, "--fix and --out belong together"),
        (("detect", "m", "--out", "o"), 2, "--fix and --out belong together"),
        (("detect", "m", "--fix", "--out", "o", "--method", "zzz"), 2, "Unknown method"),
        (("detect", "m", "--method", "sau"), 2, "--method is about a repair"),
        (("detect", "m", "--keep-failed"), 2, "--keep-failed is about a repair"),
        (("detect", "m", "--dry-run", "--fix", "--out", "o"), 2, "--dry-run repairs nothing"),
        (("detect", "m", "--dry-run", "-o", "a.sarif"), 2, "no form in SARIF"),
        (("detect", "m", "--declared-trigger", ""), 2, "declared-trigger is empty"),
        (("detect", "m", "--max-time", "soon"), 2, "is not a time"),
        (("detect", "m", "--min-coverage", "lots"), 2, "is not a share"),
        (("detect", "m", "--budget", "huge"), 2, ""),
        (("detect",), 2, ""),
        (("fix", "m"), 2, "--out is missing"),
        (("fix", "m", "--out", "o", "--slot", "prefix"), 2, "there is none"),
        (("fix", "m", "--out", "o", "--trigger", "x", "--from", "r.json"), 2, "exclude each other"),
        (("fix", "m", "--out", "o", "--trigger", "x"), 2, "Add --slot"),
        (("fix", "m", "--out", "o", "--from", "r.json"), 2, "cannot be read"),
        (("report", "missing.json"), 2, "cannot be read"),
        (("rules", "show", "nothing"), 2, "There is no rule"),
        (("rules", "show", ""), 2, "There is no rule ''."),
        (("rules", "list", "--rules", "missing"), 2, "missing does not exist"),
        (("rules", "list", "--rules", "m"), 2, "m holds no rules"),
        (("rules", "list", "--rules", "loose.yaml"), 2, "is no folder of rules, but a file"),
        (("report", "pipe.json"), 2, "pipe.json is not a regular file"),
        (("fix", "m", "--out", "o", "--from", "pipe.json"), 2, "pipe.json is not a regular file"),
        (("detect", "m", "-o", "pipe.json"), 2, "--output pipe.json is not a regular file"),
    ],
)
def test_what_cannot_work_fails_before_the_scan(
    core: Core, invoke: Invoke, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "loose.yaml").touch()
    os.mkfifo(tmp_path / "pipe.json")
    result = invoke(*words)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert core.calls == []


LONG = "a" * 300


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("detect", "m", "-o", "locked/a.json"), 3),
        (("detect", "m", "-o", f"{LONG}.json"), 3),
        (("detect", "m", "--fix", "--out", "locked/o"), 3),
        (("detect", "locked/m", "--fix", "--out", "o"), 3),
        (("detect", LONG, "--fix", "--out", "o"), 3),
        (("rules", "list", "--rules", "locked/rules"), 2),
        (("rules", "list", "--rules", LONG), 2),
        (("convert", "locked/a.ckpt", "b.safetensors"), 3),
        (("convert", "a.ckpt", "locked/in/b.safetensors"), 3),
        (("convert", "a.ckpt", f"{LONG}.safetensors"), 3),
    ],
)
def test_what_cannot_be_looked_at_is_no_bug(
    core: Core, invoke: Invoke, tmp_path: Path, lock: Lock, words: tuple[str, ...], code: int
) -> None:
    core.scan = DamagedFile("the model is broken.", hint="Mend it.")
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.ckpt").touch()
    lock(tmp_path / "locked")
    result = invoke(*words)
    assert result.exit_code == code, result.stderr


@pytest.mark.parametrize(
    ("name", "told"), [(f"./{LONG}", "does not exist"), ("./locked/m", "cannot be read: Permission denied")]
)
def test_a_path_that_cannot_be_looked_at_is_no_model(
    invoke: Invoke, tmp_path: Path, lock: Lock, name: str, told: str
) -> None:
    (tmp_path / "locked").mkdir()
    lock(tmp_path / "locked")
    result = invoke("detect", name)
    assert result.exit_code == 3, result.stderr
    assert f"error: {tmp_path / name} {told}." in " ".join(result.stderr.split())


def test_a_report_may_have_the_longest_name(core: Core, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    name = f"{'x' * 250}.json"
    assert invoke("detect", "m", "-o", name).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"m", name}


@pytest.mark.parametrize("words", [("m", "--base", ""), ("",), ("hf.co/org",), ("m", "--base", "ftp://x/y")])
def test_a_name_that_is_no_model_is_told_without_the_type_of_an_error(invoke: Invoke, words: tuple[str, ...]) -> None:
    result = invoke("detect", *words)
    assert result.exit_code == 2 and "Value error" not in result.stderr
    assert ("'--base'" if "--base" in words else "'MODEL'") in result.stderr


def test_an_expected_error_is_one_paragraph(core: Core, invoke: Invoke) -> None:
    core.scan = DamagedFile("m/unet.safetensors ends after 3 of 9 bytes.", hint="Download it again.")
    result = invoke("detect", "m")
    assert result.exit_code == 3
    assert result.stderr == ("error: m/unet.safetensors ends after 3 of 9 bytes.\n       Download it again.\nexit 3\n")
    assert result.stdout == ""


def test_a_model_that_cannot_be_scanned_still_has_a_report(core: Core, invoke: Invoke, tmp_path: Path) -> None:
    """A later step of a pipeline uploads it, whatever came of the scan."""
    core.scan = DamagedFile("It is cut short.", hint="Download it again.")
    result = invoke("detect", "m", "--output", "r.sarif", "--output", "r.json", "--format", "json")
    assert result.exit_code == 3
    assert read_result(tmp_path / "r.json") == samples.INCONCLUSIVE
    assert json.loads(result.stdout)["verdict"] == "inconclusive"
    assert (tmp_path / "r.sarif").exists()
    assert invoke("detect", "m").stdout == ""


def test_a_mistake_that_the_files_showed_has_a_report(core: Core, invoke: Invoke, tmp_path: Path) -> None:
    mistake = UsageError("The base does not fit.", hint="Name another.")
    core.scan = core.repair = mistake
    assert invoke("detect", "m", "--output", "r.json").exit_code == 2
    assert invoke("fix", "m", "--out", "o", "--output", "r.json").exit_code == 2
    assert not (tmp_path / "r.json").exists()
    mistake.partial = samples.INCONCLUSIVE
    assert invoke("detect", "m", "--output", "r.json").exit_code == 2
    assert read_result(tmp_path / "r.json") == samples.INCONCLUSIVE
    assert invoke("fix", "m", "--out", "o", "--output", "r.json").exit_code == 2
    told = read_result(tmp_path / "r.json")
    assert isinstance(told, FixResult) and told.before == samples.INCONCLUSIVE and "does not fit" in told.reason


def test_a_model_that_cannot_be_repaired_still_has_a_report(core: Core, invoke: Invoke, tmp_path: Path) -> None:
    core.repair = UnsafeFile("model holds a pickle.", hint="Get safetensors.")
    result = invoke("fix", "model", "--out", "o", "--output", "r.json", "--format", "json")
    assert result.exit_code == 3
    assert "error: model holds a pickle." in result.stderr
    told = read_result(tmp_path / "r.json")
    assert isinstance(told, FixResult)
    assert (told.before, told.published) == (samples.INCONCLUSIVE, None)
    assert "a pickle. Get safetensors." in told.reason
    assert json.loads(result.stdout)["reason"] == told.reason
    assert invoke("fix", "model", "--out", "o").stdout == ""


def test_what_was_found_is_reported_where_the_repair_cannot_be_written(
    core: Core, invoke: Invoke, tmp_path: Path
) -> None:
    core.scan, core.repair = samples.BACKDOORED, WriteError("The disk is full.", hint="Free some space.")
    assert invoke("detect", "model", "--fix", "--out", "o", "--output", "r.json").exit_code == 3
    told = read_result(tmp_path / "r.json")
    assert isinstance(told, FixResult)
    assert told.before == samples.BACKDOORED and "disk is full" in told.reason


def test_an_unexpected_error_is_one_paragraph_unless_debugged(core: Core, invoke: Invoke) -> None:
    core.scan = RuntimeError(f"boom {samples.HOSTILE}")
    result = invoke("detect", "m")
    assert result.exit_code == 4
    assert "internal error: RuntimeError: boom" in result.stderr
    assert "--debug" in result.stderr
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr
    debugged = invoke("detect", "m", "--debug")
    assert debugged.exit_code == 4
    assert "Traceback" in debugged.stderr
    assert "\x1b" not in debugged.stderr


def test_an_interrupt_is_one_line(core: Core, invoke: Invoke, tmp_path: Path) -> None:
    core.scan = KeyboardInterrupt()
    result = invoke("detect", "m", "-o", "r.json")
    assert result.exit_code == 130
    assert result.stderr.strip().splitlines() == [
        "interrupted: nothing was left half-written, and the input is untouched.",
        "exit 130",
    ]
    assert list(tmp_path.iterdir()) == []


def test_out_of_memory_is_no_bug(core: Core, invoke: Invoke) -> None:
    core.scan = MemoryError()
    assert invoke("detect", "m").exit_code == 3
