"""Findings about files as a scan reports them: where they are, how bad, and what one hides of another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sau_scan.findings import Component, Finding, Severity, Skipped, Verdict
from sau_scan.static import blocks, open_vetted, vet_file
from tests.static.makers import MAKERS, UNET, edit_json


def findings(path: Path) -> list[Finding]:
    results = vet_file(path)
    assert not [result for result in results if isinstance(result, Skipped)]
    return [result for result in results if isinstance(result, Finding)]


def test_an_honest_checkpoint_has_none(tiny_checkpoint: Path) -> None:
    assert open_vetted(tiny_checkpoint)[1] == []


@pytest.mark.parametrize(
    ("maker", "rule", "component"),
    [
        ("link-outside", "link-outside", Component.UNET),
        ("component-code", "code", Component.UNET),
        ("custom-pipeline", "code", Component.FILE),
        ("custom-class-name", "foreign-class", Component.FILE),
        ("kernel-url", "config-code", Component.TEXT_ENCODER),
        ("hidden-adapter", "hidden-adapter", Component.TEXT_ENCODER),
        ("tokenizer-replaces", "tokenizer-rewrites", Component.TOKENIZER),
        ("tokenizer-two", "tokenizer-mismatch", Component.TOKENIZER),
    ],
)
def test_one_tampering_is_one_finding(
    maker: str, rule: str, component: Component, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    path = MAKERS[maker](tmp_path, tiny_checkpoint)
    (found,) = findings(path)
    assert found.id == f"file/{rule}"
    assert found.severity is Severity.HIGH and found.component is component
    assert found.behaviour and str(path) in found.next_step


def test_a_stray_script_is_worth_less_than_loadable_code(copy_of: Path) -> None:
    (copy_of / "convert.py").write_text("x")
    (found,) = findings(copy_of)
    assert found.severity is Severity.MEDIUM and not blocks(found)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b'{"normalizer": 3, "model": 3}', b'{"normalizer": {"type": []}}', b"[" * 10**6]
)
@pytest.mark.parametrize("path", ["tokenizer/tokenizer.json", "unet/config.json", "model_index.json"])
def test_hostile_tables_hide_no_other_check(path: str, content: bytes, copy_of: Path) -> None:
    (copy_of / path).write_bytes(content)
    (copy_of / "pipeline.py").write_text("x")
    assert "file/code" in [found.id for found in findings(copy_of)]


@pytest.mark.parametrize("normalizer", [{"type": "Sequence", "normalizers": 3}, "x", [], {"type": "Replace"}])
def test_odd_normalizers_count_as_rewriting(normalizer: Any, copy_of: Path) -> None:
    edit_json(copy_of / "tokenizer/tokenizer.json", normalizer=normalizer)
    assert [found.id for found in findings(copy_of)] == ["file/tokenizer-rewrites"]


def test_values_that_are_not_numbers_are_counted(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (found,) = findings(MAKERS["nan-weights"](tmp_path, tiny_checkpoint))
    assert found.location is not None and found.location.path == UNET
    assert found.evidence[0].value == 3 and "2 of" in found.behaviour


@pytest.mark.parametrize("size", [10_000, 100, 12])
def test_a_file_that_was_cut_is_skipped_not_accused(size: int, copy_of: Path) -> None:
    os.truncate(copy_of / UNET, size)
    (skipped,) = vet_file(copy_of)
    assert isinstance(skipped, Skipped) and skipped.what == UNET and "ends after" in skipped.reason and skipped.planned


def test_sentences_of_one_rule_about_one_file_make_one_finding(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"".join(b"cposix\na%d\n0" % number for number in range(9)) + b"N.")
    (found,) = findings(path)
    assert found.id == "file/pickle-danger" and "and 5 more" in found.behaviour


def test_classes_of_the_libraries_are_no_findings(copy_of: Path) -> None:
    edit_json(copy_of / "model_index.json", scheduler=["diffusers", "EDMEulerScheduler"])
    assert vet_file(copy_of) == []


def test_findings_about_files_are_reported_even_if_nothing_can_be_loaded(copy_of: Path) -> None:
    from sau_scan.scan import detect

    edit_json(copy_of / "model_index.json", unet=["mine", "X"])
    result = detect(copy_of)
    assert "file/foreign-class" in [found.id for found in result.findings]
    assert result.verdict is Verdict.SUSPICIOUS
    assert result.coverage.skipped[-1].planned
    assert {run.id for run in result.coverage.detectors if run.ran} == {"files"}
