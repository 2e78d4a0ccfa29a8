"""A scan that cannot be carried out says how far it came, and refuses what it cannot do before anything is read."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sau_scan import preparation
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.errors import NotACheckpoint, TooLittleTime, UsageError
from sau_scan.findings import Component, Severity, Slot, Verdict
from sau_scan.fix import fix
from sau_scan.options import Budget, FixOptions, ScanOptions
from sau_scan.probes.candidates import Candidate
from sau_scan.repairs.files import FileRepairs, plan_files
from sau_scan.scan import _unconfirmed, detect, rank, unscannable
from sau_scan.tiers.leads import Lead
from tests.conftest import Lock
from tests.corpus import formats
from tests.static.makers import MAKERS, SYSTEM, TEMPLATE


def test_of_a_model_that_cannot_be_loaded_the_files_were_looked_at(copy_of: Path) -> None:
    file = copy_of / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, file)
    result = detect(copy_of)
    assert [f.id for f in result.findings] == ["file/nan-weights"]
    assert {d.id for d in result.coverage.detectors if d.ran} == {"files"}
    assert all(d.reason for d in result.coverage.detectors if not d.ran)


@pytest.mark.parametrize("options", [ScanOptions(device="nowhere"), ScanOptions(dtype="float3")])
def test_a_device_or_type_is_refused_before_the_checkpoint_is_opened(options: ScanOptions, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere|float3"):
        detect(tmp_path / "missing", options)
    with pytest.raises(UsageError, match=r"nowhere|float3"):
        fix(tmp_path / "missing", FixOptions(out=tmp_path / "out", scan=options))


def test_no_scan_is_begun_that_cannot_end_in_time(copy_of: Path) -> None:
    with pytest.raises(TooLittleTime, match="UNet passes, about") as caught:
        detect(copy_of, ScanOptions(max_time=0.01))
    assert "Allow more time" in caught.value.hint
    known = unscannable(copy_of, ScanOptions(), caught.value)
    assert known.verdict is Verdict.INCONCLUSIVE
    assert known.model.family != "unknown"
    assert known.coverage.files_read > 0
    assert {d.id for d in known.coverage.detectors if d.ran} == {"files"}
    assert "Allow more time" in known.coverage.skipped[-1].reason


def test_what_the_files_gave_is_reported_where_the_rest_cannot_be_scanned(copy_of: Path) -> None:
    """Findings outrank incompleteness, of whatever severity: the gate may be set lower."""
    deep = copy_of / "extras" / "deep"
    deep.mkdir(parents=True)
    (deep / "x.py").write_text("print('hello')\n")
    result = detect(copy_of, ScanOptions(max_time=0.01))
    assert {f.severity for f in result.findings} == {Severity.MEDIUM}
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.coverage.files_read > 0
    assert "UNet passes" in result.coverage.skipped[-1].reason


def test_with_time_for_no_pictures_nothing_that_stands_out_is_called_clean(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = preparation.make_plan
    monkeypatch.setattr(preparation, "make_plan", lambda *what, **how: original(*what, **how | {"most": 500}))
    monkeypatch.setattr(Lead, "strong", True)
    result = detect(tiny_checkpoint, ScanOptions(budget=Budget.QUICK))
    found = result.coverage
    assert found.used.unet_passes <= found.planned.unet_passes <= 500
    assert "generation" in {d.id for d in found.detectors if not d.ran}
    assert any("they were tried in the text encoder only" in limit for limit in found.limits)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no pictures were made" in found.skipped[-1].reason
    assert found.skipped[-1].planned


@pytest.mark.parametrize(("most", "texts"), [(0, 0), (2, 1), (4, 1), (8, 2)])
def test_leads_of_the_text_do_not_take_the_places_of_the_noise(most: int, texts: int) -> None:
    text, noise = (
        [Lead(Candidate(f"{kind}{i}", Slot.PREFIX), kind, Component.UNET, 5.0, 1e-4) for i in range(9)] for kind in "tn"
    )
    found = [lead.detector for lead in rank(text, noise, most)]
    assert (found.count("t"), found.count("n")) == (texts, most - texts)


def test_what_is_grave_is_reported_though_the_file_cannot_be_opened(tmp_path: Path) -> None:
    gguf, folder = tmp_path / "model.gguf", tmp_path / "folder"
    folder.mkdir()
    gguf.write_bytes(formats.gguf(TEMPLATE))
    (folder / "evil.ckpt").write_bytes(SYSTEM)
    lora = tmp_path / "lora.safetensors"
    code = {"x": "__import__('os').system('id')"}
    save_file({"unet.conv_in.lora_A.weight": torch.zeros(2, 2)}, lora, metadata=code)
    for path, rule in ((gguf, "template"), (folder, "pickle-danger"), (lora, "metadata")):
        result = detect(path)
        assert f"file/{rule}" in [f.id for f in result.findings]
        assert result.verdict is Verdict.SUSPICIOUS and result.coverage.files_read == 1
        assert result.model.form == ("folder" if path.is_dir() else "file")
        (record,) = result.model.files
        assert record.sha256 == hashlib.sha256((path / record.path if path.is_dir() else path).read_bytes()).hexdigest()
        assert result.coverage.skipped[-1].planned and "Give the file itself" not in result.coverage.skipped[-1].reason


def test_what_cannot_be_opened_is_not_taken_for_a_folder(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2, 2, 2)}, other)
    for path, form, files in ((other, "file", ["other.safetensors"]), (tmp_path / "missing", "not there", [])):
        with pytest.raises(NotACheckpoint) as caught:
            detect(path)
        model = unscannable(path, ScanOptions(), caught.value).model
        assert (model.form, [record.path for record in model.files]) == (form, files)


@pytest.mark.parametrize("name", ["locked/model", "a" * 300])
def test_what_cannot_be_looked_at_is_no_bug(name: str, tmp_path: Path, lock: Lock) -> None:
    (tmp_path / "locked").mkdir()
    lock(tmp_path / "locked")
    for options in (ScanOptions(), ScanOptions(base=tmp_path / name)):
        with pytest.raises((NotACheckpoint, UsageError)) as caught:
            detect(tmp_path / name, options)
        assert unscannable(tmp_path / name, options, caught.value).model.form == "not there"


def test_an_error_about_a_harmless_folder_is_told_with_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(NotACheckpoint, match="no model_index") as caught:
        detect(tmp_path)
    assert unscannable(tmp_path, ScanOptions(), caught.value).coverage.files_read == 1


def test_the_files_of_the_base_count(tmp_path: Path, tiny_checkpoint: Path) -> None:
    base = MAKERS["tokenizer-replaces"](tmp_path, tiny_checkpoint)
    (base / "pipeline.py").write_text("x")
    (base / "vae/diffusion_pytorch_model.bin").write_bytes(b"x")
    unet = tiny_checkpoint / "unet/diffusion_pytorch_model.safetensors"
    with pytest.raises(TooLittleTime) as caught:
        detect(unet, ScanOptions(base=tiny_checkpoint, max_time=0.01))
    assert unscannable(unet, ScanOptions(), caught.value).findings == ()
    result = detect(unet, ScanOptions(base=base, max_time=0.01))
    found = {f.id: f.location for f in result.findings}
    assert {"file/tokenizer-rewrites", "file/code"} <= {*found}
    assert {place and place.base for place in found.values()} == {str(base)}
    assert f"{base}/vae/diffusion_pytorch_model.bin" in {s.what for s in result.coverage.skipped}
    assert plan_files(open_checkpoint(unet, base=base), result.findings) == FileRepairs({}, (), ())


def test_a_dangerous_base_is_a_finding_and_not_loaded(tmp_path: Path, tiny_checkpoint: Path) -> None:
    base = Path(shutil.copytree(tiny_checkpoint, tmp_path / "base"))
    (base / "unet/helper.pkl").write_bytes(SYSTEM)
    result = detect(tiny_checkpoint / "unet/diffusion_pytorch_model.safetensors", ScanOptions(base=base))
    assert [f.id for f in result.findings] == ["file/pickle-danger"]
    assert "--base" in result.coverage.skipped[-1].reason and result.verdict is Verdict.SUSPICIOUS


@pytest.mark.parametrize(
    ("leads", "enough", "told"),
    [(1, 150.0, "1 lead that stands out; there was no time for any: allow about 2 min 30 s"), (2, None, "--budget")],
)
def test_what_was_not_confirmed_is_told_with_the_time_it_takes(leads: int, enough: float | None, told: str) -> None:
    assert told in _unconfirmed(leads, enough).reason
