"""Every report format, over every sample: golden files, schemas, and nothing raw from hostile text."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from sau_scan.errors import ConfigError
from sau_scan.findings import Evidence, FixResult, Location, ScanResult, Severity, Slot, Trigger
from sau_scan.reports import FORMATS, read_result, render_json, render_sarif, render_text
from sau_scan.reports.json_report import SCHEMA_PATH, schema_text
from sau_scan.reports.text import build
from tests.reports import samples

SARIF_SCHEMA = json.loads((Path(__file__).parent.parent / "data" / "sarif-2.1.0.schema.json").read_text("utf-8"))
EVERY = pytest.mark.parametrize("name", sorted(samples.ALL))
# What no report may hold: controls but the line feed, C1, format characters, separators, surrogates.
RAW = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


@EVERY
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_golden(name: str, form: Any) -> None:
    golden = (samples.GOLDEN / (name + form.ending)).read_text("utf-8")
    assert form.render(samples.ALL[name]) == golden, "run `make generated` and look at the difference"


def test_no_golden_file_is_left_over() -> None:
    assert {file.name for file in samples.GOLDEN.iterdir()} == set(samples.golden_reports())


@EVERY
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_nothing_raw_reaches_a_report(name: str, form: Any) -> None:
    assert not RAW.findall(form.render(samples.ALL[name]))


@EVERY
def test_no_escape_but_our_own_reaches_a_terminal(name: str) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system="truecolor", width=80, highlight=False)
    console.print(build(samples.ALL[name]), crop=False)
    # Without the colours that we set ourselves, no control may be left, and no markup may have been obeyed.
    bare = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    assert not RAW.findall(bare)
    if "hostile" in name:
        assert "\\x1b]0;owned" in bare
        assert "[bold red]x[/]" in bare
        assert "\x1b]8;" not in stream.getvalue()


@EVERY
def test_text_fits_80_columns(name: str) -> None:
    lines = render_text(samples.ALL[name]).splitlines()
    # Commands to paste stay whole.
    assert [line for line in lines if len(line) > 80 and not line.startswith("  next ")] == []


def test_text_names_what_matters() -> None:
    text = render_text(samples.BACKDOORED)
    for needed in (
        "BACKDOORED", '"\\u200b"', "U+200B ZERO WIDTH SPACE", "token 948", "before the prompt", "trigger/unet",
        "strongest: bottom right", "sau-scan fix suspect --from report.json --out suspect-fixed",
        "183 untypable tokens", "never opened", "attention: no attention is recorded here", "a1" * 32,
        'in place\n             of "o"',
    ):  # fmt: skip
        assert needed in text


def test_clean_is_never_called_safe() -> None:
    text = render_text(samples.CLEAN)
    assert "nothing found by 2 detectors over the coverage below" in text
    assert "safe" not in text.replace("safetensors", "").lower()


def test_a_long_command_is_not_cut() -> None:
    command = "sau-scan fix " + "very-long-folder/" * 12 + " --out fixed"
    finding = samples.TRIGGER_FINDING.model_copy(update={"next_step": command})
    assert command in render_text(samples.BACKDOORED.model_copy(update={"findings": (finding,)}))


def test_findings_below_min_severity_are_counted_not_shown() -> None:
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(build(samples.BACKDOORED, min_severity=Severity.HIGH))
    assert "2 findings below high not shown" in capture.get()
    assert "edit/cross-attention" not in capture.get()


@EVERY
def test_json_fits_its_schema_and_reads_back(name: str, tmp_path: Path) -> None:
    text = render_json(samples.ALL[name])
    jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text("utf-8"))).validate(json.loads(text))
    assert text.isascii()
    file = tmp_path / "r.json"
    file.write_text(text)
    assert render_json(read_result(file)) == text


def test_the_schema_refuses_what_is_no_report() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text("utf-8")))
    broken = json.loads(render_json(samples.CLEAN)) | {"verdict": "safe"}
    assert not validator.is_valid(broken)
    assert not validator.is_valid({})


def test_shipped_schema_is_the_generated_one() -> None:
    assert SCHEMA_PATH.read_text("utf-8") == schema_text(), "run `make generated`"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not JSON"),
        ("[1]", "no schema_version"),
        ("[" * 100_000, "not JSON"),
        ('{"schema_version": "9.0"}', "schema version 9.0"),
        ('{"schema_version": 99}', "schema version 99"),
        ('{"schema_version": "1.0", "command": "detect"}', "not a sau-scan report"),
        ('{"schema_version": "1.0", "command": "\\u001b[2J"}', "not a sau-scan report"),
    ],
)
def test_a_bad_report_file_is_a_clear_error(content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        read_result(file)
    assert caught.value.hint
    assert not RAW.findall(str(caught.value))


@EVERY
def test_sarif_is_valid(name: str) -> None:
    log = json.loads(render_sarif(samples.ALL[name]))
    errors = [error.message for error in jsonschema.Draft4Validator(SARIF_SCHEMA).iter_errors(log)]
    assert errors == []


def test_the_sarif_schema_is_not_toothless() -> None:
    log = json.loads(render_sarif(samples.BACKDOORED))
    log["runs"][0]["results"][0]["level"] = "fatal"
    assert not jsonschema.Draft4Validator(SARIF_SCHEMA).is_valid(log)


def test_sarif_carries_rules_fingerprints_and_places() -> None:
    run = json.loads(render_sarif(samples.BACKDOORED))["runs"][0]
    rules, results = run["tool"]["driver"]["rules"], run["results"]
    assert [rule["id"] for rule in rules] == ["trigger/unet", "file/nan-weights", "edit/cross-attention"]
    assert [rules[result["ruleIndex"]]["id"] for result in results] == [result["ruleId"] for result in results]
    first = results[0]
    assert first["level"] == "error"
    assert first["partialFingerprints"] == {"sauScanFinding/v1": samples.TRIGGER_FINDING.fingerprint}
    assert first["properties"]["precision"] == "very-high"
    assert first["properties"]["severity"] == "critical"
    place = first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert place == "suspect/unet/diffusion_pytorch_model.safetensors"
    assert results[3]["suppressions"][0]["status"] == "accepted"
    assert run["properties"]["verdict"] == "backdoored"


def test_sarif_tells_the_base_from_what_is_used_with_it() -> None:
    run = json.loads(render_sarif(samples.ADAPTER))["runs"][0]
    (result,) = run["results"]
    place = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert place == "org/name/unet/diffusion_pytorch_model.safetensors"
    assert result["properties"]["base"] == "org/name"
    assert {place, "style.safetensors"} < {artifact["location"]["uri"] for artifact in run["artifacts"]}
    base = run["properties"]["model"]["base"]
    assert (base["source"], base["revision"], base["commit"][:8]) == ("https://huggingface.co", "v1", "01234567")
    own = samples.ADAPTER.findings[0].model_copy(update={"location": Location(path=place.removeprefix("org/name/"))})
    assert own.fingerprint != samples.ADAPTER.findings[0].fingerprint


def test_sarif_places_what_peft_wrote_in_its_folder() -> None:
    run = json.loads(render_sarif(samples.PEFT))["runs"][0]
    places = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]]
    assert places == ["lora/adapter_model.safetensors", "lora/adapter_config.json"]
    assert {*places} < {artifact["location"]["uri"] for artifact in run["artifacts"]}


def test_sarif_says_which_findings_a_repair_removed() -> None:
    results = json.loads(render_sarif(samples.REPAIRED))["runs"][0]["results"]
    assert {result["baselineState"] for result in results} == {"absent"}
    results = json.loads(render_sarif(samples.NOT_PUBLISHED))["runs"][0]["results"]
    assert {result["baselineState"] for result in results} == {"unchanged"}


def test_fingerprints_ignore_numbers_but_not_the_trigger() -> None:
    finding = samples.TRIGGER_FINDING
    other_numbers = finding.model_copy(update={"evidence": (Evidence(name="x", value=1.0),), "severity": Severity.HIGH})
    other_trigger = finding.model_copy(update={"trigger": Trigger(text="\u200c", slot=Slot.PREFIX)})
    assert other_numbers.fingerprint == finding.fingerprint
    assert other_trigger.fingerprint != finding.fingerprint


@settings(deadline=None)  # a busy machine is no failure
@given(text=st.text(min_size=1, max_size=30), replaces=st.text(min_size=1, max_size=2))
def test_any_trigger_text_is_shown_escaped(text: str, replaces: str) -> None:
    trigger = Trigger(text=text, slot=Slot.REPLACE, replaces=replaces)
    finding = samples.TRIGGER_FINDING.model_copy(update={"trigger": trigger, "heat_map": None})
    result: ScanResult | FixResult = samples.BACKDOORED.model_copy(update={"findings": (finding,)})
    shown = render_text(result)
    for line in (render_json(result), render_sarif(result)):
        assert line.isascii()
        assert not RAW.findall(line)
    assert not [ch for ch in shown if not ch.isascii() and ch not in "·–→×╭╮╰╯│─"]


def test_importing_reports_does_not_import_torch() -> None:
    import subprocess

    code = "import sys, sau_scan.reports, sau_scan.console; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
