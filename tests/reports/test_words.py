from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from sau_scan.findings import HeatMap, ModelInfo
from sau_scan.reports import words
from sau_scan.reports.heat_map import MAX_SIDE, HeatMapView, fit, strongest
from tests.reports.parts import heat_map


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (41.2, "41.2"), (0.94, "0.94"), (2e-9, "2e-09"), (1e-7, "1e-07"), (0, "0"), (2629.4, "2,629"), (3.0, "3"),
        (100.0, "100"), (0.0031, "0.0031"), (-1.5, "-1.5"), (1e9, "1e09"), (None, "–"), (math.nan, "–"),
        (math.inf, "inf"), (-math.inf, "-inf"), (999.96, "1000"),
    ],
)  # fmt: skip
def test_number(value: float | None, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (41, "41 s"), (59.7, "1 min 00 s"), (170, "2 min 50 s"), (3900, "1 h 05 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (912, "912 B"), (12_400_000, "12.4 MB"), (2e12, "2,000.0 GB")])
def test_size(size: int, text: str) -> None:
    assert words.size(int(size)) == text


def test_count() -> None:
    assert words.count(1, "file") == "1 file"
    assert words.count(2629, "file") == "2,629 files"


@settings(deadline=None)  # a busy machine is no failure
@given(st.text())
def test_safe_text_is_one_line_of_harmless_characters(text: str) -> None:
    shown = words.safe(text)
    assert all(" " <= ch <= "~" or ch in "·–—→×≤≥≈±°…%✓✗µ²" for ch in shown)
    assert words.safe(shown) == shown


def test_what_came_from_a_hub_is_named_with_its_commit() -> None:
    base = ModelInfo(path="org/base", family="F", source="https://hub", revision="main", commit="0123456789abcdef")
    lora = ModelInfo(path="lora.safetensors", family="F", form="LoRA", base=base)
    assert words.model_words(base) == ("org/base at commit 0123456789ab", "F")
    assert words.model_words(lora) == ("lora.safetensors", "LoRA for org/base at commit 0123456789ab", "F")


def test_a_command_can_be_pasted() -> None:
    assert words.command("sau-scan fix 'my model' --out \"a'b\"") == "sau-scan fix 'my model' --out \"a'b\""
    assert words.command("sau-scan detect '\u0438'\x1b") == r"sau-scan detect $'\u0438'\x1b"


grids = st.integers(1, 70).flatmap(
    lambda width: st.lists(st.lists(st.floats(), min_size=width, max_size=width), min_size=1, max_size=70)
)


@settings(deadline=None)  # a busy machine is no failure
@given(grids)
def test_any_map_fits_and_stays_in_range(rows: list[list[float]]) -> None:
    grid = fit(rows)
    assert 1 <= len(grid) <= MAX_SIDE
    assert all(len(row) == len(grid[0]) <= MAX_SIDE for row in grid)
    assert all(0 <= value <= 1 for row in grid for value in row)


def test_a_map_names_its_strongest_place() -> None:
    assert strongest(heat_map(16).rows) == "bottom right"
    assert strongest(((0.0, 0.0, 0.0), (0.9, 0.0, 0.0), (0.0, 0.0, 0.0))) == "middle left"
    assert strongest(((0.5,) * 8,) * 8) == "everywhere"
    assert strongest(()) == "nowhere"
    assert strongest(((0.1, 0.2), (0.1,))) == "nowhere"


def _render(colour: bool) -> str:
    console = Console(width=80, force_terminal=True, color_system="truecolor", no_color=not colour, _environ={})
    with console.capture() as capture:
        console.print(HeatMapView(HeatMap(title="t", rows=heat_map(16).rows)))
    return capture.get()


def test_a_map_has_half_blocks_and_a_scale_in_colour() -> None:
    lines = _render(colour=True).splitlines()
    assert len(lines) == 9  # 16 rows in half blocks, and the scale
    assert lines[0].count("▀") == 16
    assert "\x1b[38;2;" in lines[0]
    assert lines[-1].startswith("0 ")
    assert lines[-1].rstrip().endswith(" 1")


def test_a_map_reads_without_colour() -> None:
    text = _render(colour=False)
    assert "▀" not in text
    assert "█" in text.splitlines()[6]
    assert "█" not in text.splitlines()[0]
