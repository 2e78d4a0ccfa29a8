"""Rules about files: what each finding of kind ``file`` means, how bad it is, and what to do.

A rule is one YAML file, ``rules/files/<id>.yaml``; its code is in :mod:`sau_scan.static`. These rules come with the
program and belong to its code, so no option replaces them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from sau_scan.errors import ConfigError
from sau_scan.findings import Severity, escape
from sau_scan.rules import FILE_RULES, read_yaml, shipped_rules

_STRICT = ConfigDict(frozen=True, strict=True, extra="forbid")


class Example(BaseModel):
    """A file or folder that a test builds: ``maker`` names the function, ``what`` says what it makes."""

    model_config = _STRICT

    maker: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    what: str = Field(min_length=1)


class FileRule(BaseModel):
    """One thing that can be wrong with a file. The id of its findings is ``file/<id>``.

    ``blocks``: when found at this severity, nothing of the checkpoint is loaded. ``command`` is what to paste next;
    ``{path}`` in it becomes the file, ``{folder}`` the checkpoint, ``{new}`` a place for its repaired copy.
    ``positive`` and ``benign`` are what it must, and must not, be found in.
    """

    model_config = _STRICT

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    title: str = Field(min_length=1)
    severity: Severity
    blocks: bool
    summary: str = Field(min_length=1)
    why: str = Field(min_length=1)
    action: str = Field(min_length=1)
    command: str = Field(min_length=1)
    references: tuple[str, ...] = ()
    positive: tuple[Example, ...] = Field(min_length=1)
    benign: tuple[Example, ...] = Field(min_length=1)


@cache
def load_file_rules(path: Path | None = None) -> tuple[FileRule, ...]:
    """All rules about files, sorted by id. Raises ConfigError for one that is not valid or not where its id says."""
    folder = (path or shipped_rules()) / FILE_RULES
    rules = []
    for file in sorted(folder.glob("*.yaml")):
        rule = read_yaml(file, FileRule)
        if rule.id != file.stem:
            raise ConfigError(
                f"{escape(str(file))}: field id says {rule.id}.yaml, which is not where the file is.",
                hint="Rename the file, or correct the field.",
            )
        rules.append(rule)
    return tuple(rules)


def file_rule(name: str) -> FileRule:
    """The shipped rule whose findings have the id ``file/<name>``. Raises ConfigError."""
    rule = _by_id().get(name)
    if rule is None:
        raise ConfigError(
            f"there is no rule for files called {name!a} under {escape(str(shipped_rules()))}.",
            hint="The installation is incomplete; install sau-scan again.",
        )
    return rule


@cache
def _by_id() -> dict[str, FileRule]:
    return {rule.id: rule for rule in load_file_rules()}
