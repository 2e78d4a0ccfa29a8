from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sau_scan.cli import parsing
from sau_scan.errors import UsageError
from sau_scan.findings import Slot, Trigger, escape


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("4m", 240.0),
        ("4min", 240.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("2m 5s", 125.0),
    ],
)
def test_seconds(text: str, value: float) -> None:
    assert parsing.seconds(text) == value


@pytest.mark.parametrize("text", ["", "0", "0s", "-3", "soon", "4m4m", "nan", "inf"])
def test_seconds_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        parsing.seconds(text)


@pytest.mark.parametrize(("text", "value"), [("95", 0.95), ("95%", 0.95), ("95 %", 0.95), ("0.95", 0.95), ("1", 1.0),
                                             ("100", 1.0), ("0", 0.0), ("0.5%", 0.005)])  # fmt: skip
def test_share(text: str, value: float) -> None:
    assert parsing.share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "nan", "inf", "101", "-1", "101%", "most"])
def test_share_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        parsing.share(text)


@settings(deadline=None)  # a busy machine is no failure
@given(st.text())
def test_what_reports_show_can_be_typed(text: str) -> None:
    assert parsing.unescape(escape(text)) == text


@pytest.mark.parametrize("text", ["\\", "\\u20", "\\q", "\\ud800", "\\U00110000"])
def test_bad_escapes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="escape"):
        parsing.unescape(text)


def test_what_is_typed_wrongly_is_shown_as_it_was_typed() -> None:
    with pytest.raises(UsageError) as caught:
        parsing.unescape("\\uZZ\x1b")
    assert str(caught.value) == r"--trigger \uZZ\x1b: \u is not an escape sequence."
    with pytest.raises(UsageError, match="--declared-trigger "):
        parsing.declared(["\\uZZ"])


def test_one_slot_and_one_letter_count_for_all() -> None:
    assert parsing.triggers(["a", "b"], [Slot.REPLACE], ["o"]) == (
        Trigger(text="a", slot=Slot.REPLACE, replaces="o"),
        Trigger(text="b", slot=Slot.REPLACE, replaces="o"),
    )


@pytest.mark.parametrize(
    ("texts", "slots", "replaces"),
    [
        (["a"], [], []),
        (["a"], [Slot.PREFIX, Slot.SUFFIX], []),
        (["a"], [Slot.REPLACE], []),
        (["a"], [Slot.PREFIX], ["o"]),
        ([], [], ["o"]),
        ([""], [], []),
        (["\udcff"], [], []),
    ],
)
def test_triggers_refuses(texts: list[str], slots: list[Slot], replaces: list[str]) -> None:
    with pytest.raises(UsageError):
        parsing.triggers(texts, slots, replaces)


def test_a_blank_trigger_is_refused_and_an_odd_space_is_not() -> None:
    with pytest.raises(UsageError, match="blank"):
        parsing.triggers(["  "], [Slot.PREFIX], [])
    assert parsing.triggers(["\u2009"], [Slot.PREFIX], [])[0].text == "\u2009"


def test_an_empty_declared_trigger_is_refused() -> None:
    assert parsing.declared(["V", r"\u200b"]) == ("V", "\u200b")
    with pytest.raises(UsageError, match="empty"):
        parsing.declared([""])


def test_an_empty_name_is_no_model() -> None:
    with pytest.raises(ValueError, match="empty"):
        parsing.model("")


def test_what_is_written_as_a_path_stays_one(tmp_path: Path) -> None:
    assert parsing.model("./org/name").is_absolute()
    assert parsing.model("org/name") == Path("org/name")
    assert parsing.model(str(tmp_path)) == tmp_path


def test_an_address_is_the_name_of_a_repository() -> None:
    assert parsing.model("https://huggingface.co/org/name/tree/v1") == Path("org/name@v1")
    with pytest.raises(ValueError, match="download it first"):
        parsing.model("https://example.org/model.ckpt")


def test_what_counts_for_one_trigger_is_told_in_the_singular() -> None:
    with pytest.raises(UsageError, match="counts for 1 trigger, but --replaces is given 0 times"):
        parsing.triggers(["a"], [Slot.REPLACE], [])
