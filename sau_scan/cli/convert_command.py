"""``sau-scan convert``: pickled weights as safetensors, without running the pickle."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from sau_scan.cli import arguments as arg
from sau_scan.cli.guard import guarded
from sau_scan.cli.outputs import emit, print_rich
from sau_scan.cli.running import quiet_libraries
from sau_scan.console import StderrProgress
from sau_scan.findings import shown
from sau_scan.reports.json_report import ascii_json
from sau_scan.reports.layout import field
from sau_scan.reports.words import count, safe, size

if TYPE_CHECKING:
    from sau_scan.convert import Conversion, ConvertedFile

_MOST_SHOWN = 12


class Form(StrEnum):
    TEXT = "text"
    JSON = "json"


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="A.ckpt", readable=False, help="Pickled weights, as torch.save writes them.")
    ],
    target: Annotated[Path, typer.Argument(metavar="B.safetensors", help="New file; nothing is overwritten.")],
    format_: Annotated[
        Form, typer.Option("--format", "-f", help="What is told on stdout; json lists every tensor.")
    ] = Form.TEXT,
    quiet: arg.Quiet = False,
    debug: arg.Debug = False,
) -> None:
    """Write the tensors of a pickle as safetensors, without running the pickle.

    Nothing is loaded of a pickle that asks for more than tensors. Every tensor is read back and compared bit for bit.
    Exit codes: 0 converted, 2 wrong names, 3 not a pickle, refused, damaged or not writable.
    """
    with guarded(debug=debug), StderrProgress(quiet=quiet) as progress:
        quiet_libraries()
        from sau_scan.convert import convert as run

        done = run(source, target, progress)
        if format_ is Form.JSON:
            emit(ascii_json(done.model_dump_json(indent=2, ensure_ascii=True)))
        else:
            print_rich(Group(*_parts(done)))


def _parts(done: Conversion) -> list[RenderableType]:
    """What there is now, and how it differs from what was there."""
    types = Counter(tensor.dtype for tensor in done.tensors)
    kinds = ", ".join(f"{number:,} {dtype}" for dtype, number in types.most_common())
    names = f"; named as they are under '{done.nest}'" if done.nest else ""
    word = [field("word", f"'{safe(done.word)}', as before")] if done.word else []
    left = [*_listed("left out", done.dropped, "value")] or [field("left out", "nothing")]
    return [
        Text.assemble(("CONVERTED  ", "bold"), f"{shown(done.before.path)} -> {shown(done.after.path)}"),
        field("tensors", f"{count(len(done.tensors), 'tensor')} ({kinds}), each bit for bit that of the pickle{names}"),
        *word,
        *left,
        *_listed("separated", tuple(map(safe, done.shared)), "tensor", " that shared memory, each a copy of its own"),
        field("before", _file(done.before)),
        field("after", _file(done.after)),
    ]


def _file(file: ConvertedFile) -> str:
    return f"{size(file.size)} · sha256 {file.sha256}"


def _listed(label: str, names: tuple[str, ...], noun: str, what: str = "") -> list[RenderableType]:
    if not names:
        return []
    more = f" and {len(names) - _MOST_SHOWN:,} more; --format json lists all" if len(names) > _MOST_SHOWN else ""
    return [field(label, f"{count(len(names), noun)}{what}: {', '.join(names[:_MOST_SHOWN])}{more}")]
