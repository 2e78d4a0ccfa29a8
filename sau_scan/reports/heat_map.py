"""A small picture of where an effect sits, in half blocks; in shades where there is no colour."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from sau_scan.findings import HeatMap

Grid = Sequence[Sequence[float]]

MAX_SIDE = 32
# Dark blue over red to pale yellow: lightness rises steadily, so it reads in grey and for the colour-blind too.
_RAMP = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))
_SHADES = "·░▒▓█"
_ROWS = ("top", "middle", "bottom")
_COLUMNS = ("left", "centre", "right")


class HeatMapView:
    """A rich renderable of at most 32 columns and 17 lines: the map, then its scale."""

    def __init__(self, heat_map: HeatMap) -> None:
        self._grid = fit(heat_map.rows)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        coloured = console.color_system is not None and not console.no_color
        for upper, lower in _pairs(self._grid):
            for top, bottom in zip(upper, lower, strict=True):
                yield _half_block(top, bottom) if coloured else Segment(_shade((top + bottom) / 2))
            yield Segment.line()
        yield from _scale(coloured)


def fit(rows: Grid) -> list[list[float]]:
    """Values in 0..1 (NaN as 0), square cells: small maps doubled, large ones averaged down to 32 a side."""
    grid = [[min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0 for value in row] for row in rows]
    if not grid or not grid[0] or len({len(row) for row in grid}) != 1:
        return []
    side = max(len(grid), len(grid[0]))
    if side <= 12:
        return [[value for value in row for _ in (0, 1)] for row in grid for _ in (0, 1)]
    step = math.ceil(side / MAX_SIDE)
    return [
        [_mean([row[x : x + step] for row in grid[y : y + step]]) for x in range(0, len(grid[0]), step)]
        for y in range(0, len(grid), step)
    ]


def strongest(rows: Grid) -> str:
    """In words: ``bottom right``, ``middle centre``; ``everywhere`` for a flat map."""
    grid = fit(rows)
    if not grid:
        return "nowhere"
    ninths = {
        f"{row} {column}": _mean([line[slice(*_third(len(line), x))] for line in grid[slice(*_third(len(grid), y))]])
        for y, row in enumerate(_ROWS)
        for x, column in enumerate(_COLUMNS)
    }
    best = max(ninths, key=ninths.__getitem__)
    return "everywhere" if ninths[best] < 1.25 * _mean(grid) or ninths[best] == 0 else best


def _third(length: int, index: int) -> tuple[int, int]:
    return length * index // 3, max(length * (index + 1) // 3, length * index // 3 + 1)


def _mean(block: Grid) -> float:
    values = [value for row in block for value in row]
    return sum(values) / len(values) if values else 0.0


def _pairs(grid: Grid) -> Iterator[tuple[Sequence[float], Sequence[float]]]:
    for index in range(0, len(grid), 2):
        yield grid[index], grid[index + 1] if index + 1 < len(grid) else [0.0] * len(grid[index])


def _half_block(top: float, bottom: float) -> Segment:
    return Segment("▀", Style(color=_colour(top), bgcolor=_colour(bottom)))


def _colour(value: float) -> str:
    position = value * (len(_RAMP) - 1)
    low = min(int(position), len(_RAMP) - 2)
    share = position - low
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_RAMP[low], _RAMP[low + 1], strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _shade(value: float) -> str:
    return _SHADES[min(int(value * len(_SHADES)), len(_SHADES) - 1)]


def _scale(coloured: bool) -> Iterator[Segment]:
    yield Segment("0 ")
    for index in range(16):
        value = index / 15
        yield _half_block(value, value) if coloured else Segment(_shade(value))
    yield Segment(" 1")
    yield Segment.line()
