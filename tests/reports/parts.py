"""What results are made of: a model, coverage, and findings, hostile ones too."""

from __future__ import annotations

import math

from sau_scan.findings import (
    Component,
    Confidence,
    Cost,
    Coverage,
    DetectorRun,
    Evidence,
    FileRecord,
    Finding,
    HeatMap,
    Kind,
    Location,
    ModelInfo,
    Severity,
    Skipped,
    Slot,
    SlotCoverage,
    Trigger,
)  # fmt: skip

MODEL = ModelInfo(
    path="suspect",
    family="Stable Diffusion 1.x",
    files=(
        FileRecord(path="model_index.json", size=541, sha256="0" * 64),
        FileRecord(path="text_encoder/model.safetensors", size=2_400_000, sha256="1" * 64),
        FileRecord(path="unet/diffusion_pytorch_model.safetensors", size=8_566_024, sha256="a1" * 32),
    ),
)
COVERAGE = Coverage(
    files_read=9,
    candidates_probed=6_082,
    candidates_total=6_265,
    slots=(
        SlotCoverage(slot=Slot.PREFIX, probed=3_041, total=3_133),
        SlotCoverage(slot=Slot.SUFFIX, probed=3_041, total=3_132),
    ),
    detectors=(
        DetectorRun(id="unexplained-effect", summary="effect on the noise that the text does not explain", ran=True),
        DetectorRun(id="generation", summary="finished pictures against those of control words", ran=True),
        DetectorRun(
            id="attention", summary="attention that a trigger takes", ran=False, reason="no attention is recorded here"
        ),
    ),
    skipped=(Skipped(what="unet/diffusion_pytorch_model.bin", reason="a pickle; never opened"),),
    limits=("183 untypable tokens", "phrases of three or more words outside the rules"),
    planned=Cost(text_passes=6_100, unet_passes=21_480, seconds=170.0),
    used=Cost(text_passes=6_082, unet_passes=21_402, seconds=168.4),
    versions={"torch": "2.13.0", "diffusers": "0.42.1"},
)
ZERO_WIDTH = Trigger(text="\u200b", slot=Slot.PREFIX, token_ids=(948,))


def heat_map(side: int = 16) -> HeatMap:
    """A spot at the bottom right."""
    rows = tuple(
        tuple(
            round(math.exp(-((x - 0.8 * side) ** 2 + (y - 0.8 * side) ** 2) / (0.05 * side**2)), 3) for x in range(side)
        )
        for y in range(side)
    )
    return HeatMap(title="effect on the noise", rows=rows)


TRIGGER_FINDING = Finding(
    id="trigger/unet",
    kind=Kind.TRIGGER,
    severity=Severity.CRITICAL,
    confidence=Confidence.CONFIRMED,
    component=Component.UNET,
    title="hidden trigger",
    behaviour="puts the same patch at the bottom right, whatever the prompt says",
    trigger=ZERO_WIDTH,
    evidence=(
        Evidence(
            name="effect on the noise, where it is strongest",
            value=41.2,
            null_median=3.1,
            null_low=1.2,
            null_high=9.8,
            p_value=2e-9,
        ),
        Evidence(name="same for all prompts", value=0.94, null_median=0.08, p_value=1e-7),
        Evidence(name="in 5 % of the area", value=0.83, null_median=0.19, p_value=4e-6, note="of 1"),
    ),
    heat_map=heat_map(),
    next_step="sau-scan fix suspect --from report.json --out suspect-fixed",
)
EDIT_FINDING = Finding(
    id="edit/cross-attention",
    kind=Kind.EDIT,
    severity=Severity.LOW,
    confidence=Confidence.CALIBRATED,
    component=Component.CROSS_ATTENTION,
    title="a word depicts something else",
    trigger=Trigger(text="ring", slot=Slot.PHRASE, token_ids=(17, 18)),
    next_step="sau-scan detect suspect --declared-trigger ring",
)
FILE_FINDING = Finding(
    id="file/nan-weights",
    kind=Kind.FILE,
    severity=Severity.HIGH,
    confidence=Confidence.CERTAIN,
    component=Component.FILE,
    title="weights that are not numbers",
    location=Location(path="vae/diffusion_pytorch_model.safetensors", tensor="decoder.conv_in.weight"),
    next_step="Download it again.",
)
PARTS_FINDING = TRIGGER_FINDING.model_copy(
    update={
        "severity": Severity.INFO,
        "declared": True,
        "heat_map": heat_map(8),
        "pictures": ("finding-2.png",),
        "trigger": Trigger(
            text="\u043e",
            slot=Slot.REPLACE,
            replaces="o",
            token_ids=(4, 5),
            parts=(Trigger(text="\U0001f600", slot=Slot.SUFFIX),),
        ),
    }
)
# Terminal escapes, rich markup, direction overrides, a line break, and a link.
HOSTILE = "\x1b]0;owned\x07\x1b[2J[bold red]x[/] [link=http://e]\u202egnp.exe\u2028\r\n\x9b31m"
HOSTILE_FINDING = Finding(
    id=f"trigger/{HOSTILE}",
    kind=Kind.TRIGGER,
    severity=Severity.HIGH,
    confidence=Confidence.CALIBRATED,
    component=Component.TEXT_ENCODER,
    title=HOSTILE,
    behaviour=HOSTILE,
    trigger=Trigger(text=HOSTILE, slot=Slot.REPLACE, replaces="\x1b"),
    location=Location(path=HOSTILE + "\ud800", tensor=HOSTILE),
    evidence=(Evidence(name=HOSTILE, value=math.nan, null_median=math.inf, note=HOSTILE),),
    heat_map=HeatMap(title=HOSTILE, rows=((math.nan, 1.0), (0.5, math.inf))),
    pictures=(HOSTILE,),
    next_step=HOSTILE,
)
