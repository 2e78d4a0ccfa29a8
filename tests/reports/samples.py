"""Results to render: all features, clean, inconclusive, hostile; and the golden reports made of them."""

from __future__ import annotations

import math
from pathlib import Path

from sau_scan.findings import (
    Check,
    Component,
    Cost,
    Coverage,
    DetectorRun,
    FileRecord,
    FixResult,
    Location,
    ModelInfo,
    NearMiss,
    RepairStep,
    RepairSummary,
    ScanResult,
    Skipped,
    Slot,
    Trigger,
    Verdict,
    Verification,
)  # fmt: skip
from sau_scan.reports import FORMATS
from tests.reports.parts import (
    COVERAGE,
    EDIT_FINDING,
    FILE_FINDING,
    HOSTILE,
    HOSTILE_FINDING,
    MODEL,
    PARTS_FINDING,
    TRIGGER_FINDING,
    ZERO_WIDTH,
)

GOLDEN = Path(__file__).with_name("golden")
BACKDOORED = ScanResult(
    tool_version="0.1.0",
    verdict=Verdict.BACKDOORED,
    model=MODEL,
    findings=(TRIGGER_FINDING, FILE_FINDING, EDIT_FINDING, PARTS_FINDING),
    coverage=COVERAGE,
)
CLEAN = ScanResult(
    tool_version="0.1.0",
    verdict=Verdict.CLEAN,
    model=MODEL,
    findings=(),
    near_miss=NearMiss(trigger=Trigger(text="zebra", slot=Slot.SUFFIX), detector="generation", value=9.1, line=14.0),
    coverage=COVERAGE.model_copy(update={"skipped": (), "candidates_probed": 6_265}),
)
INCONCLUSIVE = ScanResult(
    tool_version="0.1.0",
    verdict=Verdict.INCONCLUSIVE,
    model=MODEL,
    findings=(),
    coverage=COVERAGE.model_copy(
        update={"skipped": (Skipped(what="denoise", reason="attention processor of an unknown kind", planned=True),)}
    ),
)
# An adapter and its base of the hub; what is grave lies in the base.
ADAPTER = BACKDOORED.model_copy(
    update={
        "verdict": Verdict.SUSPICIOUS,
        "model": ModelInfo(
            path="style.safetensors",
            family="Stable Diffusion 1.x",
            form="LoRA",
            files=(FileRecord(path="style.safetensors", size=3_200_000, sha256="2" * 64),),
            base=MODEL.model_copy(
                update={
                    "path": "org/name",
                    "source": "https://huggingface.co",
                    "revision": "v1",
                    "commit": "0123456789abcdef0123456789abcdef01234567",
                }
            ),
        ),
        "findings": (
            FILE_FINDING.model_copy(
                update={"location": Location(path="unet/diffusion_pytorch_model.safetensors", base="org/name")}
            ),
        ),
    }
)
# What PEFT wrote: a file, and the settings beside it.
PEFT = BACKDOORED.model_copy(
    update={
        "model": ModelInfo(
            path="lora/adapter_model.safetensors",
            family="Stable Diffusion 1.x",
            form="LoRA",
            files=(
                FileRecord(path="adapter_model.safetensors", size=3_200_000, sha256="2" * 64),
                FileRecord(path="adapter_config.json", size=800, sha256="3" * 64),
            ),
            base=MODEL.model_copy(update={"path": "base"}),
        ),
        "findings": (
            TRIGGER_FINDING,
            FILE_FINDING.model_copy(update={"location": Location(path="adapter_config.json")}),
        ),
    }
)
_HOSTILE_MODEL = ModelInfo(
    path=HOSTILE, family=HOSTILE, files=(FileRecord(path=HOSTILE + ".bin", size=3, sha256=HOSTILE),)
)
HOSTILE_SCAN = ScanResult(
    tool_version="0.1.0",
    verdict=Verdict.SUSPICIOUS,
    model=_HOSTILE_MODEL,
    findings=(HOSTILE_FINDING,),
    near_miss=NearMiss(trigger=ZERO_WIDTH, detector=HOSTILE, value=math.nan, line=math.inf),
    coverage=Coverage(
        detectors=(
            DetectorRun(id=HOSTILE, summary=HOSTILE, ran=True),
            DetectorRun(id=HOSTILE, summary=HOSTILE, ran=False, reason=HOSTILE),
        ),
        skipped=(Skipped(what=HOSTILE, reason=HOSTILE, planned=True), Skipped(what=HOSTILE, reason=HOSTILE)),
        limits=(HOSTILE,),
        budget=HOSTILE,
        device=HOSTILE,
        dtype=HOSTILE,
        versions={HOSTILE: HOSTILE},
    ),
)
REPAIR = RepairSummary(
    located="the effect enters through cross-attention (swapping its keys and values removes 97 % of it)",
    steps=(
        RepairStep(
            method="sau",
            component=Component.CROSS_ATTENTION,
            trigger=ZERO_WIDTH,
            tensors=tuple(
                Location(path="unet/diffusion_pytorch_model.safetensors", tensor=f"down_blocks.{i}.attn2.to_k.weight")
                for i in range(14)
            ),
            relative_change=0.031,
            note="closed form, then 120 steps",
        ),
    ),
    tensors_changed=14,
    tensors_total=412,
    files_changed=("unet/diffusion_pytorch_model.safetensors",),
    files_identical=8,
    cost=Cost(text_passes=64, unet_passes=4_100, seconds=100.2),
)
VERIFICATION = Verification(
    checks=(
        Check(
            name="trigger effect on the noise",
            before=41.2,
            after=2.9,
            limit=9.8,
            passed=True,
            note="neutral words: 3.1",
        ),
        Check(name="clean pictures moved", after=0.006, limit=0.02, passed=True),
        Check(name="triggers in the re-scan", passed=True, note="clean"),
    ),
    passed=True,
    prompts=32,
)
REPAIRED = FixResult(
    tool_version="0.1.0",
    before=BACKDOORED,
    after=CLEAN,
    repair=REPAIR,
    verification=VERIFICATION,
    published="suspect-fixed",
)
NOT_PUBLISHED = REPAIRED.model_copy(
    update={
        "published": None,
        "reason": "clean pictures moved by 4 %, the budget is 2 %",
        "verification": Verification(
            checks=(Check(name="clean pictures moved", after=0.04, limit=0.02, passed=False),), passed=False
        ),
        "after": BACKDOORED,
    }
)
DRY_RUN = FixResult(tool_version="0.1.0", before=BACKDOORED, repair=REPAIR, dry_run=True)
NOTHING = FixResult(tool_version="0.1.0", before=CLEAN, nothing_to_repair=True)
HOSTILE_FIX = FixResult(
    tool_version="0.1.0",
    before=HOSTILE_SCAN,
    after=HOSTILE_SCAN,
    repair=RepairSummary(
        located=HOSTILE,
        steps=(
            RepairStep(
                method=HOSTILE,
                component=Component.UNET,
                trigger=HOSTILE_FINDING.trigger,
                tensors=(Location(path=HOSTILE, tensor=HOSTILE),),
                note=HOSTILE,
            ),
        ),
    ),
    verification=Verification(checks=(Check(name=HOSTILE, passed=False, note=HOSTILE),), passed=False),
    reason=HOSTILE,
)
SCANS = {
    "backdoored": BACKDOORED,
    "adapter": ADAPTER,
    "peft": PEFT,
    "clean": CLEAN,
    "inconclusive": INCONCLUSIVE,
    "hostile": HOSTILE_SCAN,
}
REPAIRS = {
    "repaired": REPAIRED,
    "not-published": NOT_PUBLISHED,
    "dry-run": DRY_RUN,
    "nothing": NOTHING,
    "hostile-fix": HOSTILE_FIX,
}
ALL: dict[str, ScanResult | FixResult] = {**SCANS, **REPAIRS}


def golden_reports() -> dict[str, str]:
    """File name -> report, in every format."""
    return {name + known.ending: known.render(result) for name, result in ALL.items() for known in FORMATS}
