"""Every rule about files finds its positive examples and passes over its benign ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from sau_scan.file_rules import load_file_rules
from sau_scan.findings import Finding, Severity
from sau_scan.static import blocks, vet_file
from tests.static.makers import MAKERS

RULES = load_file_rules()
POSITIVE = [(rule.id, example.maker) for rule in RULES for example in rule.positive]
BENIGN = sorted({example.maker for rule in RULES for example in rule.benign})


def found(maker: str, folder: Path, checkpoint: Path) -> dict[str, Finding]:
    results = vet_file(MAKERS[maker](folder, checkpoint))
    return {result.id.removeprefix("file/"): result for result in results if isinstance(result, Finding)}


@pytest.mark.parametrize(("rule", "maker"), POSITIVE)
def test_a_positive_example_is_found(rule: str, maker: str, tmp_path: Path, tiny_checkpoint: Path) -> None:
    assert rule in found(maker, tmp_path, tiny_checkpoint)


@pytest.mark.parametrize("maker", BENIGN)
def test_a_benign_example_gives_no_more_than_information(maker: str, tmp_path: Path, tiny_checkpoint: Path) -> None:
    results = found(maker, tmp_path, tiny_checkpoint)
    assert {rule for rule, one in results.items() if one.severity is not Severity.INFO} == set()
    assert not any(blocks(one) for one in results.values())
    barred = {rule.id for rule in RULES for example in rule.benign if example.maker == maker}
    assert not barred & results.keys()


def test_every_maker_is_an_example_of_some_rule() -> None:
    named = {example.maker for rule in RULES for example in (*rule.positive, *rule.benign)}
    assert named == MAKERS.keys()
