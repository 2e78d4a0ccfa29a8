"""``make bench-static``: sau-scan beside picklescan and modelscan on the corpus of tests/corpus, in one run.

    python -m benchmarks.static_side_by_side --modelscan .venv/modelscan/bin/python

Exits with 1 if another scanner flags a hostile sample that we miss, if we miss one at all, or if we raise a false
alarm.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scanners import MODELSCAN, PICKLESCAN, SAU_SCAN, Scanner
from tests.corpus import BENIGN, HOSTILE, SAMPLES, Sample, make
from tests.corpus.verdicts import ALARM

OURS = "sau-scan"
HEAD = ("scanner", "hostile flagged", "gave up on", "benign flagged", "gave up on", "seconds")


@dataclass(frozen=True)
class Said:
    """What one scanner said of one sample."""

    flagged: bool
    error: str


def ours(sample: Sample, answer: dict[str, object]) -> Said:
    """Flagged: as severe as the sample is; of a benign one, severe enough to alarm anybody."""
    rank = int(str(answer["rank"]))
    least = ALARM if sample.least is None else sample.least
    unreadable = sample.damaged and bool(answer["skipped"])
    return Said(rank >= least.rank or unreadable, str(answer["error"]))


def theirs(answer: dict[str, object]) -> Said:
    return Said(bool(answer["flagged"]), str(answer["error"]))


def compare(scanners: list[Scanner], folder: Path) -> dict[str, dict[str, Said]]:
    """By scanner and sample; each sample is made once and seen by all."""
    said: dict[str, dict[str, Said]] = {scanner.name: {} for scanner in scanners}
    for sample in SAMPLES:
        path = make(sample, folder / "corpus", folder / "canary")
        for scanner in scanners:
            answer = scanner.scan(path)
            said[scanner.name][sample.id] = ours(sample, answer) if scanner.name == OURS else theirs(answer)
    for scanner in scanners:
        scanner.close()
    return said


def table(scanners: list[Scanner], said: dict[str, dict[str, Said]]) -> list[tuple[str, ...]]:
    rows = [HEAD]
    for scanner in scanners:
        counts = []
        for half in (HOSTILE, BENIGN):
            answers = [said[scanner.name][sample.id] for sample in half]
            counts.append(f"{sum(one.flagged for one in answers)} of {len(half)}")
            counts.append(str(sum(bool(one.error) and not one.flagged for one in answers)))
        rows.append((scanner.name, *counts, f"{scanner.seconds:.1f}"))
    return rows


def show(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def tell(title: str, samples: list[str]) -> bool:
    """Prints a list that must be empty; whether it is."""
    print(f"\n{title}: {len(samples) or 'none'}")
    for line in samples:
        print(f"  {line}")
    return not samples


def judge(scanners: list[Scanner], said: dict[str, dict[str, Said]]) -> bool:
    """Whether we find all that others find, all that there is, and nothing where there is nothing."""
    mine = said[OURS]
    others = [scanner.name for scanner in scanners if scanner.name != OURS]
    theirs_alone = [
        f"{sample.id} ({', '.join(name for name in others if said[name][sample.id].flagged)}): {sample.what}"
        for sample in HOSTILE
        if not mine[sample.id].flagged and any(said[name][sample.id].flagged for name in others)
    ]
    missed = [f"{sample.id}: {sample.what}" for sample in HOSTILE if not mine[sample.id].flagged]
    alarms = [f"{sample.id}: {sample.what}" for sample in BENIGN if mine[sample.id].flagged]
    good = [
        tell("hostile, flagged by another scanner and not by us", theirs_alone),
        tell("hostile, not found by us", missed),
        tell("benign, flagged by us", alarms),
    ]
    return all(good)


def version(python: Path, package: str) -> str:
    read = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", read], text=True, capture_output=True, check=True).stdout.strip()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modelscan", type=Path, help="a Python that has modelscan; this one, if it has it")
    asked = parser.parse_args(arguments)
    here = Path(sys.executable)
    scanners = [Scanner(OURS, here, SAU_SCAN), Scanner("picklescan", here, PICKLESCAN)]
    if asked.modelscan or importlib.util.find_spec("modelscan"):
        scanners.append(Scanner("modelscan", asked.modelscan or here, MODELSCAN))
    for scanner in scanners:
        print(f"{scanner.name} {version(scanner.python, scanner.name)}")
    print(f"{len(HOSTILE)} hostile and {len(BENIGN)} benign samples, made in code\n")
    with tempfile.TemporaryDirectory(prefix="sau-corpus-") as folder:
        said = compare(scanners, Path(folder))
        executed = (Path(folder) / "canary").exists()
    show(table(scanners, said))
    print(f"\nexecuted by a scanner: {'YES' if executed else 'nothing'}")
    return 0 if judge(scanners, said) and not executed else 1


if __name__ == "__main__":
    sys.exit(main())
