"""Files of a folder that may be hostile: which there are, how they are opened, and what is never followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from sau_scan.errors import CheckpointError, NotACheckpoint, UnsafeFile
from sau_scan.findings import Skipped, escape

DEPTH_LIMIT = 6
FILE_LIMIT = 10_000
LEAVING = "See where it leads (ls -l); where that is a file of your own, scan a copy made with cp -rL."
BROKEN, IRREGULAR = "a broken link", "not a regular file"


def require_input(root: Path, wanted: str = "a diffusers folder or a file of weights") -> None:
    """Raises NotACheckpoint where there is nothing to be seen; ``wanted`` says what there should be."""
    try:
        root.stat()
        return
    except PermissionError as error:
        raise unreadable(root, error) from error
    except (OSError, ValueError):  # nothing there, or a name that no file system takes
        pass
    if os.path.islink(root):
        raise NotACheckpoint(
            f"{escape(str(root))} is a link to what does not exist.", hint="Restore what it points to, or name that."
        )
    raise NotACheckpoint(
        f"{escape(str(root))} does not exist.",
        hint=f"Check the path; it must be {wanted}.",
    )


def listing(root: Path) -> tuple[list[str], tuple[str, ...], list[Skipped]]:
    """Regular files below ``root`` (posix, sorted), links that leave it, and what is not looked into."""
    names: list[str] = []
    links_out: list[str] = []
    skipped: list[Skipped] = []
    real_root = root.resolve()
    try:
        for entry, relpath in _walk(root, "", 0):
            reason = _refusal(entry, relpath, real_root)
            if reason is None:
                names.append(relpath)
            else:
                skipped.append(Skipped(what=escape(relpath), reason=reason))
                if reason == _LINK_OUT:
                    links_out.append(relpath)
            if len(names) + len(skipped) > FILE_LIMIT:
                raise NotACheckpoint(
                    f"{escape(str(root))} holds more than {FILE_LIMIT:,} files.", hint="Give the checkpoint's folder."
                )
    except OSError as error:
        raise unreadable(root, error) from error
    return sorted(names), tuple(sorted(links_out)), skipped


_LINK_OUT = "a link that leaves the folder; not followed"


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Everything but plain visible folders, which are descended into."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        relpath = prefix + entry.name
        plain_folder = entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        if plain_folder and depth < DEPTH_LIMIT:
            yield from _walk(Path(entry.path), relpath + "/", depth + 1)
        else:
            yield entry, relpath


def _refusal(entry: os.DirEntry[str], relpath: str, real_root: Path) -> str | None:
    """Why this entry is not a file of the checkpoint; None when it is one."""
    if entry.is_symlink():
        try:
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):
            return BROKEN
        if not belongs(target, real_root):
            return _LINK_OUT
    if entry.is_dir():
        return "a folder that is hidden, linked or too deep; not descended into"
    if not entry.is_file():
        return IRREGULAR
    if not relpath.isprintable():
        return "a name with unprintable characters"
    return None


def belongs(target: Path, root: Path) -> bool:
    """Whether ``target`` lies within the folder ``root``, or where the hub's cache keeps the files of such a folder.

    Both with their links resolved. The cache has ``models--NAME/snapshots/COMMIT``, a folder of links to files that lie
    directly in ``models--NAME/blobs``; a folder there is none of its files.
    """
    if target.is_relative_to(root):
        return True
    above = target.parent.parent
    cached = target.parent.name == "blobs" and above.name.startswith("models--")
    if not cached or not root.is_relative_to(above / "snapshots") or root == above / "snapshots":
        return False
    try:
        return stat.S_ISREG(target.lstat().st_mode)
    except OSError:
        return False


@contextmanager
def opened(root: Path, relpath: str) -> Iterator[BufferedReader]:
    """A reader of a regular file within ``root``. Raises UnsafeFile, or NotACheckpoint where the disk fails.

    The link check is repeated: the folder may have changed since the listing.
    """
    try:
        target = (root / relpath).resolve(strict=True)
        if not belongs(target, root.resolve()):
            raise UnsafeFile(f"{escape(str(root / relpath))} leaves the folder.", hint=LEAVING)
        # O_NONBLOCK: opening a pipe put in the file's place must not hang.
        descriptor = os.open(target, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnsafeFile(f"{escape(str(root / relpath))} is not a regular file.", hint="Remove it.")
            yield file
    except OSError as error:
        raise unreadable(root, error) from error


def unreadable(root: Path, error: OSError) -> CheckpointError:
    where = escape(str(error.filename or root))
    return NotACheckpoint(
        f"{where} cannot be read: {error.strerror or error}.", hint="Check its permissions and the disk."
    )
