"""Findings about files: each on the tampering it is for, none on an honest checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.findings import Component, Finding, Severity, Skipped, Verdict
from sau_scan.static import check_files, check_weights
from tests.checkpoint.test_tokenizer import to_old_layout

UNET = "unet/diffusion_pytorch_model.safetensors"


def findings(path: Path) -> list[Finding]:
    results = check_files(open_checkpoint(path))
    assert not [result for result in results if isinstance(result, Skipped)]
    return [result for result in results if isinstance(result, Finding)]


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_honest_checkpoint_has_none(tiny_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    assert check_files(checkpoint) == [] and check_weights(checkpoint) == []


def test_an_honest_old_layout_has_none(copy_of: Path) -> None:
    table = (copy_of / "tokenizer/tokenizer.json").read_bytes()
    to_old_layout(copy_of / "tokenizer")
    assert findings(copy_of) == []
    (copy_of / "tokenizer/tokenizer.json").write_bytes(table)  # both layouts together, as many repositories have
    assert findings(copy_of) == []


def add_link(folder: Path) -> None:
    (folder / "unet/extra.json").symlink_to("/etc/hostname")


def add_tokenizer_rule(folder: Path) -> None:
    path = folder / "tokenizer/tokenizer.json"
    table = json.loads(path.read_text())
    table["normalizer"]["normalizers"].append({"type": "Replace", "pattern": {"String": "cat"}, "content": "dog"})
    path.write_text(json.dumps(table))


def add_second_tokenizer(folder: Path) -> None:
    table = (folder / "tokenizer/tokenizer.json").read_bytes()
    to_old_layout(folder / "tokenizer")
    (folder / "tokenizer/tokenizer.json").write_bytes(table)
    path = folder / "tokenizer/vocab.json"
    vocabulary = json.loads(path.read_text())
    vocabulary["cat</w>"], vocabulary["dog</w>"] = vocabulary["dog</w>"], vocabulary["cat</w>"]
    path.write_text(json.dumps(vocabulary))


@pytest.mark.parametrize(
    ("tamper", "rule", "component"),
    [
        (add_link, "link-outside", Component.UNET),
        (lambda f: (f / "unet/mine.py").write_text("x"), "code", Component.UNET),
        (lambda f: (f / "pipeline.py").write_text("x"), "code", Component.FILE),
        (
            lambda f: edit_json(f / "model_index.json", _class_name=["pipeline", "Mine"]),
            "foreign-class",
            Component.FILE,
        ),
        (lambda f: edit_json(f / "model_index.json", unet=["mine", "X"]), "foreign-class", Component.FILE),
        (lambda f: edit_json(f / "unet/config.json", auto_map={"a": "b.c"}), "config-code", Component.UNET),
        (
            lambda f: edit_json(f / "text_encoder/config.json", _attn_implementation="evil/kernel"),
            "config-code",
            Component.TEXT_ENCODER,
        ),
        (lambda f: (f / "text_encoder/adapter_config.json").write_text("{}"), "hidden-adapter", Component.TEXT_ENCODER),
        (lambda f: (f / UNET).write_bytes(b"\x80\x04K\x01."), "disguised", Component.UNET),
        (lambda f: (f / UNET).write_bytes(b"PK\x03\x04" + b"\0" * 60), "disguised", Component.UNET),
        (add_tokenizer_rule, "tokenizer-rewrites", Component.TOKENIZER),
        (add_second_tokenizer, "tokenizer-mismatch", Component.TOKENIZER),
    ],
)
def test_tampering_is_found(tamper: Callable[[Path], Any], rule: str, component: Component, copy_of: Path) -> None:
    tamper(copy_of)
    found = findings(copy_of)
    assert [finding.id for finding in found] == [f"file/{rule}"]
    assert found[0].severity is Severity.HIGH and found[0].component is component
    assert found[0].behaviour and str(copy_of) in found[0].next_step


def test_a_stray_script_is_worth_less_than_loadable_code(copy_of: Path) -> None:
    (copy_of / "convert.py").write_text("x")
    assert [finding.severity for finding in findings(copy_of)] == [Severity.MEDIUM]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b'{"normalizer": 3, "model": 3}', b'{"normalizer": {"type": []}}']
)
@pytest.mark.parametrize("path", ["tokenizer/tokenizer.json", "unet/config.json"])
def test_hostile_tables_hide_no_other_check(path: str, content: bytes, copy_of: Path) -> None:
    (copy_of / path).write_bytes(content)
    (copy_of / "pipeline.py").write_text("x")
    ids = [result.id for result in check_files(open_checkpoint(copy_of)) if isinstance(result, Finding)]
    assert "file/code" in ids


@pytest.mark.parametrize("normalizer", [{"type": "Sequence", "normalizers": 3}, "x", [], {"type": "Replace"}])
def test_odd_normalizers_count_as_rewriting(normalizer: Any, copy_of: Path) -> None:
    edit_json(copy_of / "tokenizer/tokenizer.json", normalizer=normalizer)
    assert [finding.id for finding in findings(copy_of)] == ["file/tokenizer-rewrites"]


def test_values_that_are_not_numbers_are_counted(copy_of: Path) -> None:
    tensors = safetensors.torch.load_file(copy_of / UNET)
    tensors["conv_in.weight"][0, 0, 0, :2] = float("nan")
    tensors["conv_in.bias"][3] = float("-inf")
    safetensors.torch.save_file(tensors, copy_of / UNET)
    (found,) = check_weights(open_checkpoint(copy_of))
    assert isinstance(found, Finding) and found.id == "file/nan-weights"
    assert found.location is not None and found.location.path == UNET
    assert found.evidence[0].value == 3 and "2 of" in found.behaviour


def test_a_truncated_file_is_skipped_by_the_check_of_weights(copy_of: Path) -> None:
    os.truncate(copy_of / UNET, 10_000)
    (skipped,) = check_weights(open_checkpoint(copy_of))
    assert isinstance(skipped, Skipped) and skipped.what == UNET and "ends after" in skipped.reason and skipped.planned


def test_findings_about_files_are_reported_even_if_nothing_can_be_loaded(copy_of: Path) -> None:
    from sau_scan.scan import detect

    edit_json(copy_of / "model_index.json", unet=["mine", "X"])
    result = detect(copy_of)
    assert "file/foreign-class" in [finding.id for finding in result.findings]
    assert result.verdict is Verdict.SUSPICIOUS
    assert result.coverage.skipped[-1].planned
    assert {run.id for run in result.coverage.detectors if run.ran} == {"files"}
