"""What a scan consists of, for coverage: a literal tuple, in the order in which it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DetectorInfo:
    """``needs``: what the detector looks at. ``paper``: where the method or its ancestor was published."""

    id: str
    summary: str
    needs: str
    paper: str


DETECTORS = (
    DetectorInfo("files", "facts about files, weights and tokenizer", "files", "see rules and docs"),
    DetectorInfo("null-direction", "directions every cross-attention layer ignores", "weights", "EvilEdit 2406.21170"),
    DetectorInfo("collapse", "different prompts, one text output", "text encoder", "AMDET 2512.00343"),
    DetectorInfo("text-shift", "meaningless characters that move the text output", "text encoder", "SEMAD 2602.20193"),
    DetectorInfo("unexplained-effect", "effect on the noise that the text does not explain", "UNet", "ours"),
    DetectorInfo("adapter-contrast", "effect on the noise that the base does not have", "UNet", "SEMAD; ours"),
    DetectorInfo("attention", "attention that a trigger takes", "UNet", "T2IShield 2407.04215; DAA 2504.20518"),
    DetectorInfo("generation", "finished pictures against those of control words", "UNet", "ours"),
)
