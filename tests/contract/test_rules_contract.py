"""Every shipped rule keeps the promises that rules make."""

from __future__ import annotations

import pytest

from sau_scan.findings import Slot
from sau_scan.rules import Rule, blanks, load_rules

RULES = load_rules()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.family}/{rule.id}")
class TestEveryRule:
    def test_positive_examples_match(self, rule: Rule) -> None:
        assert [text for text in rule.positive if not rule.matches(text)] == []

    def test_benign_examples_do_not_match(self, rule: Rule) -> None:
        assert [text for text in rule.benign if rule.matches(text)] == []

    def test_produces_candidates_or_templates(self, rule: Rule) -> None:
        assert bool(list(rule.candidates())) != bool(rule.templates)

    def test_candidates_are_unique_and_in_their_slots(self, rule: Rule) -> None:
        candidates = list(rule.candidates())
        assert len(candidates) == len(set(candidates))
        assert {c.slot for c in candidates} == set(rule.slots)
        assert all((c.replaces is not None) == (c.slot is Slot.REPLACE) for c in candidates)

    def test_templates_have_one_or_two_blanks(self, rule: Rule) -> None:
        assert all(blanks(template) in {("a",), ("a", "b")} for template in rule.templates)

    def test_cites_its_sources(self, rule: Rule) -> None:
        assert rule.references
