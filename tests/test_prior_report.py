"""A report stands in for the first scan only if it is whole, and of these very files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.errors import ConfigError
from sau_scan.findings import FileRecord, ModelInfo, ScanResult, Verdict
from sau_scan.prior_report import check_report
from tests.test_fix import STAR, report_of
from tests.test_verify import finding


def test_a_report_that_lost_its_findings_is_refused(tiny_checkpoint: Path) -> None:
    report = report_of(tiny_checkpoint).model_copy(update={"verdict": Verdict.BACKDOORED})
    with pytest.raises(ConfigError, match="holds no finding"):
        check_report(report, open_checkpoint(tiny_checkpoint))
    whole = report_of(tiny_checkpoint, finding(STAR)).model_dump(mode="json")
    del whole["findings"]
    with pytest.raises(ValidationError, match="findings"):
        ScanResult.model_validate(whole)


def test_a_report_of_other_files_is_refused(tiny_checkpoint: Path) -> None:
    report, checkpoint = report_of(tiny_checkpoint, finding(STAR)), open_checkpoint(tiny_checkpoint)
    check_report(report, checkpoint)
    files = (*report.model.files[:-1], FileRecord(path=report.model.files[-1].path, size=1, sha256="0" * 64))
    other = report.model_copy(update={"model": report.model.model_copy(update={"files": files})})
    with pytest.raises(ConfigError, match="other files"):
        check_report(other, checkpoint)


@pytest.mark.parametrize("base", ["another", "none"])
def test_a_report_with_another_base_is_refused(base: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    unet = tmp_path / "unet.safetensors"
    shutil.copy(tiny_checkpoint / "unet/diffusion_pytorch_model.safetensors", unet)
    ours, theirs = open_checkpoint(unet, base=tiny_checkpoint), open_checkpoint(tiny_checkpoint).records
    files = (*theirs[:-1], FileRecord(path=theirs[-1].path, size=1, sha256="0" * 64))
    told = ModelInfo(path="b", family="x", files=files) if base == "another" else None
    report = report_of(tiny_checkpoint, finding(STAR))
    model = report.model.model_copy(update={"path": str(unet), "files": ours.records, "base": told})
    with pytest.raises(ConfigError, match="another base"):
        check_report(report.model_copy(update={"model": model}), ours)
