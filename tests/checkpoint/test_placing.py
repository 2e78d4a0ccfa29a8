"""A file gets its name whole, and never in place of another, with hard links and without."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint import drafts, writer
from sau_scan.checkpoint.drafts import Draft
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.checkpoint.placing import place
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.errors import UsageError, WriteError
from tests.conftest import WIDTH


@pytest.fixture(params=["links", "no links"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)


@pytest.fixture
def embedding(tiny_checkpoint: Path, tmp_path: Path) -> Checkpoint:
    safetensors.torch.save_file({"word": torch.ones(1, WIDTH)}, tmp_path / "in.safetensors")
    return open_checkpoint(tmp_path / "in.safetensors", base=tiny_checkpoint)


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} - {"in.safetensors"}


@pytest.mark.usefixtures("disk")
def test_placed_and_never_over_another(tmp_path: Path) -> None:
    draft, target = tmp_path / "draft", tmp_path / "target"
    draft.write_text("new")
    place(draft, target)
    assert target.read_text() == "new"
    draft.unlink(missing_ok=True)
    draft.write_text("newer")
    with pytest.raises(WriteError, match="appeared meanwhile"):
        place(draft, target)
    assert target.read_text() == "new"


@pytest.mark.usefixtures("disk")
def test_a_file_is_published_with_what_comes_beside_it(embedding: Checkpoint, tmp_path: Path) -> None:
    with Draft(embedding, WeightPatch(), tmp_path / "out.safetensors") as draft:
        draft.publish({"note.json": b"{}"})
    assert names(tmp_path) == {"out.safetensors", "out.safetensors.note.json"}
    assert open_checkpoint(tmp_path / "out.safetensors", base=embedding.base).records[0].size > 0


def test_a_neighbour_is_not_overwritten(embedding: Checkpoint, tmp_path: Path) -> None:
    note = tmp_path / "out.safetensors.note.json"
    with Draft(embedding, WeightPatch(), tmp_path / "out.safetensors") as draft:
        note.write_text("kept")
        with pytest.raises(UsageError, match="there already"):
            draft.publish({"note.json": b"{}"})
    assert note.read_text() == "kept"
    assert names(tmp_path) == {note.name}
    with pytest.raises(UsageError, match="there already"):
        writer.check_out(embedding.root, tmp_path / "out.safetensors", ("note.json",))


def test_a_name_that_its_neighbour_would_be_too_long_for(embedding: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="too long"):
        writer.check_out(embedding.root, tmp_path / ("x" * 200 + ".safetensors"), ("note" * 20,))


def test_what_was_placed_goes_again_where_the_file_cannot_follow(
    embedding: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(draft: Path, target: Path) -> None:
        if target.suffix == ".safetensors":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        place(draft, target)

    with Draft(embedding, WeightPatch(), tmp_path / "out.safetensors") as draft:
        monkeypatch.setattr(drafts, "place", fail)
        with pytest.raises(WriteError, match="Input/output error"):
            draft.publish({"note.json": b"{}"})
    assert names(tmp_path) == set()


@pytest.mark.parametrize("step", ["mkdir", "mkdtemp", "sync"])
def test_a_disk_that_fails_is_told_and_leaves_nothing(
    embedding: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(drafts, "check_out", lambda *_: None)
    where, name = {
        "mkdir": (Path, "mkdir"),
        "mkdtemp": (writer.tempfile, "mkdtemp"),
        "sync": (writer, "sync_folder"),
    }[step]
    monkeypatch.setattr(where, name, fail)
    with (
        pytest.raises(WriteError, match=r"[^.]o\.safetensors could not be written: Input/output error"),
        Draft(embedding, WeightPatch(), tmp_path / "o.safetensors"),
    ):
        raise AssertionError("not reached")
    monkeypatch.undo()
    assert names(tmp_path) == set()
