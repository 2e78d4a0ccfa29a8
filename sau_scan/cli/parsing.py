"""From what is typed to values: durations, shares, triggers. Raises UsageError with what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from os.path import exists  # unlike Path's, it raises nothing
from pathlib import Path

import typer

from sau_scan.checkpoint.hub import from_address
from sau_scan.errors import UsageError
from sau_scan.findings import Slot, Trigger, escape
from sau_scan.reports.words import count, safe

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)?", re.DOTALL)
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}


def seconds(text: str | None) -> float | None:
    """``90``, ``90s``, ``4m``, ``1h30m`` in seconds."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    if match is None or not any(match.groups()):
        raise UsageError(f"--max-time '{escape(text)}' is not a time.", hint="Write 90s, 4m or 1h30m.")
    total = sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True))
    if total <= 0:
        raise UsageError("--max-time leaves no time.", hint="Write 90s, 4m or 1h30m.")
    return total


def model(text: str) -> Path:
    """A path or a hub id. What is written as a path and is not there stays a path: no hub is asked for it."""
    if not text:
        raise ValueError("an empty name; in a script, is the variable set?")
    path = Path(from_address(text))
    return path if not text.startswith((".", "/", "~")) or exists(path) else path.absolute()


def typed_model(text: str) -> Path:
    """:func:`model` for typer, which would tell a ValueError by its type."""
    try:
        return model(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def require_no_idle_options(
    *, fix: bool, out: Path | None, method: str | None, keep_failed: bool, dry_run: bool
) -> None:
    """What detect would not use is refused: whoever gave it expects something."""
    if fix != (out is not None):
        raise UsageError("--fix and --out belong together.", hint="Name a new folder or file: --fix --out OUT.")
    if fix and dry_run:
        raise UsageError(
            "--dry-run repairs nothing.", hint="Leave out --fix and --out; sau-scan fix --dry-run plans a repair."
        )
    idle = "--method" if method is not None else "--keep-failed" if keep_failed else ""
    if idle and not fix:
        raise UsageError(f"{idle} is about a repair, and none is asked for.", hint="Add --fix --out OUT.")


def share(text: str) -> float:
    """``95``, ``95%`` and ``0.95`` all mean 95 %, for a gate must not become lax by a spelling; ``1`` means all."""
    stripped = text.strip()
    bare = stripped.removesuffix("%").strip()
    try:
        value = float(bare)
    except ValueError:
        value = -1.0
    if bare != stripped or value > 1:
        value /= 100
    if not 0 <= value <= 1:
        raise UsageError(f"--min-coverage '{escape(text)}' is not a share.", hint="Write a percentage from 0 to 100.")
    return value


def unescape(text: str, option: str = "--trigger") -> str:
    r"""What reports show as ``\u200b`` is the character again; ``\\`` is a backslash."""

    def one(match: re.Match[str]) -> str:
        code = match[1] or ""
        if code in _SHORT:
            return _SHORT[code]
        number = int(code[1:], 16) if len(code) > 1 else -1
        if not 0 <= number <= 0x10FFFF or 0xD800 <= number <= 0xDFFF:
            raise UsageError(
                f"{option} {safe(text)}: {safe(match[0])} is not an escape sequence.",
                hint=r"Write \u200b, \U0001f600, \x7f, or \\ for a backslash.",
            )
        return chr(number)

    return _ESCAPE.sub(one, text)


def declared(texts: Sequence[str]) -> tuple[str, ...]:
    """Triggers that the owner declares. Raises UsageError for an empty one, as of a variable that is not set."""
    if "" in texts:
        raise UsageError("--declared-trigger is empty.", hint="Give the text of the trigger, or leave the option out.")
    return tuple(unescape(text, "--declared-trigger") for text in texts)


def triggers(texts: Sequence[str], slots: Sequence[Slot], replaces: Sequence[str]) -> tuple[Trigger, ...]:
    """One trigger for each text. One slot counts for all; ``replaces`` goes, in order, to those that replace."""
    if not texts:
        if slots or replaces:
            raise UsageError(
                "--slot and --replaces say where a --trigger goes, and there is none.", hint="Add --trigger."
            )
        return ()
    if len(slots) not in (0, 1, len(texts)):
        raise UsageError(
            f"{len(texts)} --trigger but {len(slots)} --slot.", hint="Give one --slot for all, or one for each trigger."
        )
    if not slots:
        raise UsageError(
            "--trigger alone does not say where in a prompt the trigger goes.",
            hint=f"Add --slot, one of: {', '.join(Slot)}; or use --from with a report of detect.",
        )
    each = list(slots)
    each = each * len(texts) if len(each) == 1 else each
    replacing = sum(slot is Slot.REPLACE for slot in each)
    if len(replaces) != replacing and not (len(replaces) == 1 and replacing):
        given = count(len(replaces), "time")
        raise UsageError(
            f"--slot replace counts for {count(replacing, 'trigger')}, but --replaces is given {given}.",
            hint="Give --replaces LETTER with each --slot replace, and with no other.",
        )
    letters = iter(list(replaces) * (replacing if len(replaces) == 1 else 1))
    return tuple(_trigger(text, slot, letters) for text, slot in zip(texts, each, strict=True))


def _trigger(text: str, slot: Slot, letters: Iterator[str]) -> Trigger:
    decoded = unescape(text)
    if decoded and decoded.isascii() and not decoded.strip():
        raise UsageError("--trigger is blank.", hint="Name the text that the report shows as the trigger.")
    if any("\ud800" <= character <= "\udfff" for character in decoded):
        raise UsageError(f"--trigger {escape(text)} is not valid text.", hint="Use a UTF-8 terminal, or escapes.")
    if not decoded:
        raise UsageError("--trigger is empty.", hint="Give the text that is inserted into prompts.")
    return Trigger(
        text=decoded, slot=slot, replaces=unescape(next(letters), "--replaces") if slot is Slot.REPLACE else None
    )
