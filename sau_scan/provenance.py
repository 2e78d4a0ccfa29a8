"""What is kept of a repair: the record beside what was written, and the closing scan under the name that lasts.

A draft that is a file is called as the input was, since that may be the word that it stands for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sau_scan import __version__
from sau_scan.checkpoint.adapters.applying import named_by_file
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.rewriting import copied, written_as
from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.findings import FileRecord, Finding, RepairSummary, ScanResult, Trigger, Verification, escape
from sau_scan.options import FixOptions

PROVENANCE = "sau-scan-provenance.json"
FAILED = "SAU-SCAN-VERIFICATION-FAILED.json"
NAMES = (PROVENANCE, FAILED)


def record(
    checkpoint: Checkpoint,
    draft: Path,
    written: Sequence[FileRecord],
    options: FixOptions,
    triggers: Sequence[Trigger],
    repair: RepairSummary,
    verification: Verification,
) -> bytes:
    """What a later reader needs to know of ``written``, the files in ``draft``; the same for the same repair."""
    whole = checkpoint.form is Form.FOLDER
    after = {r.path: r.sha256 for r in written}
    names = {r.path: written_as(r.path) if whole else draft.name for r in copied(checkpoint)}
    data = {
        "tool": f"sau-scan {__version__}",
        "verified": verification.passed,
        "method": options.method,
        "seed": options.scan.seed,
        "triggers": [trigger.model_dump(mode="json") for trigger in triggers],
        "repair": repair.model_dump(mode="json", exclude={"cost"}),
        "files": {r.path: {"before": r.sha256, "after": after.get(names.get(r.path, ""))} for r in checkpoint.records},
        "base": {r.path: r.sha256 for r in checkpoint.base.records} if checkpoint.base is not None else None,
        "verification": verification.model_dump(mode="json"),
    }
    return (json.dumps(data, indent=2) + "\n").encode()


def name_matters(checkpoint: Checkpoint, draft: Path, out: Path) -> str:
    """What to mind where the embedding in ``draft`` says no word, and is to be called otherwise than the input."""
    if checkpoint.form is not Form.EMBEDDING or out.stem == draft.stem:
        return ""
    if not named_by_file(open_checkpoint(draft, base=checkpoint.base)):
        return ""
    word = escape(draft.stem)
    return (
        f'the file says no word, so that its name is the word, and it was verified as "{word}": call it '
        f"{word}.safetensors, or load it under that word"
    )


def settled(scan: ScanResult | None, out: Path | None) -> ScanResult | None:
    """A scan of the draft, told as one of the place that the draft goes to."""
    if scan is None or out is None:
        return scan
    draft = Path(scan.model.path)
    whole = scan.model.form == Form.FOLDER.value
    names = {} if whole else {draft.name: out.name}
    # Commands name a file, and with another ending what to make of it.
    stem = str(out.with_suffix(""))
    moved = {str(draft): str(out)} if whole else {str(draft.with_suffix("")): stem, str(draft.parent): stem}
    files = tuple(f.model_copy(update={"path": names.get(f.path, f.path)}) for f in scan.model.files)
    model = scan.model.model_copy(update={"path": str(out), "files": files})
    findings = tuple(_settled(finding, moved, names) for finding in scan.findings)
    skipped = tuple(
        s.model_copy(update={"what": names.get(s.what, s.what), "reason": _told(s.reason, moved)})
        for s in scan.coverage.skipped
    )
    coverage = scan.coverage.model_copy(update={"skipped": skipped})
    return scan.model_copy(update={"model": model, "findings": findings, "coverage": coverage})


def _settled(finding: Finding, moved: dict[str, str], names: dict[str, str]) -> Finding:
    place = finding.location
    if place is not None and place.base is None:
        place = place.model_copy(update={"path": names.get(place.path, place.path)})
    return finding.model_copy(update={"next_step": _told(finding.next_step, moved), "location": place})


def _told(text: str, moved: dict[str, str]) -> str:
    for old, new in moved.items():
        text = text.replace(old, new)
    return text
