"""What analysers say about a file, and how it becomes a finding: titles and severities are the rules'."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sau_scan.file_rules import file_rule
from sau_scan.findings import Component, Confidence, Evidence, Finding, Kind, Location, Severity
from sau_scan.shell import word

COMPONENTS = {
    "text_encoder": Component.TEXT_ENCODER,
    "text_encoder_2": Component.TEXT_ENCODER,
    "text_encoder_3": Component.TEXT_ENCODER,
    "tokenizer": Component.TOKENIZER,
    "tokenizer_2": Component.TOKENIZER,
    "tokenizer_3": Component.TOKENIZER,
    "transformer": Component.UNET,
    "unet": Component.UNET,
    "vae": Component.VAE,
}
DENIED = "denied"  # as below, but of whoever scans alone: others may load it
DAMAGED = "damaged"  # no rule's: what is only unreadable is skipped, and accuses nobody
CONVERTING = "sau-scan convert"
TOLD = 3  # sentences of one rule about one file; the others are counted
_PLACE = re.compile(r"\{(path|folder|new)\}")


@dataclass(frozen=True)
class Fact:
    """One observation. ``rule`` is the part of the finding's id after ``file/``; ``behaviour`` is one sentence.

    ``severity``: where it is milder than the rule's own; such a finding does not block. ``command``: where the rule's
    own would not do.
    """

    rule: str
    behaviour: str
    severity: Severity | None = None
    tensor: str | None = None
    evidence: tuple[Evidence, ...] = ()
    command: str = ""

    @property
    def weight(self) -> Severity:
        return self.severity or file_rule(self.rule).severity

    @property
    def blocks(self) -> bool:
        rule = file_rule(self.rule)
        return rule.blocks and self.weight.rank >= rule.severity.rank


def damaged(what: str) -> Fact:
    """The fact that a file is unreadable, and nothing worse: ``what`` follows its name in a sentence."""
    return Fact(DAMAGED, what)


class Unfinished(Exception):
    """An analyser gave up: the file is larger or more tangled than its limits allow. The message says which."""


def blocks(finding: Finding) -> bool:
    """Whether nothing of a checkpoint with this finding may be loaded."""
    if finding.kind is not Kind.FILE or not finding.id.startswith("file/"):
        return False
    rule = file_rule(finding.id.removeprefix("file/"))
    return rule.blocks and finding.severity.rank >= rule.severity.rank


def findings(root: Path, path: str, facts: Iterable[Fact]) -> Iterator[Finding]:
    """One finding for each rule that has something to say about ``path``, a file below ``root``."""
    by_rule: dict[str, list[Fact]] = {}
    facts = list(facts)
    refused = any(fact.blocks for fact in facts)
    for fact in facts:
        by_rule.setdefault(fact.rule, []).append(fact)
    for told in by_rule.values():
        merged = _merged(told)
        if refused and file_rule(merged.rule).command.startswith(CONVERTING):  # which would refuse it, too
            merged = replace(merged, command=f"sau-scan rules show {merged.rule}")
        yield _finding(root, path, merged)


def _merged(told: list[Fact]) -> Fact:
    """The strongest fact first; equal sentences once."""
    told = sorted(told, key=lambda fact: -fact.weight.rank)
    sentences = list(dict.fromkeys(fact.behaviour for fact in told))
    shown = sentences[:TOLD]
    if len(sentences) > TOLD:
        shown.append(f"There are {len(sentences) - TOLD:,} more of the kind.")
    return replace(told[0], behaviour=" ".join(shown))


def _command(template: str, root: Path, path: str) -> str:
    """``template`` with its places filled in one pass, for a hostile name may hold what looks like another place."""
    places = {"path": str(root / path), "folder": str(root), "new": f"{root}-fixed"}
    return _PLACE.sub(lambda match: _word(places[match[1]]), template)


def _word(place: str) -> str:
    """``place`` as a word of a shell's command that no program takes for an option; less runs what follows "+!"."""
    return word(f"./{place}" if place.startswith(("-", "+")) else place)


def _finding(root: Path, path: str, fact: Fact) -> Finding:
    rule = file_rule(fact.rule)
    tensor = fact.tensor
    return Finding(
        id=f"file/{rule.id}",
        kind=Kind.FILE,
        severity=fact.weight,
        confidence=Confidence.CERTAIN,
        component=COMPONENTS.get(path.split("/")[0], Component.FILE) if "/" in path else Component.FILE,
        title=rule.title,
        behaviour=fact.behaviour,
        location=Location(path=path, tensor=tensor if tensor is None or tensor.isprintable() else ascii(tensor)),
        evidence=fact.evidence,
        next_step=_command(fact.command or rule.command, root, path),
    )
