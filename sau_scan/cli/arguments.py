"""The arguments and options of all commands, each with its help, once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sau_scan.cli import parsing
from sau_scan.findings import Severity, Slot
from sau_scan.options import Budget


class FormatName(StrEnum):
    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


_GATE = "Gate"
_SCAN = "Scan"
_REPORT = "Reports"
_REPAIR = "Repair"

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        parser=parsing.typed_model,
        help="A diffusers folder, a single file, or a hub id (org/name); or a LoRA, an embedding or bare weights, "
        "with --base.",
    ),
]
ReportFile = Annotated[Path, typer.Argument(metavar="RESULT.json", help="A report written with --output FILE.json.")]

Output = Annotated[
    list[Path] | None,
    typer.Option(
        "--output", "-o", metavar="FILE", rich_help_panel=_REPORT,
        help="Also write a report to FILE; .json, .sarif or .txt says in which format. Repeatable.",
    ),
]  # fmt: skip
Format = Annotated[
    FormatName, typer.Option("--format", "-f", rich_help_panel=_REPORT, help="Format of the report on stdout.")
]
MinSeverity = Annotated[
    Severity,
    typer.Option(rich_help_panel=_REPORT, help="Show no findings below this in text; the gate is --fail-on."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=_REPORT, help="Nothing on stderr but errors.")]
Debug = Annotated[bool, typer.Option("--debug", rich_help_panel=_REPORT, help="Show the traceback of an error.")]

FailOn = Annotated[Severity, typer.Option(rich_help_panel=_GATE, help="Exit 1 for findings at or above this.")]
MinCoverage = Annotated[
    str,
    typer.Option(
        metavar="P", rich_help_panel=_GATE, help="Exit 3 when less than P percent of all candidates were probed."
    ),
]
ExitZero = Annotated[
    bool, typer.Option("--exit-zero", rich_help_panel=_GATE, help="Findings do not change the exit code.")
]
Declared = Annotated[
    list[str] | None,
    typer.Option(
        "--declared-trigger", metavar="TEXT", rich_help_panel=_GATE,
        help="A trigger that the owner put there on purpose; reported as info. Repeatable.",
    ),
]  # fmt: skip

BudgetOption = Annotated[
    Budget,
    typer.Option(
        "--budget", rich_help_panel=_SCAN, help="How thorough the scan is; --dry-run says what each budget takes."
    ),
]
BudgetOfFix = Annotated[
    Budget | None,
    typer.Option(
        "--budget", rich_help_panel=_SCAN,
        help="How thorough a scan is; default: as in the report, or standard.",
    ),
]  # fmt: skip
MaxTime = Annotated[
    str | None,
    typer.Option(metavar="T", rich_help_panel=_SCAN, help="Plan no more than fits into this time: 90s, 4m, 1h30m."),
]
MaxTimeOfFix = Annotated[
    str | None,
    typer.Option(
        metavar="T", rich_help_panel=_SCAN,
        help="Bounds the scan before only: 90s, 4m, 1h30m. A repair and the scan of its result take what they take.",
    ),
]  # fmt: skip
Seed = Annotated[
    int,
    typer.Option(
        min=0, max=2**31 - 1, rich_help_panel=_SCAN, help="Seed of all random numbers: the same seed, the same report."
    ),
]
Device = Annotated[
    str, typer.Option(metavar="D", rich_help_panel=_SCAN, help="Where to compute: cpu, cuda, cuda:1, mps.")
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="T",
        rich_help_panel=_SCAN,
        help="Numbers to compute with: float32 (auto), float16, bfloat16, or the fastest.",
    ),
]
Rules = Annotated[
    Path | None, typer.Option(metavar="DIR", rich_help_panel=_SCAN, help="Rules to use instead of those shipped.")
]
Base = Annotated[
    Path | None,
    typer.Option(
        metavar="CHECKPOINT", parser=parsing.typed_model, rich_help_panel=_SCAN,
        help="Folder, single file or hub id that MODEL is used with, where MODEL is a part.",
    ),
]  # fmt: skip
Revision = Annotated[
    str | None,
    typer.Option(
        metavar="REV", rich_help_panel=_SCAN, help="Branch, tag or commit of MODEL on the hub; of --base: org/name@REV."
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", rich_help_panel=_SCAN, help="Weights to take where a folder has several, such as fp16."
    ),
]

DryScan = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        rich_help_panel=_SCAN,
        help="Scan nothing; only say what each budget would take, in time and memory.",
    ),
]
Fix = Annotated[bool, typer.Option("--fix", rich_help_panel=_REPAIR, help="Repair what is found; needs --out.")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="OUT",
        rich_help_panel=_REPAIR,
        help="Where the repaired copy goes: a new folder; of a single file, a new .safetensors file.",
    ),
]
From = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="REPORT.json", rich_help_panel=_REPAIR, help="Repair what this report of detect found."
    ),
]
TriggerText = Annotated[
    list[str] | None,
    typer.Option(
        "--trigger", metavar="TEXT", rich_help_panel=_REPAIR,
        help=r"Repair this trigger; escapes such as \u200b are understood. Repeatable.",
    ),
]  # fmt: skip
SlotOption = Annotated[
    list[Slot] | None,
    typer.Option(
        "--slot", rich_help_panel=_REPAIR, help="Where in a prompt the trigger goes: one for all, or one for each."
    ),
]
Replaces = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LETTER", rich_help_panel=_REPAIR, help="The letter that the trigger stands for (--slot replace)."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", rich_help_panel=_REPAIR,
        help="Work out the first attempt and print it, tensor by tensor; verify and write nothing.",
    ),
]  # fmt: skip
KeepFailed = Annotated[
    bool,
    typer.Option(
        "--keep-failed", rich_help_panel=_REPAIR, help="Keep a repair that did not pass, in OUT, marked as such."
    ),
]
Method = Annotated[
    str | None,
    typer.Option(metavar="NAME", rich_help_panel=_REPAIR, help="Way of repair: sau (default), closed-form or restore."),
]
