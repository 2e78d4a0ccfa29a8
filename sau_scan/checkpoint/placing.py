"""Files that last: written to the disk, and named in one step, never in place of what is there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sau_scan.errors import WriteError
from sau_scan.findings import escape


def require_parent(target: Path) -> None:
    """Raises WriteError where there is no folder that ``target`` could lie in, or OSError."""
    parent = target.absolute().parent
    if parent.is_dir():
        return
    known = next(place for place in (parent, *parent.parents) if os.path.lexists(place))
    if known.is_dir():
        raise WriteError(f"{escape(str(parent))} does not exist.", hint="Create it first (mkdir -p).")
    what = "a file, not a folder" if known.exists() else "a link to what does not exist"
    raise WriteError(f"{escape(str(known))} is {what}.", hint="Name a place in a folder.")


def write_new(target: Path, content: bytes | bytearray) -> None:
    """A new file, on the disk. Raises OSError."""
    with target.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """The names in a folder, on the disk where that is possible. Raises OSError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # not all folders that take files can be listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def place(draft: Path, target: Path) -> None:
    """``draft`` becomes ``target`` too, or goes there, where the file system has no links. Raises WriteError
    where that is there already, or OSError.
    """
    try:
        os.link(draft, target)  # unlike a rename, never over what appeared there meanwhile
    except FileExistsError as error:
        raise _there(target) from error
    except OSError:  # not permitted here, it may be; whatever else it is fails again
        _take(draft, target)


def _take(draft: Path, target: Path) -> None:
    """The name is taken first, by an empty file that nobody else can have made, and then filled by a rename."""
    try:
        target.touch(exist_ok=False)
    except FileExistsError as error:
        raise _there(target) from error
    try:
        draft.replace(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _there(target: Path) -> WriteError:
    return WriteError(f"{escape(str(target))} appeared meanwhile, and is not overwritten.", hint="Name a new file.")
