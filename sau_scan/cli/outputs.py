"""Where reports go: stdout in one format, files by their ending, written atomically."""

from __future__ import annotations

import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import RenderableType

from sau_scan.checkpoint.placing import require_parent
from sau_scan.cli.guard import silence_stdout
from sau_scan.console import stdout_console
from sau_scan.errors import UsageError
from sau_scan.findings import FixResult, ScanResult, Severity, escape
from sau_scan.reports import FORMATS
from sau_scan.reports.files import DRAFT, failed, write_atomically
from sau_scan.reports.text import build

Renderer = Callable[[ScanResult | FixResult], str]


def renderer_for(file: Path) -> Renderer:
    """The format that the file's ending names. Raises UsageError."""
    for known in FORMATS:
        if file.suffix.lower() == known.ending:
            return known.render
    endings = ", ".join(known.ending for known in FORMATS)
    raise UsageError(
        f"--output {escape(str(file))}: the ending names no report format.", hint=f"Use a name ending in {endings}."
    )


def check_outputs(files: Sequence[Path], model: Path | None) -> None:
    """Fails before the long work rather than after it. Raises UsageError or WriteError."""
    for file in files:
        renderer_for(file)
        shown = escape(str(file))
        _check_kind(file, shown)
        try:
            require_parent(file)
            with tempfile.TemporaryFile(dir=file.absolute().parent, prefix=DRAFT):  # trying is surer than asking
                pass
        except OSError as error:
            raise failed(file, error) from error
        # A report inside the checkpoint would change what was scanned.
        if model is not None and _lies_in(file, model):
            raise UsageError(f"--output {shown} lies inside the model.", hint="Name a file outside its folder.")


def _check_kind(file: Path, shown: str) -> None:
    try:
        mode = file.stat().st_mode if file.exists() else stat.S_IFREG
    except OSError as error:  # too long a name, or a folder that may not be searched
        raise failed(file, error) from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"--output {shown} is a folder.", hint="Name a file in it.")
    if not stat.S_ISREG(mode):  # a file would take the place of a pipe that somebody reads
        raise UsageError(f"--output {shown} is not a regular file.", hint="Name a new file, or use --format.")


def _lies_in(file: Path, model: Path) -> bool:
    try:
        return file.resolve().is_relative_to(model.resolve())
    except (OSError, RuntimeError):  # a circle of links; opening it says so
        return False


def write_refusal(result: ScanResult | FixResult, files: Sequence[Path], format_name: str) -> None:
    """Of what could not be scanned, or not be repaired: files, and what a machine reads on stdout."""
    write_reports(result, files)
    if format_name != "text":
        show(result, format_name, Severity.INFO)


def write_reports(result: ScanResult | FixResult, files: Sequence[Path]) -> None:
    for file in files:
        write_atomically(file, renderer_for(file)(result).encode("utf-8"))


def show(result: ScanResult | FixResult, format_name: str, min_severity: Severity) -> None:
    """The report on stdout. A reader that closes the pipe early changes nothing else, the exit code included."""
    if format_name == "text":
        print_rich(build(result, min_severity=min_severity))
        return
    emit(next(known.render for known in FORMATS if known.name == format_name)(result))


def print_rich(content: RenderableType) -> None:
    console = stdout_console(sys.stdout)
    # By way of a string: rich itself leaves the process with exit code 1 on a broken pipe.
    with _writing(), console.capture() as capture:
        console.print(content, crop=False)
    text = capture.get()
    # Padding is for terminals; in a file it is noise.
    emit(text if console.is_terminal else "".join(row.rstrip() + "\n" for row in text.splitlines()))


def emit(text: str) -> None:
    with _writing():
        # A terminal that cannot show a box must not stop the report.
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")
        sys.stdout.write(text)
        sys.stdout.flush()


@contextmanager
def _writing() -> Iterator[None]:
    """Around all that may touch stdout. Raises WriteError where it takes no more."""
    try:
        yield
    except BrokenPipeError:
        silence_stdout()
    except OSError as error:
        silence_stdout()
        raise failed(Path("the standard output"), error) from error
