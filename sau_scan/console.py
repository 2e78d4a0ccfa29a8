"""Progress on stderr: the plan, a bar with the remaining time while a stage runs, one line when it ends.

Bars are drawn on a terminal only; the plan and the lines are for logs too.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from sau_scan.reports.words import safe

_NAME_WIDTH = 9


class StderrProgress:
    """Implements :class:`sau_scan.options.Progress`; a context manager, so that no bar outlives an error."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._console = Console(file=stream if stream is not None else sys.stderr, highlight=False, quiet=quiet)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._name = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def plan(self, text: str) -> None:
        self.line("plan", text)

    def stage(self, name: str, total: int) -> None:
        self._stop()
        self._name = safe(name)
        # Updates of a bar that nobody sees still cost a thread.
        if not self._console.is_terminal or self._console.quiet:
            return
        self._bar = _bar(self._console)
        self._task = self._bar.add_task(self._name, total=max(total, 1))
        self._bar.start()

    def advance(self, units: int = 1) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, units)

    def done(self, summary: str) -> None:
        self._stop()
        self._console.print(
            Text.assemble(" ", (f"{self._name:<{_NAME_WIDTH}} ", "bold"), ("✓ ", "green"), safe(summary)),
            soft_wrap=not self._console.is_terminal,
        )

    def line(self, label: str, text: str) -> None:
        """One line for people, such as ``wrote      report.json``; escaped like everything shown."""
        self._stop()
        self._console.print(Text.assemble((f"{label:<10} ", "bold"), safe(text)), soft_wrap=True)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn(f" {{task.description:<{_NAME_WIDTH}}}", markup=False),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.completed:>7,.0f} of {task.total:,.0f}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        # What else is printed meanwhile must keep its stream.
        redirect_stdout=False,
        redirect_stderr=False,
    )


def stdout_console(stream: TextIO) -> Console:
    """A console for reports: as wide as the terminal up to 100 columns, 80 where there is none."""
    console = Console(file=stream, highlight=False)
    width = min(console.width, 100) if console.is_terminal else _columns()
    return Console(file=stream, highlight=False, width=width)


def _columns() -> int:
    text = os.environ.get("COLUMNS", "")
    return max(40, min(int(text), 200)) if text.isdecimal() else 80
