"""``make bench``: scan and repair every zoo model, print the tables and write them to docs/results.md.

    python -m benchmarks [--world tiny] [--budget standard] [--no-fix] [NAME ...]

Each attack: is the true trigger named first, and what does the repair leave of it? Each hard negative: is it quiet?
Figures are the zoo's; they say nothing about Stable Diffusion's rates.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.repairs import measure_repair
from sau_scan.findings import ScanResult, Severity
from sau_scan.options import Budget, FixOptions, ScanOptions
from sau_scan.scan import detect
from zoo.attacks import RECIPES, read_case
from zoo.build import info_path
from zoo.train.export import model_dir
from zoo.worlds import world

RESULTS = Path(__file__).parents[1] / "docs" / "results.md"
LIBRARIES = ("torch", "diffusers", "transformers")


def names_exact(result: ScanResult, trigger: dict[str, Any] | None) -> bool:
    """Whether the first finding is the true trigger: text and slot (and letter)."""
    if trigger is None or not result.findings or result.findings[0].trigger is None:
        return False
    found = result.findings[0].trigger
    return (found.text, found.slot.value, found.replaces) == (trigger["text"], trigger["slot"], trigger["replaces"])


def detect_row(name: str, result: ScanResult, trigger: dict[str, Any] | None) -> str:
    first = result.findings[0] if result.findings else None
    shown = first.trigger.escaped if first and first.trigger else "–"
    gate = sum(f.severity.rank >= Severity.HIGH.rank for f in result.findings)
    good = names_exact(result, trigger) if trigger else gate == 0
    used = result.coverage.used
    return (
        f"| {name} | {result.verdict.value} | `{shown}` | {gate} | {'yes' if good else '**no**'} "
        f"| {used.unet_passes:,} | {used.text_passes:,} | {used.seconds:.0f} |"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--world", default="tiny")
    parser.add_argument("--budget", type=Budget, default=Budget.STANDARD)
    parser.add_argument("--no-fix", action="store_true")
    given = parser.parse_args(arguments)
    where = world(given.world)
    names = given.names or ["base", *(r.name for r in RECIPES if model_dir(where.name, r.name).is_dir())]
    lines = [f"# Results on the zoo's world {where.name!r}", "", _header(given.budget), "", *_DETECT]
    repaired = []
    for name in names:
        folder, info = model_dir(where.name, name), info_path(where, name)
        trigger = json.loads(info.read_text())["trigger"] if info.exists() else None
        result = detect(folder, ScanOptions(budget=given.budget))
        _say(lines, detect_row(name, result, trigger))
        RESULTS.write_text("\n".join(lines) + "\n")
        if trigger and not given.no_fix:
            with tempfile.TemporaryDirectory() as room:
                options = FixOptions(out=Path(room) / "fixed", scan=ScanOptions(budget=given.budget))
                repaired.append(measure_repair(where, name, read_case(info), folder, options, result))
    if repaired:
        for line in ("", *_REPAIR, *repaired):
            _say(lines, line)
    RESULTS.write_text("\n".join(lines) + "\n")
    return 0


_DETECT = (
    "| model | verdict | first trigger | at the gate | as it should be | UNet passes | text passes | seconds |",
    "|---|---|---|---|---|---|---|---|",
)
_REPAIR = (
    "| model | published | ASR before | ASR after (95 %) | TRA | agreement | CLIP ratio | accuracy, points | seconds |",
    "|---|---|---|---|---|---|---|---|---|",
)


def _header(budget: Budget) -> str:
    command = "python -m benchmarks " + " ".join(sys.argv[1:])
    versions = ", ".join(f"{n} {version(n)}" for n in LIBRARIES)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"`{command.strip()}` · {today} · budget {budget.value} · {platform.machine()} · {versions}"


def _say(lines: list[str], line: str) -> None:
    lines.append(line)
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
