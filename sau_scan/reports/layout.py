"""Building blocks of the text report. Strings become ``Text``, never rich markup."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sau_scan.reports.words import safe

WIDTH = 80
LABEL_WIDTH = 11


def styled(text: str, style: str) -> tuple[str, str]:
    return text, style


def line(text: str, style: str = "") -> Text:
    return Text(text, style)


def cells(*texts: str) -> list[Text]:
    """Cells of a table row: rich would read markup in plain strings."""
    return [Text(text, overflow="fold") for text in texts]


def header(*facts: str) -> Text:
    """``sau-scan 0.1.0 · suspect/ · Stable Diffusion 1.x · ...``; empty facts are left out."""
    return Text(" · ".join(safe(fact) for fact in facts if fact), "bold")


def field(label: str, content: str | RenderableType, *, indent: int = 0, style: str = "") -> Table:
    """A label, and content that wraps beside it. ``content`` is safe already, or a renderable."""
    grid = Table.grid(padding=(0, 0))
    grid.add_column(width=indent + LABEL_WIDTH, no_wrap=True)
    grid.add_column(overflow="fold")
    body = Text(content, style, overflow="fold") if isinstance(content, str) else content
    grid.add_row(Text(" " * indent + label, "dim" if indent else "bold"), body)
    return grid
