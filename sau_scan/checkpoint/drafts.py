"""A patched copy that is examined before it takes its final place."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.checkpoint.placing import place, sync_folder, write_new
from sau_scan.checkpoint.rewriting import copied
from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.checkpoint.writer import (
    DRAFT,
    check_out,
    draft_name,
    remove_folder,
    side_file,
    write_failed,
    write_patched,
)
from sau_scan.errors import WriteError


class Draft:
    """Context manager: ``path`` is a patched copy beside ``out``, which is removed at the end unless published.

    Raises UsageError, WriteError or DamagedFile, and then leaves nothing behind.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        patch: WeightPatch,
        out: Path,
        drop: Sequence[str] = (),
        replaced: Mapping[str, bytes] | None = None,
    ) -> None:
        """``drop``: files that are not copied; ``replaced``: path -> content, of those that are written anew."""
        self.checkpoint, self.patch, self.out, self.drop = checkpoint, patch, out, tuple(drop)
        self.replaced = dict(replaced or {})
        self._folder = out.resolve().with_name(f"{DRAFT}{secrets.token_hex(4)}.draft")
        whole = checkpoint.form is Form.FOLDER
        # Under the input's name, which may be the word that the file stands for.
        self.path = self._folder if whole else self._folder / draft_name(checkpoint.root)

    def __enter__(self) -> Self:
        check_out(self.checkpoint.root, self.out)
        try:
            if self.path != self._folder:
                self._folder.mkdir()
            write_patched(self.checkpoint, self.patch, self.path, extra_files=self.replaced)
            # What else goes by such a name was made for the copy.
            own = {record.path for record in copied(self.checkpoint)} - self.replaced.keys()
            for name in own.intersection(self.drop):
                (self._folder / name).unlink(missing_ok=True)
        except BaseException as error:  # __exit__ is not called for what fails in here
            remove_folder(self._folder)
            cause = error.__cause__ if isinstance(error, WriteError) else error
            if isinstance(cause, OSError):  # told of the place that the user knows
                raise write_failed(self.out, cause) from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove_folder(self._folder)

    def publish(self, extra_files: Mapping[str, bytes]) -> Path:
        """Adds ``extra_files`` (name in the folder -> content) and moves the draft to its place, in one step.

        Of a file, they go beside it, called after it.
        """
        check_out(self.checkpoint.root, self.out, extra_files)
        try:
            for name, content in extra_files.items():
                (self._folder / name).unlink(missing_ok=True)
                write_new(self._folder / name, content)
            sync_folder(self._folder)
            if self.path == self._folder:
                self.path.rename(self.out.resolve())
            else:
                self._publish_file(extra_files)
            sync_folder(self.out.resolve().parent)
        except OSError as error:
            raise write_failed(self.out, error) from error
        return self.out

    def _publish_file(self, extra_files: Mapping[str, bytes]) -> None:
        """The file last: once it is there, all is."""
        placed: list[Path] = []
        try:
            for name in extra_files:
                place(self._folder / name, side_file(self.out, name))
                placed.append(side_file(self.out, name))
            place(self.path, self.out)
        except BaseException:
            for file in placed:
                file.unlink(missing_ok=True)
            raise
