"""One regression test for each published way past a scanner: found by the rule that is for it, and nothing is loaded.

The links are in the corpus, beside the makers. Those of section 7 of the science come first, by name.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sau_scan.findings import Finding, Severity
from sau_scan.static import blocks, vet_file
from tests.corpus import HOSTILE, by_id, make
from tests.corpus.gadgets import FICKLING, PICKLESCAN

# What was published, the samples that do it, one of the rules that must find it.
PUBLISHED: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("7z (nullifAI)", ("archive-seven-pickle", "archive-seven-renamed", "archive-seven-torch"), "archive-packed"),
    ("broken pickles (nullifAI)", ("route-broken", "route-broken-short", "route-no-stop"), "pickle-danger"),
    ("zips with a wrong checksum", ("archive-zip-crc",), "archive-checksum"),
    ("zips with two names for one file", ("archive-zip-names",), "archive-broken"),
    ("zips with odd flags", ("archive-zip-flag-1", "archive-zip-flag-40", "archive-zip-locked"), "archive-broken"),
    ("zips with another entry for the pickle", ("archive-zip-other-entry", "archive-zip-text"), "pickle-danger"),
    ("pickles renamed safetensors", ("archive-wrong-ending-safetensors", "archive-torch-safetensors"), "disguised"),
    ("pickles with other endings", ("archive-wrong-ending-bin", "archive-wrong-ending-pt"), "pickle-danger"),
    ("pickles in pickles", ("gadget-pickle-loads", "gadget-c-pickle-loads", "route-nested-3"), "pickle-danger"),
    ("oversized headers", ("header-huge-header", "header-negative-header"), "disguised"),
    ("overlapping tensors", ("header-overlap", "header-same-bytes"), "safetensors-header"),
    ("hostile metadata", ("header-template",), "template"),
    ("code in metadata", ("header-code",), "metadata"),
    ("links out of the folder", ("folder-link-weights", "folder-link-folder", "folder-link-up"), "link-outside"),
    ("archives that explode", ("format-bomb", "format-bomb-overlapping", "format-bomb-gzip"), "archive-bomb"),
    ("chat templates (CVE-2024-34359)", ("format-gguf", "folder-chat-template"), "template"),
    ("paths out of ONNX models", ("format-onnx-up", "format-onnx-absolute"), "archive-path"),
    ("functions in Keras models", ("format-keras", "format-keras-h5"), "model-code"),
)  # fmt: skip
PICKLE_RULES = {"file/pickle-danger", "file/pickle-unknown"}
ADVISORIES = tuple(
    sample
    for sample in HOSTILE
    if sample.link.startswith((PICKLESCAN, FICKLING, "https://github.com/protectai", "https://github.com/mmaitre314"))
)


def found(name: str, folder: Path) -> list[Finding]:
    results = vet_file(make(by_id(name), folder, folder / "canary"))
    assert not (folder / "canary").exists()
    return [result for result in results if isinstance(result, Finding)]


@pytest.mark.parametrize(
    ("name", "rule"),
    [(name, rule) for _, names, rule in PUBLISHED for name in names],
    ids=[f"{what}-{name}" for what, names, _ in PUBLISHED for name in names],
)
def test_a_published_bypass_is_found_by_its_rule(name: str, rule: str, tmp_path: Path) -> None:
    assert f"file/{rule}" in {finding.id for finding in found(name, tmp_path)}


def test_there_is_a_sample_for_each_kind_of_advisory() -> None:
    assert len({sample.link for sample in ADVISORIES}) >= 50


@pytest.mark.parametrize("name", [sample.id for sample in ADVISORIES])
def test_an_advisory_is_covered(name: str, tmp_path: Path) -> None:
    """Whatever the scanner of the advisory missed, here it is the pickle that is named, and that blocks loading."""
    findings = found(name, tmp_path)
    named = [finding for finding in findings if finding.id in PICKLE_RULES]
    assert named and any(blocks(finding) for finding in named)
    assert max(finding.severity.rank for finding in named) >= Severity.HIGH.rank
