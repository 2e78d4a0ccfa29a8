"""Scans of what a hub has: reports and errors speak of the repository, never of the private folder."""

from __future__ import annotations

import os
import pickle
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from sau_scan.arrival import arrived
from sau_scan.checkpoint.hub import Hub
from sau_scan.conclude import fix_command
from sau_scan.errors import NotACheckpoint, UsageError
from sau_scan.estimate import estimate
from sau_scan.findings import Finding, Location, Severity
from sau_scan.options import FixOptions, ScanOptions, Silent
from sau_scan.repairs.campaign import Campaign
from sau_scan.scan import detect
from tests.hub_server import FakeHub, files_below, serving
from tests.reports import samples
from tests.test_fix import STAR, flow
from tests.test_verify import finding, scan


class Canary:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serving() as server:
        # A folder whose name is shown escaped.
        cache = tmp_path / "c\u00e4che"
        monkeypatch.setattr("sau_scan.arrival.Hub", partial(Hub, endpoint=server.endpoint, cache=cache))
        yield server


def test_a_hostile_file_is_reported_with_its_commit_and_never_run(hub: FakeHub, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    commit = hub.repo("org/evil").push({"model.ckpt": pickle.dumps(Canary(canary))})
    for offline in (False, True):
        hub.requests.clear()
        report = detect("org/evil", ScanOptions(offline=offline))
        assert not canary.exists() and bool(hub.requests) is not offline
        assert "file/pickle-danger" in {finding.id for finding in report.findings}
        assert (report.model.path, report.model.source) == ("org/evil/model.ckpt", hub.endpoint)
        assert (report.model.revision, report.model.commit) == ("main", commit)
        assert "sau-scan-" not in report.model_dump_json()
    assert not [*tmp_path.rglob("*sau-scan-*")]


def test_code_is_a_finding_though_it_is_not_fetched(hub: FakeHub, tiny_checkpoint: Path) -> None:
    code = {"unet/evil.py": b"", "pipeline.py": b"", "training/run.py": b""}
    hub.repo("org/name").push(files_below(tiny_checkpoint) | code | {"unet/config.json": b"[]"})
    report = detect("org/name", ScanOptions(offline=False))
    found = {f.location.path: f.severity for f in report.findings if f.id == "file/code" and f.location}
    assert found == {"unet/evil.py": Severity.HIGH, "pipeline.py": Severity.HIGH, "training/run.py": Severity.MEDIUM}
    assert not {*code} & {*hub.fetched()}
    assert "org/name/unet/config.json" in report.model_dump_json()


def test_what_the_base_left_on_the_hub_is_told_too(hub: FakeHub, tiny_checkpoint: Path) -> None:
    hub.repo("org/base").push(files_below(tiny_checkpoint) | {"pipeline.py": b"", "unet/other.bin": b"x"})
    unet = tiny_checkpoint / "unet/diffusion_pytorch_model.safetensors"
    report = detect(unet, ScanOptions(offline=False, base=Path("org/base"), max_time=0.01))
    (found,) = report.findings
    assert found.id == "file/code" and found.location == Location(path="pipeline.py", base="org/base")
    assert "org/base/unet/other.bin" in {skipped.what for skipped in report.coverage.skipped}
    assert "sau-scan-" not in report.model_dump_json()


def test_a_repair_begins_with_what_a_scan_says(hub: FakeHub, tiny_checkpoint: Path, tmp_path: Path) -> None:
    hub.repo("org/name").push(files_below(tiny_checkpoint) | {"pipeline.py": b"", "unet/other.bin": b"x"})
    options = ScanOptions(offline=False, max_time=0.01)
    scanned = detect("org/name", options)
    before = flow.fix("org/name", FixOptions(out=tmp_path / "out", scan=options)).before
    assert "file/code" in {finding.id for finding in scanned.findings}
    assert before.findings == scanned.findings
    assert [s.what for s in before.coverage.skipped] == [s.what for s in scanned.coverage.skipped]


def test_the_reason_of_a_repair_names_the_repository(
    hub: FakeHub, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repo("org/base").push(files_below(tiny_checkpoint))
    monkeypatch.setattr(flow, "detect_with", lambda *_, **known: scan(finding(STAR)))
    monkeypatch.setattr(Campaign, "repair", lambda *_, **how: None)
    unet = tiny_checkpoint / "unet/diffusion_pytorch_model.safetensors"
    options = ScanOptions(offline=False, base=Path("org/base"))
    done = flow.fix(unet, FixOptions(out=tmp_path / "out.safetensors", scan=options))
    assert "but in org/base;" in done.reason
    assert "sau-scan-" not in done.model_dump_json()


def test_next_steps_are_of_the_hub_at_the_commit(hub: FakeHub, tiny_checkpoint: Path, tmp_path: Path) -> None:
    commit = hub.repo("org/name").push(files_below(tiny_checkpoint))
    silent = Silent()
    with arrived(f"org/name@{commit}", ScanOptions(offline=False, base=Path("org/name")), silent) as place:
        base = place.options.base
        assert base is not None
        unet = str(place.path / "unet/a b.bin")
        found = {
            "fix": fix_command(str(place.path), base, " --trigger x"),
            "fix a file": fix_command(str(place.path / "lora.safetensors"), base),
            "base": fix_command(str(base), None),
            "look": f"xxd {shlex.quote(unet)} | head",
        }
        sample = samples.CLEAN.model_copy(update={"findings": tuple(_finding(command) for command in found.values())})
        commands = [finding.next_step for finding in place.told(sample).findings]
    at = f"--revision {commit}"
    assert commands == [
        f"sau-scan fix org/name {at} --base org/name@{commit} --trigger x --out name-fixed",
        f"sau-scan fix org/name/lora.safetensors {at} --base org/name@{commit} --out lora-fixed.safetensors",
        f"sau-scan fix org/name {at} --out name-fixed",
        f"hf download org/name 'unet/a b.bin' {at} --local-dir name && xxd 'name/unet/a b.bin' | head",
    ]


def test_next_steps_of_a_name_with_a_quote(hub: FakeHub, tiny_checkpoint: Path) -> None:
    commit = hub.repo("org/name").push(files_below(tiny_checkpoint))
    with arrived("org/name", ScanOptions(offline=False), Silent()) as place:
        file = place.path / "it's a.bin"
        found = _finding(fix_command(str(file), None)), _finding(f"xxd {shlex.quote(str(file))} | head")
        told = place.told(samples.CLEAN.model_copy(update={"findings": found})).findings
    fix, look = (shlex.split(finding.next_step) for finding in told)
    assert fix == ["sau-scan", "fix", "org/name/it's a.bin", "--revision", commit, "--out", "it's a-fixed.safetensors"]
    assert look[:4] == ["hf", "download", "org/name", "it's a.bin"] and "name/it's a.bin" in look


def test_a_result_of_another_place_stays(hub: FakeHub, tiny_checkpoint: Path) -> None:
    hub.repo("org/name").push(files_below(tiny_checkpoint))
    with arrived("org/name", ScanOptions(offline=False), Silent()) as place:
        assert place.told(samples.CLEAN).model == samples.CLEAN.model


def test_an_estimate_is_of_what_is_fetched(hub: FakeHub, tiny_checkpoint: Path) -> None:
    hub.repo("org/name").push(files_below(tiny_checkpoint))
    found = estimate("org/name", ScanOptions(offline=False, max_time=0.01))
    assert found.path == "org/name" and found.family == "Stable Diffusion 1.x"


def _finding(command: str) -> Finding:
    return samples.BACKDOORED.findings[0].model_copy(update={"next_step": command})


def test_errors_name_the_repository(hub: FakeHub) -> None:
    hub.repo("org/name").push({"a.safetensors": save({"x": torch.zeros(2, 2, 2)})})
    with pytest.raises(NotACheckpoint, match=r"what org/name/a\.safetensors is"):
        detect("org/name", ScanOptions(offline=False))


def test_a_revision_of_a_path(tiny_checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="--revision"):
        detect(tiny_checkpoint, ScanOptions(revision="v1"))


def test_the_command_honours_the_environment(tmp_path: Path) -> None:
    with serving() as server:
        server.repo("org/evil").push({"model.ckpt": pickle.dumps(Canary(tmp_path / "canary"))})
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
        environment = clean | {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path)}
        command = [sys.executable, "-m", "sau_scan", "detect", "org/evil"]
        run = partial(subprocess.run, capture_output=True, text=True, cwd=tmp_path, check=False)
        refused = run(command, env=environment | {"HF_HUB_OFFLINE": "1"})
        assert refused.returncode == 3 and "not in the cache" in " ".join(refused.stderr.split())
        assert not server.requests
        done = run(command, env=environment)
        assert done.returncode == 1 and "org/evil/model.ckpt at commit" in done.stdout
        assert not (tmp_path / "canary").exists()
