"""From exceptions to one paragraph and an exit code: what, why, what to do; never a traceback unless asked for."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import typer

from sau_scan.cli.exits import Code
from sau_scan.errors import SauScanError, UsageError
from sau_scan.reports.words import safe

_INDENT = " " * 7


@contextmanager
def guarded(*, debug: bool = False) -> Iterator[None]:
    """Runs the body of a command; leaves through ``typer.Exit`` whatever happens in it."""
    with _stoppable() as caught:
        try:
            yield
        except typer.Exit:
            raise
        except (Exception, KeyboardInterrupt) as error:
            # A signal in the middle of a library may come out as anything.
            if caught or isinstance(error, KeyboardInterrupt):
                raise _stopped(caught) from None
            raise _failed(error, debug) from None


def _failed(error: Exception, debug: bool) -> typer.Exit:
    if isinstance(error, SauScanError):
        _report(error, debug)
        return typer.Exit(error.exit_code)
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has had enough; outputs.show() deals with the usual case.
        silence_stdout()
        return typer.Exit(Code.INTERNAL)
    if isinstance(error, MemoryError):
        _report(_OutOfMemoryError(), debug, error)
        return typer.Exit(Code.INCOMPLETE)
    # The last line of defence: anything that gets here is a bug.
    _report(_InternalError(error), debug, error)
    return typer.Exit(Code.INTERNAL)


@contextmanager
def guarded_early() -> Iterator[None]:
    """Around the whole process: an interrupt before or after a command's own guard, which knows how to say it."""
    try:
        yield
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(Code.INTERRUPTED)
    except OSError as error:  # help and version are printed outside of any command
        _say(f"error: standard output cannot be written to: {safe(error.strerror or str(error))}")
        _say(f"exit {Code.INCOMPLETE}")
        silence_stdout()
        sys.exit(Code.INCOMPLETE)


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Signals that ask to stop become KeyboardInterrupt, so that drafts are removed; yields those that came.

    SIGTERM is what a CI runner sends when a job is cancelled, often behind a SIGINT: the second must not stop the
    clearing up after the first.
    """
    caught: list[int] = []
    before: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    # Elsewhere than in the main thread, whoever called us handles signals; what is ignored stays so.
    if threading.current_thread() is threading.main_thread():
        wanted = (signal.SIGINT, signal.SIGTERM)
        before.update({n: signal.getsignal(n) for n in wanted if signal.getsignal(n) is not signal.SIG_IGN})
    for number in before:
        signal.signal(number, stop)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped(caught: list[int]) -> typer.Exit:
    how, code = ("terminated", Code.TERMINATED) if signal.SIGTERM in caught else ("interrupted", Code.INTERRUPTED)
    _say(f"\n{how}: nothing was left half-written, and the input is untouched.")
    _say(f"exit {code}")
    return typer.Exit(code)


class _OutOfMemoryError(SauScanError):
    def __init__(self) -> None:
        super().__init__("the memory does not suffice for this model.", hint="Use a machine with more memory.")


class _InternalError(SauScanError):
    def __init__(self, error: Exception) -> None:
        words = " ".join(str(error).split())[:300]
        super().__init__(
            f"internal error: {type(error).__name__}: {words}. This is a fault of sau-scan, and nothing is known about "
            "the model.",
            hint="Run it again with --debug and report what it prints.",
        )


def _report(error: SauScanError, debug: bool, cause: BaseException | None = None) -> None:
    if debug:
        _say("\n".join(map(safe, "".join(traceback.format_exception(cause or error)).splitlines())))
    what = textwrap.wrap(
        f"error: {safe(str(error))}", 80, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
    )
    do = textwrap.wrap(
        safe(error.hint), 80, initial_indent=_INDENT, subsequent_indent=_INDENT, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    _say("\n".join([*what, *do]))
    if isinstance(error, UsageError) and not debug:
        _say(f"{_INDENT}sau-scan --help lists commands and options.")
    _say(f"exit {error.exit_code}")


def _say(text: str) -> None:
    """Writes to stderr; a closed stderr is no reason to fail differently."""
    with suppress(OSError):
        print(text, file=sys.stderr)  # noqa: T201


def silence_stdout() -> None:
    """After a broken pipe: the interpreter's flush at exit must not complain a second time."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
