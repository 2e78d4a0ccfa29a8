"""What a copy takes along and what stays behind; which findings about files ask for one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.checkpoint.rewriting import copied
from sau_scan.checkpoint.writer import write_patched
from sau_scan.findings import Finding, FixResult, Verification
from sau_scan.options import FixOptions, ScanOptions
from sau_scan.repairs.files import FileRepairs, plan_files
from sau_scan.reports.text import render_text
from sau_scan.static import open_vetted
from sau_scan.verify import Outcome
from tests.conftest import WIDTH
from tests.static.makers import SYSTEM
from tests.test_fix import examined, flow
from tests.test_verify import scan

KEPT = ("README.md", "README-de.md", "LICENSE", "LICENSE-Apache-2.0", "licence.txt", ".gitattributes", "vae/x.json")
LEFT = (
    "extra/blob.xyz",
    "notes.json",
    "README.pkl",
    "README.p",
    "LICENSE.joblib",
    "NOTICE.dat",
    "README.js",
    "README.7z",
    "README.sh",
    "images/a.png",
    "unet/evil.dat",
    "x.joblib",
    "LICENSES/a",
)


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))


def put(folder: Path, *names: str, data: bytes = b"{}") -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def planned(path: Path) -> FileRepairs:
    checkpoint, notes = open_vetted(path)
    return plan_files(checkpoint, [note for note in notes if isinstance(note, Finding)])


def repaired(path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, base: Path | None = None) -> FixResult:
    """All but scanning and verifying, for which the models of these tests are too small."""
    passed = Outcome(Verification(checks=(), passed=True), scan())
    monkeypatch.setattr(flow, "detect_with", lambda *_, **known: scan())
    monkeypatch.setattr(flow, "verify", lambda draft, *given: examined(passed, draft, given[-1]))
    monkeypatch.setattr(flow._Run, "_clean", lambda self: None)
    result = flow.fix(path, FixOptions(out=out, scan=ScanOptions(base=base)))
    assert isinstance(result, FixResult)
    return result


def test_a_copy_is_what_components_use_with_the_card_and_the_licence(folder: Path, tmp_path: Path) -> None:
    before = {record.path for record in open_checkpoint(folder).records}
    put(folder, *KEPT, *LEFT)
    checkpoint = open_checkpoint(folder)
    assert {record.path for record in copied(checkpoint)} == {*before, *KEPT}
    out = write_patched(checkpoint, WeightPatch(), tmp_path / "out")
    assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == {*before, *KEPT}


def test_unused_files_are_told_and_are_no_reason_for_a_copy(folder: Path) -> None:
    put(folder, "extra/blob.xyz", "images/a.txt", data=b"harmless")
    plan = planned(folder)
    assert not plan
    assert plan.unused == ("extra/blob.xyz", "images/a.txt")


@pytest.mark.parametrize("name", ["evil.pkl", "evil.joblib", "evil.dat", "unet/evil.p", "extra/blob.xyz"])
@pytest.mark.parametrize("pickled", [False, True])
def test_a_stray_that_runs_code_stays_behind(
    name: str, pickled: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, name, data=SYSTEM)
    if pickled:
        weights = folder / "unet/diffusion_pytorch_model.safetensors"
        torch.save(safetensors.torch.load_file(weights), weights.with_suffix(".bin"))
        weights.unlink()
    result = repaired(folder, tmp_path / "out", monkeypatch)
    assert result.published is not None, result.reason
    assert not (tmp_path / "out" / name).exists()
    assert result.repair is not None
    assert name in {place.path for step in result.repair.steps for place in step.tensors if step.method == "leave-out"}
    assert name in render_text(result)


def test_a_folder_that_a_finding_names_is_copied_as_far_as_it_is_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where upper and lower case are the same, one of two folders takes the other's place."""
    put(folder, "VAE/config.json")
    put(folder, "evil.pkl", data=SYSTEM)
    plan = planned(folder)
    assert (plan.dropped, plan.unused) == (("VAE/config.json", "evil.pkl"), ("VAE/config.json",))
    assert repaired(folder, tmp_path / "out", monkeypatch).published
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"vae"} and not (tmp_path / "out/VAE").exists()


def test_what_a_pickle_became_is_not_left_out_for_a_link_of_that_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = folder / "vae/diffusion_pytorch_model.safetensors"
    before = safetensors.torch.load_file(weights)
    torch.save(before, weights.with_suffix(".bin"))
    weights.unlink()
    weights.symlink_to("/etc/hosts")
    result = repaired(folder, tmp_path / "out", monkeypatch)
    assert result.published, result.reason
    after = safetensors.torch.load_file(tmp_path / "out/vae/diffusion_pytorch_model.safetensors")
    assert after.keys() == before.keys()


ROWS = torch.ones(2, WIDTH)


@pytest.mark.parametrize(
    "content",
    [
        {"string_to_param": {"*": ROWS}, "string_to_token": {"*": 265}, "name": "<toy>", "step": 9},
        {"emb_params": ROWS},
        {"<toy>": ROWS},
        {"clip_l": ROWS},
    ],
)
def test_a_clean_pickled_embedding_is_written_as_safetensors(
    content: dict[str, object], tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(content, tmp_path / "toy.pt")
    out = tmp_path / "out.safetensors"
    result = repaired(tmp_path / "toy.pt", out, monkeypatch, base=tiny_checkpoint)
    assert result.published == str(out)
    assert result.repair is not None
    assert [step.method for step in result.repair.steps] == ["pickle-to-safetensors"]
    assert [table.shape for table in safetensors.torch.load_file(out).values()] == [ROWS.shape]
