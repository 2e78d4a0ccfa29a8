"""Files of reports: whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from sau_scan.errors import WriteError
from sau_scan.findings import escape

DRAFT = ".sau-scan-"  # never after the file itself, whose name may be as long as any


def write_atomically(file: Path, content: bytes) -> None:
    """``content`` under this name, whole or not at all. Raises WriteError."""
    draft: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=DRAFT, dir=file.absolute().parent)
        draft = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.chmod(0o666 & ~_umask())
        draft.replace(file)
    except BaseException as error:  # an interrupt, too, must leave no draft behind
        if draft is not None:
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise failed(file, error) from error
        raise


def failed(file: Path, error: OSError) -> WriteError:
    """What to say when ``file`` could not be written."""
    shown = escape(str(file))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WriteError(f"The disk is full; {shown} was not written.", hint="Free some space and run it again.")
    hint = "Take a shorter name." if error.errno == errno.ENAMETOOLONG else "Check permissions and the disk."
    return WriteError(f"{shown} could not be written: {error.strerror or error}.", hint=hint)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
