"""A checkpoint folder as vetted bytes: which files there are, their hashes, and what is left unopened.

Nothing is deserialised here but JSON. Every later read compares the bytes with the hash taken at opening, so what is
loaded is what was reported.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any

from sau_scan.checkpoint.naming import PICKLES, Choice, choose_weights, left_unopened
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint, UnsafeFile
from sau_scan.findings import FileRecord, Skipped, escape

INDEX = "model_index.json"
# Far above any real configuration or vocabulary; below what would exhaust memory.
JSON_LIMIT = 64 * 2**20
DEPTH_LIMIT = 6
FILE_LIMIT = 10_000
SIZE_LIMIT = 64 * 2**30
DOWNLOAD_AGAIN = "Download it again, or check it against the sha256 that its source publishes."


@dataclass(frozen=True)
class Checkpoint:
    """An opened folder. ``records``: the files that were hashed; only these are read and copied.

    ``index`` is ``model_index.json`` as data; ``weights`` maps a component to its weight files, in loading order;
    ``links_out`` are links that leave the folder (never followed).
    """

    root: Path
    index: dict[str, Any]
    records: tuple[FileRecord, ...]
    skipped: tuple[Skipped, ...]
    weights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    links_out: tuple[str, ...] = ()
    variant: str | None = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """Components whose weights are in files that are not opened, and nowhere else."""
        pickled = {s.what.split("/")[0] for s in self.skipped if PurePosixPath(s.what).suffix.lower() in PICKLES}
        return tuple(sorted(name for name in pickled & set(self.index) if name not in self.weights))

    def record(self, relpath: str) -> FileRecord | None:
        return next((r for r in self.records if r.path == relpath), None)

    def read(self, relpath: str) -> bytes:
        """The bytes that were hashed. Raises UnsafeFile for a file outside ``records``, DamagedFile if it changed."""
        return bytes(self.read_buffer(relpath))

    def read_buffer(self, relpath: str) -> bytearray:
        """As :meth:`read`, in a buffer that the caller may write to."""
        record = self.record(relpath)
        if record is None:
            raise self.absent(relpath)
        data = bytearray(record.size)
        with _opened(self.root, relpath) as file:
            complete = file.readinto(data) == record.size and not file.read(1)
        if not complete or hashlib.sha256(data).hexdigest() != record.sha256:
            raise self.changed(relpath)
        return data

    def head(self, relpath: str, size: int = 16) -> bytes:
        """The first bytes of a file, unverified: only good for telling what kind of file it is."""
        if self.record(relpath) is None:
            raise self.absent(relpath)
        with _opened(self.root, relpath) as file:
            return file.read(size)

    def json(self, relpath: str) -> dict[str, Any]:
        """A JSON object of the checkpoint. Raises DamagedFile when it is not one."""
        return parse_json(self.read(relpath), self.show(relpath))

    def show(self, relpath: str) -> str:
        """``relpath`` below the root for messages, escaped."""
        return escape(str(self.root / relpath))

    def changed(self, relpath: str) -> DamagedFile:
        """The error for a file whose bytes are no longer those that were hashed."""
        return DamagedFile(
            f"{self.show(relpath)} changed while it was being examined.",
            hint="Make sure that nothing else writes to the folder, then start again.",
        )

    def absent(self, relpath: str) -> CheckpointError:
        """The error that says why ``relpath`` cannot be read."""
        if any(relpath == link or relpath.startswith(link + "/") for link in self.links_out):
            return UnsafeFile(
                f"{self.show(relpath)} is a link that leaves the folder, and is not followed.",
                hint="Copy the checkpoint with its links resolved (cp -rL FROM TO) and scan the copy.",
            )
        reason = next((s.reason for s in self.skipped if s.what == relpath), None)
        if reason:
            return UnsafeFile(f"{self.show(relpath)} was not opened: {reason}.", hint="Provide it as safetensors.")
        return NotACheckpoint(
            f"{self.show(relpath)} is missing.", hint="Download the checkpoint again, with all of its files."
        )


def open_checkpoint(path: Path | str, *, variant: str | None = None) -> Checkpoint:
    """Lists and hashes a diffusers folder. ``variant`` names the weight files to load (``fp16``), as in diffusers.

    Raises NotACheckpoint, UnsafeFile or DamagedFile.
    """
    root = Path(path)
    require_folder(root)
    names, links_out, skipped = _listing(root)
    index_data = _read_index(root, names, links_out)
    index = parse_json(index_data, escape(str(root / INDEX)))
    choice = choose_weights(_components(index), names, variant)
    kept, unopened = _sift(names, choice)
    if variant and not any(f".{variant}." in file for files in choice.weights.values() for file in files):
        raise NotACheckpoint(
            f"{escape(str(root))} has no weights of the variant {variant!a}.", hint="Leave --variant out."
        )
    _require_size(root, kept)
    records = tuple(_hash(root, name) for name in kept)
    checkpoint = Checkpoint(root, index, records, (*skipped, *unopened), choice.weights, links_out, variant)
    if checkpoint.read(INDEX) != index_data:
        raise checkpoint.changed(INDEX)
    return checkpoint


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object from hostile bytes; ``where`` names it in the DamagedFile that is raised otherwise."""
    if len(data) > JSON_LIMIT:
        raise DamagedFile(f"{where} is larger than any configuration.", hint=DOWNLOAD_AGAIN)
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{where} is not valid JSON.", hint=DOWNLOAD_AGAIN) from error
    if not isinstance(value, dict):
        raise DamagedFile(f"{where} does not hold a JSON object.", hint=DOWNLOAD_AGAIN)
    return value


def _components(index: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Component -> (library, class) for the entries that name one."""
    return {
        name: (value[0], value[1])
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)
    }


def _require_size(root: Path, names: list[str]) -> None:
    """A sparse file can claim any size; hashing it would never end."""
    try:
        size = sum((root / name).stat().st_size for name in names)
    except OSError as error:
        raise _unreadable(root, error) from error
    if size > SIZE_LIMIT:
        raise NotACheckpoint(
            f"{escape(str(root))} holds more than {SIZE_LIMIT >> 30} GiB.", hint="Give the checkpoint's folder."
        )


def require_folder(root: Path) -> None:
    """Raises NotACheckpoint where there is no folder."""
    shown = escape(str(root))
    try:
        found = root.exists()
    except (OSError, ValueError):  # a name that no file system takes
        found = False
    if not found:
        raise NotACheckpoint(f"{shown} does not exist.", hint="Check the path; it must be a diffusers folder.")
    if not root.is_dir():
        raise NotACheckpoint(
            f"{shown} is a file; only diffusers folders are read.",
            hint="Convert it with diffusers (StableDiffusionPipeline.from_single_file(...).save_pretrained(FOLDER)).",
        )


def _read_index(root: Path, names: list[str], links_out: tuple[str, ...]) -> bytes:
    shown = escape(str(root))
    if INDEX in links_out:
        raise UnsafeFile(f"{shown}/{INDEX} is a link that leaves the folder.", hint="Scan a copy made with cp -rL.")
    if INDEX not in names:
        nested = sorted(name for name in names if name.endswith("/" + INDEX))
        raise NotACheckpoint(
            f"{shown} is not a diffusers folder: it has no {INDEX}." if names else f"{shown} is empty.",
            hint=f"Did you mean {escape(str((root / nested[0]).parent))}?"
            if nested
            else "Give the folder that StableDiffusionPipeline.save_pretrained wrote.",
        )
    with _opened(root, INDEX) as file:
        return file.read(JSON_LIMIT + 1)


def _sift(names: list[str], choice: Choice) -> tuple[list[str], list[Skipped]]:
    """Names to hash, and those to leave unopened with the reason."""
    kept: list[str] = []
    unopened: list[Skipped] = []
    for name in names:
        reason = choice.unused.get(name) or left_unopened(name)
        if reason:
            unopened.append(Skipped(what=name, reason=reason))
        else:
            kept.append(name)
    return kept, unopened


def _listing(root: Path) -> tuple[list[str], tuple[str, ...], list[Skipped]]:
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
        raise _unreadable(root, error) from error
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
            return "a broken link"
        if not target.is_relative_to(real_root):
            return _LINK_OUT
    if entry.is_dir():
        return "a folder that is hidden, linked or too deep; not descended into"
    if not entry.is_file():
        return "not a regular file"
    if not relpath.isprintable():
        return "a name with unprintable characters"
    return None


@contextmanager
def _opened(root: Path, relpath: str) -> Iterator[BufferedReader]:
    """A reader of a regular file within ``root``. Raises UnsafeFile, or NotACheckpoint where the disk fails.

    The link check is repeated: the folder may have changed since the listing.
    """
    try:
        target = (root / relpath).resolve(strict=True)
        if not target.is_relative_to(root.resolve()):
            raise UnsafeFile(f"{escape(str(root / relpath))} leaves the folder.", hint="Scan a copy made with cp -rL.")
        # O_NONBLOCK: opening a pipe put in the file's place must not hang.
        descriptor = os.open(target, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnsafeFile(f"{escape(str(root / relpath))} is not a regular file.", hint="Remove it.")
            yield file
    except OSError as error:
        raise _unreadable(root, error) from error


def _hash(root: Path, relpath: str) -> FileRecord:
    with _opened(root, relpath) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return FileRecord(path=relpath, size=size, sha256=digest)


def _unreadable(root: Path, error: OSError) -> CheckpointError:
    where = escape(str(error.filename or root))
    return NotACheckpoint(
        f"{where} cannot be read: {error.strerror or error}.", hint="Check its permissions and the disk."
    )
