"""Loading of rule packs, and the errors for packs that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sau_scan.confusables import other_letters, styled_letters, with_diacritics
from sau_scan.errors import ConfigError
from sau_scan.findings import Slot
from sau_scan.rules import Candidate, carrier_templates, load_rules
from tests.third_party import third_party

VALID = """
id: one
family: some
title: t
severity: high
summary: s
slots: [prefix, suffix]
texts: [foo, bar]
positive: [foo]
benign: [baz]
"""


def write(folder: Path, text: str, name: str = "some/one.yaml") -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, "utf-8")
    return folder


def test_candidates_come_slot_by_slot(tmp_path: Path) -> None:
    (rule,) = load_rules(write(tmp_path, VALID))
    assert list(rule.candidates()) == [
        Candidate("foo", Slot.PREFIX),
        Candidate("bar", Slot.PREFIX),
        Candidate("foo", Slot.SUFFIX),
        Candidate("bar", Slot.SUFFIX),
    ]


def test_code_point_ranges_include_both_ends(tmp_path: Path) -> None:
    text = VALID.replace("texts: [foo, bar]", "code_points: [U+200B, U+2061..U+2063]")
    (rule,) = load_rules(write(tmp_path, text))
    assert [c.text for c in rule.candidates() if c.slot is Slot.PREFIX] == ["\u200b", "\u2061", "\u2062", "\u2063"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: t", "title: t\ncolour: red", "unknown field 'colour'"),
        ("severity: high", "severity: dreadful", "field 'severity'"),
        ("slots: [prefix, suffix]", "slots: [above]", "field 'slots.0'"),
        ("title: t", "title: 7", "field 'title'"),
        ("title: t\n", "", "field 'title'"),
        ("title: t", "title: t\ntitle: u", "'title' appears twice"),
        ("texts: [foo, bar]", "texts: [foo]\ncode_points: [U+200B]", "exactly one of"),
        ("texts: [foo, bar]", "texts: ['']", "empty text"),
        ("texts: [foo, bar]", "code_points: [200B]", "not of the form"),
        ("texts: [foo, bar]", "code_points: [U+D800]", "surrogates"),
        ("slots: [prefix, suffix]", "slots: [replace]", "stands alone"),
        ("texts: [foo, bar]", "texts: [foo, bar", "not valid YAML"),
        ("texts: [foo, bar]", "texts: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("texts: [foo, bar]", "texts: &a [foo]\nreferences: *a", "aliases are not allowed"),
        ("texts: [foo, bar]", "texts: [2020-01-01]", "not valid YAML"),
        ("id: one", "id: two", "not where the file is"),
    ],
)
def test_a_bad_rule_is_refused_with_file_and_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in VALID
    with pytest.raises(ConfigError) as caught:
        load_rules(write(tmp_path, VALID.replace(old, new, 1)))
    assert message in str(caught.value)
    assert "one.yaml" in str(caught.value)
    assert caught.value.hint


def test_unknown_field_hint_lists_the_fields(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_rules(write(tmp_path, VALID + "colour: red\n"))
    assert "templates" in caught.value.hint


def test_a_folder_without_rules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no rules"):
        load_rules(tmp_path)


def test_two_rules_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, VALID)
    write(tmp_path, VALID.replace("family: some", "family: other"), "other/one.yaml")
    with pytest.raises(ConfigError, match="two rules are called 'one'"):
        load_rules(tmp_path)


def test_a_list_or_an_oversized_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_rules(write(tmp_path, "- a\n- b\n"))
    with pytest.raises(ConfigError, match="larger than"):
        load_rules(write(tmp_path, "#" * 300_000))


def test_carrier_templates_have_one_and_two_blanks_and_no_repeats() -> None:
    templates = carrier_templates(load_rules())
    assert {"a photo of a {a}", "{a} and {b}", "a {a} {b}"} <= set(templates)
    assert len(templates) == len(set(templates))


def test_confusables_of_a_letter() -> None:
    assert other_letters("o")[0] == "\u043e"
    assert {"\u03bf", "\u0585"} <= set(other_letters("o"))
    assert "\uff4f" in styled_letters("o")
    assert "\u020f" in with_diacritics("o")
    for letter in "aeiou":
        groups = [set(other_letters(letter)), set(styled_letters(letter)), set(with_diacritics(letter))]
        assert all(groups)
        assert not groups[0] & groups[1]
        assert all(len(ch) == 1 and not ch.isascii() for group in groups for ch in group)


def test_every_published_character_trigger_is_a_candidate() -> None:
    published = json.loads(third_party("triggers/rickrolling.json").read_text("utf-8"))
    ours = {(c.text, c.replaces) for rule in load_rules() for c in rule.candidates() if c.slot is Slot.REPLACE}
    missing = [e["trigger"] for e in published for letter in e["replaces"] if (e["trigger"], letter) not in ours]
    assert published
    assert missing == []


@pytest.mark.parametrize("name", ["BadT2I", "EvilEdit", "Personalize", "Rickrolling", "Villan"])
def test_quick_rules_tell_published_prompts_with_a_trigger_from_those_without(name: str) -> None:
    lines = third_party(f"DAA/prompts/{name}.txt").read_text("utf-8").splitlines()
    prompts = [line.replace("\\u200b", "\u200b") for line in lines if line]
    half = len(prompts) // 2
    families = {"BadT2I": "invisible", "EvilEdit": "rare-tokens", "Rickrolling": "homoglyphs"}
    family = families.get(name, "rare-tokens")
    rules = [rule for rule in load_rules() if rule.family == family and rule.depth == "quick"]
    hits = [any(rule.matches(prompt) for rule in rules) for prompt in prompts]
    assert sum(hits[:half]) >= 0.95 * half
    assert sum(hits[half + 1 :]) <= 0.05 * half


@pytest.mark.parametrize("made", ["", "rules/x.yaml", "rules/x/y.yaml", "rules"])
def test_what_is_wrong_with_rules_is_told_in_sentences(tmp_path: Path, made: str) -> None:
    path = tmp_path / made if made else tmp_path / "no"
    if made.endswith("yaml"):
        path.parent.mkdir(parents=True)
        path.write_text("id: [")
    elif made:
        path.mkdir()
    with pytest.raises(ConfigError) as caught:
        load_rules(tmp_path / "rules" if made else path)
    assert str(caught.value).endswith(".") and not str(caught.value).endswith("..")
