"""The table of results: rows in benchmarks/results.json, by model, shown in docs/results.md."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROWS = Path(__file__).with_name("results.json")
SHOWN = Path(__file__).parents[1] / "docs" / "results.md"
HIDDEN = ("run", "budget")
LIBRARIES = ("torch", "diffusers", "transformers")
TITLES = {"scan": "Scans", "repair": "Repairs"}
HEAD = """# Results on the zoo

Written by `python -m benchmarks` (rows in `benchmarks/results.json`). The figures are those of our own tiny models;
they say nothing about rates on Stable Diffusion.

{worlds}"""
WORLDS = Path(__file__).with_name("worlds.md")


def versions() -> str:
    """Machine and libraries of a run, in one line."""
    return f"{platform.machine()}, " + ", ".join(f"{name} {version(name)}" for name in LIBRARIES)


def keep(kind: str, world: str, name: str, row: dict[str, Any]) -> None:
    """Store a row in place of the last one of this model and budget, print it, and write the table anew."""
    rows = json.loads(ROWS.read_text()) if ROWS.exists() else {}
    rows.setdefault(kind, {}).setdefault(world, {})[f"{name}, {row['budget']}"] = row
    ROWS.write_text(json.dumps(rows, indent=1) + "\n")
    SHOWN.write_text(render(rows))
    print(f"{world}/{name}: " + ", ".join(f"{k} {_cell(v)}" for k, v in row.items() if k not in HIDDEN), flush=True)


def render(rows: dict[str, Any]) -> str:
    """All rows as Markdown."""
    parts, runs = [HEAD.format(worlds=WORLDS.read_text("utf-8"))], {}
    for kind, title in TITLES.items():
        for world, models in rows.get(kind, {}).items():
            columns = list(dict.fromkeys(k for row in models.values() for k in row if k not in HIDDEN))
            parts.append(f"## {title}, world {world}\n")
            lines = ["| model, budget | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
            for name, row in models.items():
                lines.append(f"| {name} | " + " | ".join(_cell(row.get(c)) for c in columns) + " |")
                run = row["run"]
                runs.setdefault((run["command"], run["date"], run["versions"]), []).append(f"{world}/{name}")
            parts.append("\n".join(lines) + "\n")
    parts.append("## Runs\n")
    told = (f"- `{c.strip()}` \u00b7 {d} \u00b7 {v}: {', '.join(dict.fromkeys(of))}" for (c, d, v), of in runs.items())
    parts.append("\n".join(told) + "\n")
    return "\n".join(parts)


def _cell(value: Any) -> str:
    if value is None:
        return "\u2013"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, int):
        return f"{value:,}"
    return f"`{value}`" if isinstance(value, str) and value.startswith("\\") else str(value)
