"""Writes a patched copy of a checkpoint: all of it or nothing, and only the patched tensors differ."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from os.path import isfile  # unlike Path's, it raises nothing
from pathlib import Path, PurePosixPath

from sau_scan.checkpoint.adapters.peft import adapter_in
from sau_scan.checkpoint.naming import WEIGHT_NAMES
from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.checkpoint.placing import place, require_parent, sync_folder, write_new
from sau_scan.checkpoint.rewriting import copied, rewritten, written_as
from sau_scan.checkpoint.source import INDEX, Checkpoint, Form
from sau_scan.errors import DamagedFile, UsageError, WriteError
from sau_scan.findings import escape

_FOLDER = "Name a new folder."
DRAFT = ".sau-scan-"  # what is not whole yet is called so; never after its place, whose name may be as long as any


def check_out(given: Path, out: Path, beside: Iterable[str] = ()) -> None:
    """Raises UsageError if ``out`` must not be written to, WriteError if it cannot be; leaves nothing behind.

    ``given``: the input; of a folder that PEFT wrote, the file in it is written. ``beside``: what files are called that
    come with it: in a folder, or beside a file, called after it.
    """
    root = adapter_in(given) or given
    _check_place(root, out)
    target = out.resolve()
    _check_apart(given.resolve(), target, out)
    if isfile(root):
        _check_beside(out, beside)
    try:
        # Trying is surer than asking: some file systems refuse what their permissions allow, or so long a name.
        trial = Path(tempfile.mkdtemp(prefix=DRAFT, suffix=".partial", dir=target.parent))
    except OSError as error:
        raise write_failed(out, error) from error
    try:
        (trial / target.name).touch()
    except OSError as error:
        remove_folder(trial)
        raise write_failed(out, error) from error
    try:
        if isfile(root):
            (trial / draft_name(root)).touch()
    except OSError as error:
        raise write_failed(Path(draft_name(root)), error) from error
    finally:
        remove_folder(trial)


def draft_name(root: Path) -> str:
    """What the draft of a file is called: as the input, since that may be the word that the file stands for."""
    return f"{root.stem}.safetensors"


def _check_place(root: Path, out: Path) -> None:
    shown = escape(str(out))
    try:
        source, target = root.resolve(), out.resolve()
        out.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, RuntimeError) as error:  # by Python's version, a circle of links is either
        raise write_failed(out, error) from error
    _check_apart(source, target, out)
    require_parent(target)
    if isfile(source):
        _check_file(out)
        return
    if out.suffix.lower() in WEIGHT_NAMES:
        raise UsageError(f"--out {shown} is the name of a file; what came as a folder is written as one.", hint=_FOLDER)
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"--out {shown} is a file or a link.", hint=_FOLDER)
    try:
        occupied = out.exists() and any(out.iterdir())
    except OSError as error:
        raise write_failed(out, error) from error
    if occupied:
        raise UsageError(f"--out {shown} is not empty.", hint="Name a new folder, or empty this one.")


def _check_apart(source: Path, target: Path, out: Path) -> None:
    """Both resolved; ``out`` is how the target was named."""
    shown = escape(str(out))
    if target == source:
        raise UsageError(
            f"--out {shown} is the checkpoint itself.", hint="Name a new folder; the input stays as it is."
        )
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise UsageError(
            f"Of --out {shown} and the checkpoint, one lies inside the other.", hint="Name a place beside it."
        )


def _check_file(out: Path) -> None:
    """What came as a file is written as one."""
    shown = escape(str(out))
    if out.suffix.lower() != ".safetensors":
        raise UsageError(f"--out {shown} is not the name of a safetensors file.", hint="Name FILE.safetensors.")
    if out.is_symlink() or out.exists():
        raise UsageError(f"--out {shown} is there already.", hint="Name a new file.")


def side_file(out: Path, name: str) -> Path:
    """Where a file that comes with the file ``out`` goes."""
    return out.with_name(f"{out.name}.{name}")


def _check_beside(out: Path, names: Iterable[str]) -> None:
    for file in (side_file(out, name) for name in names):
        try:
            file.lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise write_failed(file, error) from error
        raise UsageError(
            f"{escape(str(file))} is there already, and is not overwritten.",
            hint="It tells of an earlier --out of this name: remove it, or name a new file.",
        )


def write_patched(
    checkpoint: Checkpoint, patch: WeightPatch, out: Path, *, extra_files: Mapping[str, bytes] | None = None
) -> Path:
    """Writes ``checkpoint`` with ``patch`` to ``out``, a new folder or, of a file, a new file, and returns it.

    Names, types, order and metadata of tensors stay; files without a change are byte-identical. Files that no component
    uses are left out, since nothing vouches for them, and components that have no others are named as absent.
    Pickles become safetensors. ``extra_files``: path in the folder -> content.
    Raises UsageError, WriteError or DamagedFile, and then leaves nothing behind.
    """
    _check_place(checkpoint.root, out)
    extra = dict(extra_files or {})
    _check_extra(extra, patch)
    _check_refs(checkpoint, patch)
    target = out.resolve()
    parent = target.parent
    if checkpoint.form is not Form.FOLDER:
        return _write_file(checkpoint, patch, out)
    draft: Path | None = None
    moved = False
    try:
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, suffix=".partial", dir=parent))
        _fill(draft, checkpoint, patch, extra)
        os.rename(draft, target)
        moved = True
        sync_folder(parent)
    except BaseException as error:  # an interrupt, too, must leave nothing half-written
        if draft is not None:
            remove_folder(target if moved else draft)
        if isinstance(error, OSError):
            raise write_failed(out, error) from error
        raise
    return out


def _write_file(checkpoint: Checkpoint, patch: WeightPatch, out: Path) -> Path:
    content, parent = rewritten(checkpoint, checkpoint.file, patch), out.resolve().parent
    placed = False
    try:
        with tempfile.TemporaryDirectory(prefix=DRAFT, suffix=".partial", dir=parent) as draft:
            _write(Path(draft), out.name, content)
            place(Path(draft) / out.name, out)
            placed = True
            sync_folder(parent)
    except BaseException as error:
        if placed:
            out.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise write_failed(out, error) from error
        raise
    return out


def remove_folder(folder: Path) -> None:
    """Removes ``folder`` as far as it can be; an interrupt meanwhile is raised when that is done."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _index(checkpoint: Checkpoint, data: bytes | bytearray) -> bytes | bytearray:
    """``model_index.json`` of the copy: what is left out is named as absent, or nothing could load the rest."""
    if not checkpoint.left_out:
        return data
    absent = {name: [None, None] for name in checkpoint.left_out}
    return (json.dumps(checkpoint.index | absent, indent=2) + "\n").encode()


def _fill(draft: Path, checkpoint: Checkpoint, patch: WeightPatch, extra: Mapping[str, bytes]) -> None:
    for record in copied(checkpoint):
        if record.path in extra:
            continue
        data = rewritten(checkpoint, record.path, patch)
        _write(draft, written_as(record.path), _index(checkpoint, data) if record.path == INDEX else data)
    for path, content in extra.items():
        _write(draft, path, content)
    for folder, _, _ in os.walk(draft, topdown=False):
        sync_folder(Path(folder))
    os.chmod(draft, 0o777 & ~_umask())


def _check_extra(extra: Mapping[str, bytes], patch: WeightPatch) -> None:
    for path in extra:
        if patch.for_file(path):
            raise ValueError(f"extra file {path!r} would replace a patched one")
        parts = PurePosixPath(path).parts
        if not parts or PurePosixPath(path).is_absolute() or ".." in parts:
            raise ValueError(f"extra file {path!r} would lie outside the checkpoint")


def _check_refs(checkpoint: Checkpoint, patch: WeightPatch) -> None:
    for ref in patch.tensors:
        if checkpoint.record(ref.file) is None:
            raise DamagedFile(
                f"{checkpoint.show(ref.file)} is to be repaired but was not read.",
                hint="The repair was planned for another checkpoint: scan this one and repair from its own report.",
            )


def _write(draft: Path, path: str, content: bytes | bytearray) -> None:
    target = draft / path
    target.parent.mkdir(parents=True, exist_ok=True)
    write_new(target, content)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_failed(out: Path, error: OSError | RuntimeError) -> WriteError:
    """What to say when ``out`` could not be written."""
    shown = escape(str(out))
    if not isinstance(error, OSError):
        return WriteError(f"{shown} leads in a circle of links.", hint="Name a new folder.")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WriteError(
            f"The disk is full; {shown} was not written.", hint="Free some space, or name an --out on another disk."
        )
    hint = "Take a shorter name." if error.errno == errno.ENAMETOOLONG else "Check permissions and the disk."
    return WriteError(f"{shown} could not be written: {error.strerror or error}.", hint=hint)
