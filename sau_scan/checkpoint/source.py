"""A checkpoint as vetted bytes: which files there are, their hashes, and what is left unopened.

Nothing is deserialised here but JSON. Every later read compares the bytes with the hash taken at opening, so what is
loaded is what was reported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from io import BufferedReader, FileIO
from pathlib import Path, PurePosixPath
from typing import Any

from sau_scan.checkpoint.files import BROKEN, IRREGULAR, LEAVING, opened
from sau_scan.checkpoint.naming import PICKLES
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint, UnsafeFile
from sau_scan.findings import FileRecord, Skipped, escape

INDEX = "model_index.json"
ADAPTER_CONFIG = "adapter_config.json"  # PEFT's, beside the tensors of an adapter
# Far above any real configuration or vocabulary; below what would exhaust memory.
JSON_LIMIT = 64 * 2**20
CHUNK = 2**22
DOWNLOAD_AGAIN = "Download it again, or check it against the sha256 that its source publishes."
_ALL_FILES = "Download the checkpoint again, with all of its files."


class Form(StrEnum):
    """What was given to scan; all but the first two say nothing without a base."""

    FOLDER = "diffusers folder"
    SINGLE = "single file"
    DENOISER = "bare UNet"
    TEXT_ENCODER = "bare text encoder"
    LORA = "LoRA"
    EMBEDDING = "textual inversion"


@dataclass(frozen=True)
class Checkpoint:
    """An opened input. ``records``: the files that were hashed; only these are read and copied.

    ``root``: the folder or file that was named. ``index`` is ``model_index.json`` as data; ``weights`` maps a component
    to its weight files, in loading order; ``links_out`` are links that leave the folder (never followed). What the
    input does not hold itself comes from ``base``, or from ``shipped`` (path -> content), the configuration that its
    family has in print. ``vetted``: pickles were examined opcode by opcode, and hold tensors only.
    """

    root: Path
    index: dict[str, Any]
    records: tuple[FileRecord, ...]
    skipped: tuple[Skipped, ...]
    weights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    links_out: tuple[str, ...] = ()
    variant: str | None = None
    form: Form = Form.FOLDER
    base: Checkpoint | None = None
    shipped: Mapping[str, bytes] = field(default_factory=dict)
    vetted: bool = False
    # Path -> what reads it; see weights.weight_file. A copy with other fields starts anew.
    readers: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def folder(self) -> Path:
        """The folder below which ``records`` lie."""
        return self.root if self.form is Form.FOLDER else self.root.parent

    @property
    def file(self) -> str:
        """The one file of weights of an input that is a file."""
        return self.root.name

    @property
    def left_out(self) -> tuple[str, ...]:
        """Components whose weights are in files that are not opened, and nowhere else."""
        pickled = {s.what.split("/")[0] for s in self.skipped if PurePosixPath(s.what).suffix.lower() in PICKLES}
        return tuple(sorted(name for name in pickled & set(self.index) if name not in self.weights))

    def record(self, relpath: str) -> FileRecord | None:
        return next((r for r in self.records if r.path == relpath), None)

    def holds(self, relpath: str) -> bool:
        """Whether there is such a file, be it in the base or among what is shipped."""
        own = self.record(relpath) is not None or relpath in self.shipped
        return own or (self.base is not None and self.base.holds(relpath))

    def read(self, relpath: str) -> bytes:
        """The bytes that were hashed. Raises UnsafeFile for a file outside ``records``, DamagedFile if it changed."""
        if self.record(relpath) is None and relpath in self.shipped:
            return self.shipped[relpath]
        return bytes(self.read_buffer(relpath))

    def read_buffer(self, relpath: str) -> bytearray:
        """As :meth:`read`, in a buffer that the caller may write to."""
        record = self.record(relpath)
        if record is None and self.base is not None and self.base.holds(relpath):
            return bytearray(self.base.read(relpath))
        if record is None:
            raise self.absent(relpath)
        data = bytearray(record.size)
        with self.verified(relpath) as file:
            file.fill(memoryview(data))
        return data

    @contextmanager
    def verified(self, relpath: str) -> Iterator[Verified]:
        """A file to be read once from its beginning. At the end of the block the rest is read, and DamagedFile raised
        unless the bytes are those that were hashed; until then nothing that was read may be trusted."""
        record = self.record(relpath)
        if record is None:
            raise self.absent(relpath)
        with opened(self.folder, relpath) as file:
            reader = Verified(file, record.size)
            yield reader
            if reader.finish() != record.sha256:
                raise self.changed(relpath)

    @contextmanager
    def held(self, relpath: str, *, again: bool = True) -> Iterator[BufferedReader]:
        """One opening of a file whose bytes are those that were hashed, as the block begins and, ``again``, as it ends.

        Raises DamagedFile where they are not; until the end nothing that was read may be trusted.
        """
        record = self.record(relpath)
        if record is None:
            raise self.absent(relpath)
        with opened(self.folder, relpath) as file:
            if _sha256(file, record.size) != record.sha256:
                raise self.changed(relpath)
            yield file
            if again and _sha256(file, record.size) != record.sha256:
                raise self.changed(relpath)

    def head(self, relpath: str, size: int = 16) -> bytes:
        """The first bytes of a file, unverified: only good for telling what kind of file it is."""
        if self.record(relpath) is None:
            raise self.absent(relpath)
        with opened(self.folder, relpath) as file:
            return file.read(size)

    def json(self, relpath: str) -> dict[str, Any]:
        """A JSON object of the checkpoint. Raises DamagedFile when it is not one."""
        return parse_json(self.read(relpath), self.show(relpath))

    def show(self, relpath: str) -> str:
        """``relpath`` below the folder for messages, escaped."""
        if self.base is not None and self.record(relpath) is None and self.base.holds(relpath):
            return self.base.show(relpath)
        return escape(str(self.folder / relpath)) if self.record(relpath) or relpath else escape(str(self.root))

    def changed(self, relpath: str) -> DamagedFile:
        """The error for a file whose bytes are no longer those that were hashed."""
        return DamagedFile(
            f"{self.show(relpath)} changed while it was being examined.",
            hint="Make sure that nothing else writes to it, then start again.",
        )

    def absent(self, relpath: str) -> CheckpointError:
        """The error that says why ``relpath`` cannot be read."""
        if any(relpath == link or relpath.startswith(link + "/") for link in self.links_out):
            return UnsafeFile(
                f"{self.show(relpath)} is a link that leaves the folder, and is not followed.",
                hint=LEAVING,
            )
        reason = next((s.reason for s in self.skipped if s.what == relpath), None)
        if reason:
            pickled = PurePosixPath(relpath).suffix.lower() in PICKLES and reason not in (BROKEN, IRREGULAR)
            hint = "Provide it as safetensors." if pickled else _ALL_FILES
            return UnsafeFile(f"{self.show(relpath)} was not opened: {reason}.", hint=hint)
        return NotACheckpoint(f"{self.show(relpath)} is missing.", hint=_ALL_FILES)


class Verified:
    """A file that is hashed while it is read; see :meth:`Checkpoint.verified`."""

    def __init__(self, file: BufferedReader | FileIO, size: int) -> None:
        self._file, self._size, self._digest = file, size, hashlib.sha256()

    def fill(self, target: memoryview) -> bool:
        """Reads the next ``len(target)`` bytes into ``target``; whether there were as many."""
        done = 0
        while done < len(target):
            count = self._file.readinto(target[done : done + CHUNK])
            if not count:
                return False
            self._digest.update(target[done : done + count])
            done += count
        return True

    def read(self, size: int) -> bytes:
        """The next bytes, fewer at the end of the file."""
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def finish(self) -> str:
        """Reads on to the end, or a little further than there should be anything; the sha256 of all of it."""
        buffer = memoryview(bytearray(CHUNK))
        while self._file.tell() <= self._size and (count := self._file.readinto(buffer)):
            self._digest.update(buffer[:count])
        return self._digest.hexdigest()


def _sha256(file: BufferedReader, size: int) -> str:
    """Of all of an open file, as it is on the disk now: a buffer could still hold what was there before."""
    with open(file.fileno(), "rb", buffering=0, closefd=False) as plain:
        plain.seek(0)
        return Verified(plain, size).finish()


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
