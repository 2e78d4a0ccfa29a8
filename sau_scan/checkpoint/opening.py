"""Opens what people have: diffusers folders, single files, adapters. Files are hashed, and watched while they are."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from os.path import exists  # unlike Path's, it raises nothing
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from sau_scan.checkpoint.adapters.peft import ADAPTER_WEIGHTS, adapter_in, require_alone
from sau_scan.checkpoint.files import LEAVING, listing, opened, require_input, unreadable
from sau_scan.checkpoint.forms import has_settings, recognise, require_base, shipped_index
from sau_scan.checkpoint.naming import WEIGHT_NAMES, Choice, choose_weights, components_of, left_unopened
from sau_scan.checkpoint.source import ADAPTER_CONFIG, CHUNK, INDEX, JSON_LIMIT, Checkpoint, Form, parse_json
from sau_scan.errors import CheckpointError, NotACheckpoint, UnsafeFile, UsageError, about_base
from sau_scan.findings import FileRecord, Skipped, escape
from sau_scan.shell import ascii_command, word

SIZE_LIMIT = 64 * 2**30
_ITSELF = "Give the file itself:"
_BASE = "Name the folder or single file that the input is used with."


class Sink(Protocol):
    """Gets the bytes of one file, in order. A chunk may be looked at until ``update`` returns, and not after."""

    def update(self, chunk: memoryview) -> None: ...
    def end(self, sha256: str) -> None: ...


class Watch(Protocol):
    """Looks at every regular file while it is hashed, so that all is read once; see :mod:`sau_scan.static`."""

    def begin(self, relpath: str, size: int, file: BinaryIO) -> Sink:
        """``file`` is what is hashed; it stays open until the sink's ``end`` returns."""

    def clears(self, relpath: str) -> bool:
        """Whether a file that has ended may be read further; a pickle only if it holds nothing but tensors."""


def open_checkpoint(
    path: Path | str,
    *,
    variant: str | None = None,
    base: Path | str | Checkpoint | None = None,
    watch: Watch | None = None,
) -> Checkpoint:
    """Lists and hashes a checkpoint.

    ``variant`` names the weight files of a folder to load (``fp16``), as in diffusers. ``base``: a whole checkpoint,
    for what the input lacks: all else for adapters and bare weights, configuration and tokenizer for single files.
    A folder that PEFT wrote is its file of weights, with the settings beside it.
    Raises NotACheckpoint, UnsafeFile, DamagedFile or, for a base that is missing or not whole and for a folder of
    PEFT's with other weights, UsageError.
    """
    root = Path(path)
    require_input(root)
    if root.is_dir():
        adapter = adapter_in(root)
        if adapter is not None:
            require_alone(adapter)
            return _open_file(adapter, base, variant, watch)
        if base is not None and exists(root / INDEX):
            raise UsageError(f"{escape(str(root))} is a whole checkpoint.", hint="Leave --base out.")
        return _open_folder(root, variant, watch)
    return _open_file(root, base, variant, watch)


def _open_folder(root: Path, variant: str | None, watch: Watch | None) -> Checkpoint:
    names, links_out, skipped = listing(root)
    index_data = _read_index(root, names, links_out)
    index = parse_json(index_data, escape(str(root / INDEX)))
    choice = choose_weights(components_of(index), names, variant)
    kept, unopened = _sift(names, choice)
    if variant and not any(f".{variant}." in file for files in choice.weights.values() for file in files):
        raise NotACheckpoint(
            f"{escape(str(root))} has no weights of the variant {variant!a}.", hint="Leave --variant out."
        )
    left = [skipped.what for skipped in unopened] if watch is not None else []
    _require_size(root, [*kept, *left])
    records = tuple(_hash(root, name, watch) for name in kept)
    for name in left:
        _hash(root, name, watch)
    used = [name for files in choice.weights.values() for name in files]
    vetted = watch is not None and all(watch.clears(name) for name in used)
    checkpoint = Checkpoint(
        root, index, records, (*skipped, *unopened), choice.weights, links_out, variant, vetted=vetted
    )
    if checkpoint.read(INDEX) != index_data:
        raise checkpoint.changed(INDEX)
    return checkpoint


def _open_file(
    root: Path, base: Path | str | Checkpoint | None, variant: str | None, watch: Watch | None
) -> Checkpoint:
    if not root.is_file():
        raise NotACheckpoint(f"{escape(str(root))} is neither a folder nor a regular file.", hint="Name a checkpoint.")
    if not root.name.isprintable():
        raise UnsafeFile(f"{escape(str(root))} has a name with unprintable characters.", hint="Rename it.")
    _require_size(root.parent, [root.name])
    record = _hash(root.parent, root.name, watch)
    cleared = watch is not None and watch.clears(root.name)
    # Until it is known what it is, it is one file without anything around it; and what is dangerous stays that.
    checkpoint = Checkpoint(root, {}, (record,), (), form=Form.SINGLE, vetted=cleared)
    if watch is not None and not cleared:
        return checkpoint
    form, family = recognise(checkpoint)
    whole = base if base is None or isinstance(base, Checkpoint) else open_base(Path(base), variant)
    require_base(checkpoint, form, whole)
    index, shipped = (whole.index, {}) if whole is not None else shipped_index(family)
    records = (record, *_settings(checkpoint, form, watch))
    whole_input = replace(checkpoint, records=records, form=form, index=index, base=whole, shipped=shipped)
    whole_input.readers.update(checkpoint.readers)
    return whole_input


def _settings(checkpoint: Checkpoint, form: Form, watch: Watch | None) -> tuple[FileRecord, ...]:
    """The record of the settings beside a LoRA, where there are any that are meant for it."""
    if form is not Form.LORA or not has_settings(checkpoint):
        return ()
    _require_size(checkpoint.folder, [ADAPTER_CONFIG])
    return (_hash(checkpoint.folder, ADAPTER_CONFIG, watch),)


def open_base(path: Path, variant: str | None = None, watch: Watch | None = None) -> Checkpoint:
    """The checkpoint that an input is used with. Raises UsageError if there is none, or a part of one; UnsafeFile or
    DamagedFile."""
    shown = escape(str(path))
    try:
        return open_checkpoint(path, variant=variant, watch=watch)
    except UsageError as error:
        raise UsageError(f"--base {shown} is not a whole checkpoint.", hint=_BASE) from error
    except NotACheckpoint as error:
        told = f"{shown} cannot be used: " if not str(error).startswith(shown) else ""
        hint = _BASE if error.hint.startswith(_ITSELF) else error.hint  # a part is no base
        raise UsageError(f"--base {told}{error}", hint=hint) from error
    except CheckpointError as error:
        raise about_base(error) from error.__cause__


def _require_size(folder: Path, names: list[str]) -> None:
    """A sparse file can claim any size; hashing it would never end."""
    try:
        size = sum((folder / name).stat().st_size for name in names)
    except OSError as error:
        raise unreadable(folder, error) from error
    if size > SIZE_LIMIT:
        raise NotACheckpoint(
            f"{escape(str(folder))} holds more than {SIZE_LIMIT >> 30} GiB.", hint="Give the checkpoint's folder."
        )


def _read_index(root: Path, names: list[str], links_out: tuple[str, ...]) -> bytes:
    shown = escape(str(root))
    if INDEX in links_out:
        raise UnsafeFile(f"{shown}/{INDEX} is a link that leaves the folder.", hint=LEAVING)
    weights = any(PurePosixPath(name).suffix.lower() in WEIGHT_NAMES for name in names)
    if INDEX not in names and ADAPTER_CONFIG in names and not weights:
        raise NotACheckpoint(
            f"{shown} holds {ADAPTER_CONFIG}, but {ADAPTER_WEIGHTS[0]} is missing.",
            hint="Download the adapter again, with its weights.",
        )
    if INDEX not in names:
        raise NotACheckpoint(
            f"{shown} is not a diffusers folder: it has no {INDEX}." if names else f"{shown} is empty.",
            hint=_instead(root, names),
        )
    with opened(root, INDEX) as file:
        return file.read(JSON_LIMIT + 1)


def _instead(root: Path, names: list[str]) -> str:
    """What could have been meant by a folder without an index."""
    nested = sorted(name for name in names if name.endswith("/" + INDEX))
    if nested:
        return f"Did you mean {escape(str((root / nested[0]).parent))}?"
    weights = [name for name in names if PurePosixPath(name).suffix.lower() in WEIGHT_NAMES]
    if len({name.split("/")[0] for name in weights if "/" in name}) > 1:
        return "Download the checkpoint again, with all files."
    if weights:
        file = ascii_command(word(str(root / weights[0])))
        return f"{_ITSELF} {file}; an adapter, or a part of a model, with --base BASE."
    return "Give the folder that StableDiffusionPipeline.save_pretrained wrote."


def _sift(names: list[str], choice: Choice) -> tuple[list[str], list[Skipped]]:
    """Names to hash, and those to leave unopened with the reason."""
    used = {name for files in choice.weights.values() for name in files}
    kept: list[str] = []
    unopened: list[Skipped] = []
    for name in names:
        reason = None if name in used else choice.unused.get(name) or left_unopened(name)
        if reason:
            unopened.append(Skipped(what=name, reason=reason))
        else:
            kept.append(name)
    return kept, unopened


def _hash(folder: Path, relpath: str, watch: Watch | None) -> FileRecord:
    """Reads a file once, for its hash and for whoever watches."""
    digest, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(CHUNK))
    # Hash and watcher go over the same chunk at the same time: both leave the interpreter to others meanwhile.
    with opened(folder, relpath) as file, ThreadPoolExecutor(1) as beside:
        sink = watch.begin(relpath, os.fstat(file.fileno()).st_size, file) if watch is not None else None
        while count := file.readinto(buffer):
            size += count
            hashed = beside.submit(digest.update, buffer[:count])
            if sink is not None:
                sink.update(buffer[:count])
            hashed.result()
        if sink is not None:
            sink.end(digest.hexdigest())
    return FileRecord(path=relpath, size=size, sha256=digest.hexdigest())
