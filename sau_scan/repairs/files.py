"""Repairs of files: pickles become safetensors, what no component uses stays behind, tokenizers do what their
family's do.

What a copy leaves out and converts is the writer's own rule; here it is told, and tokenizers are made anew.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import isdir, islink  # unlike Path's, they raise nothing
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from sau_scan.checkpoint.rewriting import copied, is_pickle, written_as
from sau_scan.checkpoint.shipped import shipped_files
from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.checkpoint.tokenizer import TABLES, load_tokenizer
from sau_scan.findings import Component, Finding, Location, RepairStep, Severity

# Of the rules about files, those on what a tokenizer does to prompts.
TOKENIZER_RULES = "file/tokenizer-"
# Share of entries in which a table is still CLIP's, if not all of it.
STILL_CLIP = 0.99
MOST_NAMED = 6


@dataclass(frozen=True)
class FileRepairs:
    """``replaced``: path -> new content; ``dropped``: paths with findings that are not copied; ``converted``: pickles,
    by path. ``unused``: files that are not copied since no component uses them, which is no reason for a repair."""

    replaced: Mapping[str, bytes] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.replaced or self.dropped or self.converted)

    @property
    def changed(self) -> frozenset[str]:
        """Files of the input that are not copied as they are."""
        return frozenset({*self.replaced, *self.dropped, *self.converted, *self.unused})

    def steps(self) -> tuple[RepairStep, ...]:
        """As a report tells them."""
        told = {
            "pickle-to-safetensors": self.converted,
            "reset-tokenizer": tuple(self.replaced),
            "leave-out": tuple(sorted({*self.dropped, *self.unused})),
        }
        return tuple(
            RepairStep(
                method=method,
                component=Component.TOKENIZER if method == "reset-tokenizer" else Component.FILE,
                tensors=tuple(Location(path=path) for path in paths),
                note=_named(method, paths),
            )
            for method, paths in told.items()
            if paths
        )


def _named(method: str, paths: Sequence[str]) -> str:
    """The first of the files, under their new names where they have such."""
    names = [written_as(path) for path in paths] if method == "pickle-to-safetensors" else list(paths)
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def plan_files(checkpoint: Checkpoint, findings: Sequence[Finding]) -> FileRepairs:
    """What a repair of the files would do: pickles that are used are converted, and the rest is done where a finding
    asks for it. Raises DamagedFile."""
    own_files = (f for f in findings if f.location is not None and f.location.base is None)
    grave = [f for f in own_files if f.severity.rank >= Severity.LOW.rank]
    paths = {f.location.path for f in grave if f.location is not None and f.id.startswith("file/")}
    own = {record.path for record in copied(checkpoint)}
    replaced: dict[str, bytes] = {}
    removed: list[str] = []
    if checkpoint.form is Form.FOLDER:
        for component in _tokenizers(grave):
            made = family_tokenizer(checkpoint, component)
            replaced |= {f"{component}/{name}": data for name, data in made.items()}
            removed += [f"{component}/{name}" for name in TABLES if name not in made and f"{component}/{name}" in own]
    return FileRepairs(
        replaced,
        (*sorted(path for path in paths - own if not _is_folder(checkpoint.folder / path)), *removed),
        tuple(sorted(path for path in own if is_pickle(path))),
        tuple(record.path for record in checkpoint.records if record.path not in own),
    )


def _is_folder(place: Path) -> bool:
    """Findings can be about folders; those are there for the files in them, some of which may be copied."""
    return isdir(place) and not islink(place)


def _tokenizers(findings: Sequence[Finding]) -> Iterator[str]:
    """Components whose tokenizers rewrite prompts or contradict themselves."""
    found = [f.location.path.split("/")[0] for f in findings if f.location and f.id.startswith(TOKENIZER_RULES)]
    yield from dict.fromkeys(name for name in found if name.startswith("tokenizer"))


def family_tokenizer(checkpoint: Checkpoint, component: str) -> dict[str, bytes]:
    """The files of a CLIP tokenizer that only does what CLIP's does, by name in the component's folder.

    The table is CLIP's own where this one is nearly that; else it is kept, without words added to it.
    """
    tokenizer = load_tokenizer(checkpoint, component)
    ours: Any = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    shipped = shipped_files("sdxl")
    clip = json.loads(shipped["tokenizer/vocab.json"])
    vocabulary: dict[str, int] = ours["vocab"]
    merges: Any = [tuple(pair) for pair in ours["merges"]]
    if sum(vocabulary.get(token) == number for token, number in clip.items()) >= STILL_CLIP * len(clip):
        lines = shipped["tokenizer/merges.txt"].decode().split("\n")[1:]
        vocabulary, merges = clip, [tuple(line.split(" ")) for line in lines if line]
    made = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        model_max_length=tokenizer.model_max_length,
        pad_token=tokenizer.pad_token if tokenizer.pad_token in vocabulary else tokenizer.eos_token,
    )
    with tempfile.TemporaryDirectory(prefix="sau-scan-") as folder:
        made.save_pretrained(folder)
        return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
