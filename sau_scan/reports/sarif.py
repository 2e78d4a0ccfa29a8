"""SARIF 2.1.0, for code-scanning dashboards: one rule for each kind of finding, one result for each finding."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from sarif_pydantic import Sarif

from sau_scan.findings import (
    Component,
    Confidence,
    FileRecord,
    Finding,
    FixResult,
    Kind,
    ModelInfo,
    ScanResult,
    Severity,
    Skipped,
    Verdict,
    shown,
)
from sau_scan.reports.json_report import ascii_json
from sau_scan.reports.words import command, describe, number, safe

SCHEMA_URI = "https://json.schemastore.org/sarif-2.1.0.json"
FINGERPRINT = "sauScanFinding/v1"
_LEVELS = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.INFO: "note",
}
# The scale that code-scanning dashboards know: over 9 critical, 7 to 8.9 high, 4 to 6.9 medium, below low.
_SECURITY_SEVERITY = {
    Severity.CRITICAL: "9.5",
    Severity.HIGH: "8.0",
    Severity.MEDIUM: "5.5",
    Severity.LOW: "2.0",
    Severity.INFO: "0.1",
}
_PRECISION = {Confidence.CERTAIN: "very-high", Confidence.CONFIRMED: "very-high", Confidence.CALIBRATED: "high"}
_KINDS = {
    Kind.TRIGGER: "A text that changes what the rest of the prompt depicts: a backdoor.",
    Kind.EDIT: "Weights that redirect what one word depicts: a concept edit, honest or not.",
    Kind.TOKEN_ROW: "A row of the token table that does not look like its neighbours.",
    Kind.FILE: "A file of the checkpoint that is unsafe, damaged or out of place.",
}
_HELP = {
    Kind.FILE: "Get the file from a source that publishes its sha256, and compare.",
    Kind.EDIT: "Ask the publisher whether the edit is meant; if it is, declare it with --declared-trigger.",
}
_FOLDERS = {
    Component.TOKENIZER: "tokenizer/",
    Component.TEXT_ENCODER: "text_encoder/",
    Component.CROSS_ATTENTION: "unet/",
    Component.UNET: "unet/",
    Component.VAE: "vae/",
}


def render_sarif(result: ScanResult | FixResult) -> str:
    """``result`` as a SARIF log of one run. Of a repair: its last scan, compared with the scan before."""
    log = Sarif.model_validate({"version": "2.1.0", "$schema": SCHEMA_URI, "runs": [_run(result)]})
    # By way of JSON twice: the library writes enums and dates, ASCII is ours.
    data = json.loads(log.model_dump_json(by_alias=True, exclude_none=True))
    return ascii_json(json.dumps(data, indent=2, ensure_ascii=True))


def _run(result: ScanResult | FixResult) -> dict[str, Any]:
    before, scan = _scans(result)
    known = {finding.fingerprint for finding in before.findings} if before is not None else None
    gone = _gone(before, scan)
    findings = [*(scan.findings if scan else ()), *gone]
    rules = list({finding.id: finding for finding in findings}.values())
    rule_index = {finding.id: index for index, finding in enumerate(rules)}
    model = scan.model if scan is not None else None
    run: dict[str, Any] = {
        "tool": {"driver": _driver(result.tool_version, rules)},
        "invocations": [_invocation(scan)],
        "results": [],
        "columnKind": "unicodeCodePoints",
        "properties": _run_properties(result, scan),
    }
    if model is not None:
        both = (model, model.base) if model.base is not None else (model,)
        run["artifacts"] = [_artifact(one.folder, file) for one in both for file in one.files]
    for finding in findings:
        item = _result(finding, rule_index[finding.id], model)
        if known is not None:
            item["baselineState"] = (
                "absent" if finding in gone else "unchanged" if finding.fingerprint in known else "new"
            )
        run["results"].append(item)
    return run


def _scans(result: ScanResult | FixResult) -> tuple[ScanResult | None, ScanResult | None]:
    """(the scan to compare with, the scan to report)."""
    if isinstance(result, ScanResult):
        return None, result
    return (result.before, result.after) if result.after is not None else (None, result.before)


def _gone(before: ScanResult | None, after: ScanResult | None) -> list[Finding]:
    if before is None or after is None:
        return []
    left = {finding.fingerprint for finding in after.findings}
    return [finding for finding in before.findings if finding.fingerprint not in left]


def _driver(version: str, rules: Iterable[Finding]) -> dict[str, Any]:
    return {
        "name": "sau-scan",
        "fullName": "sau-scan: hidden triggers in text-to-image checkpoints",
        "version": version,
        "semanticVersion": version,
        "rules": [_rule(finding) for finding in rules],
    }


def _rule(finding: Finding) -> dict[str, Any]:
    return {
        "id": safe(finding.id),
        "name": "".join(part.capitalize() for part in safe(finding.id).replace("/", "-").split("-")),
        "shortDescription": {"text": _sentence(finding.id)},
        "fullDescription": {"text": _KINDS[finding.kind]},
        "help": {"text": _HELP.get(finding.kind, "Repair it with: sau-scan fix MODEL --from report.json --out FIXED")},
        "defaultConfiguration": {"level": _LEVELS[finding.severity]},
        "properties": {
            "precision": _PRECISION[finding.confidence],
            "problem.severity": "error" if finding.severity.rank >= Severity.HIGH.rank else "warning",
            "security-severity": _SECURITY_SEVERITY[finding.severity],
            "tags": ["security", "machine-learning", finding.kind.value],
        },
    }


def _sentence(rule_id: str) -> str:
    family, _, name = safe(rule_id).partition("/")
    return f"{family.replace('_', ' ').replace('-', ' ').capitalize()}: {name.replace('_', ' ').replace('-', ' ')}"


def _result(finding: Finding, index: int, model: ModelInfo | None) -> dict[str, Any]:
    item: dict[str, Any] = {
        "ruleId": safe(finding.id),
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": _message(finding)},
        "locations": [_location(finding, model)],
        "partialFingerprints": {FINGERPRINT: finding.fingerprint},
        "properties": {
            "severity": finding.severity.value,
            "precision": _PRECISION[finding.confidence],
            "confidence": finding.confidence.value,
            "kind": finding.kind.value,
            "component": finding.component.value,
            "security-severity": _SECURITY_SEVERITY[finding.severity],
            "evidence": [e.model_dump(mode="json") for e in finding.evidence],
        },
    }
    if finding.trigger is not None:
        item["properties"]["trigger"] = finding.trigger.model_dump(mode="json")
    if finding.location is not None and finding.location.base is not None:
        item["properties"]["base"] = shown(finding.location.base)
    if finding.declared:
        item["suppressions"] = [
            {"kind": "external", "status": "accepted", "justification": "Declared with --declared-trigger."}
        ]
    return item


def _message(finding: Finding) -> str:
    parts = [safe(finding.title).rstrip(".") + "."]
    if finding.trigger is not None:
        parts.append(f"Trigger: {describe(finding.trigger)}.")
    if finding.behaviour:
        parts.append(safe(finding.behaviour).rstrip(".") + ".")
    for item in finding.evidence[:3]:
        null = f" (neutral words {number(item.null_median)})" if item.null_median is not None else ""
        parts.append(f"{safe(item.name)}: {number(item.value)}{null}.")
    if finding.next_step:
        parts.append(f"Next: {command(finding.next_step)}")
    return " ".join(parts)


def _location(finding: Finding, model: ModelInfo | None) -> dict[str, Any]:
    """In the model's folder; of what lies in its base's files, in that one's."""
    of_base = finding.location is not None and finding.location.base is not None
    owner = model.base if model is not None and of_base else model
    root = owner.folder if owner is not None else "."
    path = finding.location.path if finding.location else _weight_file(finding.component, owner)
    # Dashboards refuse a result without a line; a weight file has none, so the first stands for the whole.
    place: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": _uri(root, path)}, "region": {"startLine": 1}}
    }
    name = safe(finding.location.tensor) if finding.location and finding.location.tensor else finding.component.value
    place["logicalLocations"] = [{"fullyQualifiedName": name, "kind": "member"}]
    return place


def _weight_file(component: Component, model: ModelInfo | None) -> str:
    """The file that was named, or the largest of the component: its weights."""
    if model is not None and model.file is not None:
        return model.file.path
    folder, files = _FOLDERS.get(component), model.files if model is not None else ()
    inside = [file for file in files if folder is not None and file.path.startswith(folder)]
    return max(inside, key=lambda file: file.size).path if inside else "model_index.json"


def _uri(root: str, path: str) -> str:
    """A relative reference where the model was named by a relative path, else a file URI."""
    joined = PurePath(root, path).as_posix()
    text = quote(joined.encode("utf-8", "surrogateescape"), safe="/")
    return f"file://{text}" if joined.startswith("/") else text


def _artifact(root: str, file: FileRecord) -> dict[str, Any]:
    return {
        "location": {"uri": _uri(root, file.path)},
        "length": file.size,
        "hashes": {"sha-256": file.sha256},
        "roles": ["analysisTarget"],
    }


def _invocation(scan: ScanResult | None) -> dict[str, Any]:
    done = scan is not None and scan.verdict is not Verdict.INCONCLUSIVE
    skipped = scan.coverage.skipped if scan is not None else ()
    return {"executionSuccessful": done, "toolExecutionNotifications": [_notification(item) for item in skipped]}


def _notification(skipped: Skipped) -> dict[str, Any]:
    level = "error" if skipped.planned else "note"
    return {"level": level, "message": {"text": f"Not checked: {shown(skipped.what)}: {safe(skipped.reason)}"}}


def _run_properties(result: ScanResult | FixResult, scan: ScanResult | None) -> dict[str, Any]:
    properties: dict[str, Any] = {"command": result.command, "schemaVersion": result.schema_version}
    if scan is not None:
        properties["verdict"] = scan.verdict.value
        properties["model"] = _identity(scan.model)
        properties["coverage"] = scan.coverage.model_dump(mode="json")
    if isinstance(result, FixResult):
        properties["published"] = safe(result.published) if result.published is not None else None
    return properties


def _identity(model: ModelInfo) -> dict[str, Any]:
    """What was scanned, and with which base: of the hub, where it is and at which commit."""
    told = model.model_dump(mode="json", include={"path", "form", "family", "source", "revision", "commit"})
    base = {"base": _identity(model.base)} if model.base is not None else {}
    return {name: safe(text) for name, text in told.items() if text} | base
