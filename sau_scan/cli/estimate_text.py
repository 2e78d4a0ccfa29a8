"""What ``detect --dry-run`` prints: for each budget what would be looked at, and what that takes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from sau_scan.reports.layout import cells, header
from sau_scan.reports.words import duration, safe, size

if TYPE_CHECKING:
    from sau_scan.estimate import BudgetEstimate, Estimate


def as_json(estimate: Estimate) -> str:
    return json.dumps(asdict(estimate), indent=2) + "\n"


def as_table(estimate: Estimate, chosen: str) -> RenderableType:
    """A row for each budget; that which was asked for is marked."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("budget", "candidates", "UNet passes", "time", "memory"):
        table.add_column(name, justify="left" if name == "budget" else "right", overflow="fold")
    for item in estimate.budgets:
        name = f"{item.budget.value}{' *' if item.budget.value == chosen else ''}"
        table.add_row(*cells(name, *_figures(item)))
    return Group(header(estimate.path, estimate.family, f"{estimate.device}, {estimate.dtype}"), table)


def _figures(item: BudgetEstimate) -> tuple[str, ...]:
    if item.refused:
        return ("-", "-", safe(item.refused), "-")
    looked = f"{item.candidates:,} of {item.total:,}" + (f", {item.only_read:,} read" if item.only_read else "")
    return (looked, f"{item.unet_passes:,}", duration(item.seconds), size(item.memory))
