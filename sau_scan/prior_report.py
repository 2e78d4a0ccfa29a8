"""A report of an earlier scan, in place of the one that a repair begins with."""

from __future__ import annotations

from collections.abc import Sequence

from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.errors import ConfigError
from sau_scan.findings import FileRecord, ScanResult, Verdict, escape


def check_report(report: ScanResult, checkpoint: Checkpoint) -> None:
    """The report must be whole, and of these very files: another model would be repaired of what it does not have.

    Raises ConfigError.
    """
    root = escape(str(checkpoint.root))
    option = f" --base {escape(str(checkpoint.base.root))}" if checkpoint.base is not None else ""
    hint = f"Scan this checkpoint: sau-scan detect {root}{option} --output report.json"
    if _weights_of(report.model.files, checkpoint) != _weights_of(checkpoint.records, checkpoint):
        raise ConfigError(f"The report is of other files than those in {root}.", hint=hint)
    base, told = checkpoint.base, report.model.base
    same = base is None or told is None or _weights_of(told.files, base) == _weights_of(base.records, base)
    if (base is None) != (told is None) or not same:
        raise ConfigError(f"The report is of {root} with another base, or with none.", hint=hint)
    if report.verdict in (Verdict.BACKDOORED, Verdict.SUSPICIOUS) and not report.findings:
        what = f"The report says {report.verdict.value}, and holds no finding: something is missing from it."
        raise ConfigError(what, hint=hint)


def _weights_of(files: Sequence[FileRecord], checkpoint: Checkpoint) -> dict[str, str]:
    """What decides whether two lists are of the same model: in folders, the files of components."""
    return {f.path: f.sha256 for f in files if "/" in f.path or checkpoint.form is not Form.FOLDER}
