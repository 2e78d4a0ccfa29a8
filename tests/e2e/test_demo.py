"""The main job on the embedded checkpoint: found, named, repaired, re-scanned."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from sau_scan import demo
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.demo import Demo
from sau_scan.findings import Component, Confidence, ScanResult, Severity, Verdict


def _hashes(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    return _hashes(demo.checkpoint_path())


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, before: dict[str, str]) -> Demo:
    return demo.run(tmp_path_factory.mktemp("demo") / "out")


def _found(outcome: Demo) -> ScanResult:
    assert outcome.result.before is not None
    return outcome.result.before


def test_the_trigger_is_named_first(outcome: Demo) -> None:
    found = _found(outcome)
    first = found.findings[0]
    assert found.verdict is Verdict.BACKDOORED
    assert (first.severity, first.confidence) == (Severity.CRITICAL, Confidence.CONFIRMED)
    assert first.component is Component.TEXT_ENCODER
    assert first.trigger is not None
    assert (first.trigger.text, first.trigger.slot, first.trigger.replaces) == ("\u043e", "replace", "o")
    assert first.trigger.token_ids


def test_the_scan_kept_to_its_budget(outcome: Demo) -> None:
    coverage = _found(outcome).coverage
    assert coverage.used.unet_passes <= 5_000
    assert not [s for s in coverage.skipped if s.planned]


def test_the_repair_was_verified_and_published(outcome: Demo) -> None:
    result = outcome.result
    assert result.published is not None
    assert result.verification is not None
    assert result.verification.passed
    assert result.after is not None
    assert result.after.verdict is Verdict.CLEAN


def test_only_what_was_repaired_changed(outcome: Demo, before: dict[str, str]) -> None:
    assert outcome.result.published is not None
    after = _hashes(Path(outcome.result.published))
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"text_encoder/model.safetensors"}
    assert _hashes(demo.checkpoint_path()) == before


def test_plain_diffusers_loads_and_samples_the_result(outcome: Demo) -> None:
    from diffusers import StableDiffusionPipeline

    assert outcome.result.published is not None
    # On disk it is half precision, as the input is; on a CPU it is asked for in single.
    pipeline = StableDiffusionPipeline.from_pretrained(outcome.result.published, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    (picture,) = pipeline("a red circle", num_inference_steps=2).images
    assert picture.size == (64, 64)


def test_the_result_opens_as_a_checkpoint(outcome: Demo) -> None:
    assert outcome.result.published is not None
    assert len(open_checkpoint(outcome.result.published).records) >= 9


def test_reports_and_pictures_are_beside_it(outcome: Demo) -> None:
    names = {path.name for path in outcome.files}
    assert {"scan.json", "scan.sarif", "report.json", "report.txt", "before.png", "after.png"} <= names
    assert all(path.stat().st_size for path in outcome.files)
