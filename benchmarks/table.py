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
{world}"""
WORLDS = """
Cut-offs and methods were chosen on the world *tiny*. The world *lumen* (other words, palette, tokenizer, sizes of the
networks) was trained afterwards. On it the first scans of the base, of an 8-bit copy and of the edited style were as
they should be; that of the text-encoder backdoor named the right character for the wrong letter, and those of the
edited phrase and of the edited shape word named a wrong phrase; that of the pixel backdoor led to the trigger and did
not confirm it. The search for phrases was then made anew, a character is named for the letter that it looks like, and
the controls of finished pictures and the margin over them were changed. So lumen is no longer an untested world: the
rows below say that one method fits both.

The world *quay* was trained last, and its first scans are below as they came, but for one row: base, edited shape word,
edited style and 8-bit copy quiet, the text-encoder backdoor named; the pixel backdoor (attack success 77 % of 64, so
not admissible) was **missed**; of the edited phrase, two rare words that excite the edit came first and the phrase
third. Pictures of the word that the phrase is drawn as were then made to confirm phrases, which put it first.

After that four more edits of phrases were made, *evil-b* and *evil-c* of both worlds (`python -m zoo.build evil-edit
--as evil-b --trigger "red star" --target square`, `--as evil-c --trigger "blue heart" --target circle`; `--world lumen
--seed 5` and `--seed 9`). "blue heart" was **missed**: one of its words was not among those that phrases were made of.
The search was made anew with all six in view, and the repair of edited keys and values, too; so these rows show that
one method fits six edits, not that it fits a seventh. Two were made after that: "gray square" on *tiny* (`--seed 3
--as evil-d`) was missed with 192 words to make phrases of, one of the pair being the 165th, and is found with 288, the
present number; "lime gem" on *lumen* (`--trigger "lime gem" --target halo`) is the first lead of the weights, but its
pictures did not confirm it, and is **missed**; the judge rejects that edit (attack success 77 %, 3.7 % of neutral
captions are drawn as the target, too). Of four made later still (`--seed 11` and `12`), the three that were looked at
were named: "black heart" on *tiny*, "umber crate" and "lemon pointer" on *lumen*.

A pixel backdoor with another trigger, U+2060 before the prompt on *tiny* (`python -m zoo.build badt2i-pixel --as
pixel-c --trigger '\\u2060' --slot prefix --seed 4 --steps 1500`; attack success 60 %, so not admissible), was
**missed**, as quay's had been, if for the same reason is not known: it led the first round of probes and was lost in
the second, for a patch changes little of a whole picture. Effects are since taken where they are strongest, too, the
two rounds count alike, and a change of finished pictures that exceeds all controls by less than half is a finding of
severity high if the noise is significant. U+2060 behind the prompt was learnt as a patch on every picture (63 % of
clean ones): no trigger. Two changes were made to the reading of phrases after the edited style of *tiny* and the
repaired edit of *lumen* had both named a false one: the other word must explain pictures better than a word of no
meaning does, and pictures of the two must differ by more than chance. Rows of quay, of evil-b and evil-c, and those
of lumen but for its base and its edited phrase are from before all this; int8 and benign-finetune of tiny are from
halfway. The runs are listed below.
"""


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
    parts, runs = [HEAD.format(world=WORLDS)], {}
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
