"""A draft is published whole, or leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint.adapters.applying import named_by_file, read_rows
from sau_scan.checkpoint.drafts import Draft
from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.patch import WeightPatch, make_patch
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.checkpoint.views import TensorRef
from sau_scan.checkpoint.writer import check_out
from sau_scan.errors import UsageError, WriteError

REF = TensorRef("text_encoder/model.safetensors", "text_model.final_layer_norm.bias")


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint)


@pytest.fixture
def patch(checkpoint: Checkpoint) -> WeightPatch:
    from sau_scan.checkpoint.tensor_file import read_entries

    names = read_entries(checkpoint.read_buffer(REF.file), REF.file)
    name = next(n for n in names if n.endswith("final_layer_norm.bias"))
    return make_patch(checkpoint, {TensorRef(REF.file, name): torch.full((32,), 0.5)})


def test_published_with_its_extra_files(checkpoint: Checkpoint, patch: WeightPatch, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Draft(checkpoint, patch, out) as draft:
        assert not out.exists()
        before = {r.path: r.sha256 for r in open_checkpoint(draft.path).records}
        draft.publish({"note.json": b"{}"})
    after = {r.path: r.sha256 for r in open_checkpoint(out).records}
    assert json.loads((out / "note.json").read_text()) == {}
    assert {path: digest for path, digest in after.items() if path != "note.json"} == before
    changed = {r.path for r in checkpoint.records if before[r.path] != r.sha256}
    assert changed == {REF.file}
    assert list(tmp_path.iterdir()) == [out]


def test_nothing_is_left_unless_published(checkpoint: Checkpoint, patch: WeightPatch, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Draft(checkpoint, patch, tmp_path / "out"):
        raise KeyboardInterrupt
    with Draft(checkpoint, patch, tmp_path / "out") as draft:
        assert draft.path.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_appeared_at_its_place_meanwhile_is_not_overwritten(
    checkpoint: Checkpoint, patch: WeightPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with Draft(checkpoint, patch, out) as draft:
        out.mkdir()
        (out / "precious").write_text("x")
        with pytest.raises(UsageError):
            draft.publish({})
    assert (out / "precious").read_text() == "x"
    assert list(tmp_path.iterdir()) == [out]


def test_records_of_an_earlier_repair_are_not_carried_over(
    tiny_checkpoint: Path, patch: WeightPatch, tmp_path: Path
) -> None:
    source = tmp_path / "repaired-before"
    shutil.copytree(tiny_checkpoint, source)
    for name in ("old.json", "new.json"):
        (source / name).write_text("{}")
    with Draft(open_checkpoint(source), patch, tmp_path / "out", drop=("old.json",)) as draft:
        draft.publish({"new.json": b"[]"})
    assert not (tmp_path / "out" / "old.json").exists()
    assert (tmp_path / "out" / "new.json").read_bytes() == b"[]"


def test_an_interrupt_while_a_draft_is_removed_does_not_keep_it(
    checkpoint: Checkpoint, patch: WeightPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = shutil.rmtree, []

    def once(folder: Path, ignore_errors: bool = False) -> None:
        calls.append(folder)
        if len(calls) == 1:
            raise KeyboardInterrupt
        real(folder, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", once)
    with pytest.raises(KeyboardInterrupt), Draft(checkpoint, patch, tmp_path / "out"):
        pass
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["copied", "cleaned"])
def test_an_interrupt_before_the_draft_is_anyones_leaves_nothing(
    checkpoint: Checkpoint, patch: WeightPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    from sau_scan.checkpoint import writer

    synced = writer.sync_folder

    def stop(folder: Path) -> None:
        synced(folder)
        if folder == tmp_path.resolve():  # the copy has its name already
            raise KeyboardInterrupt

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    if when == "copied":
        monkeypatch.setattr(writer, "sync_folder", stop)
    else:
        monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt), Draft(checkpoint, patch, tmp_path / "out", drop=("model_index.json",)):
        raise AssertionError("not reached")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_the_input_of_a_file_has_a_name_that_its_draft_can_have(tiny_checkpoint: Path, tmp_path: Path) -> None:
    safetensors.torch.save_file({"<toy>": torch.ones(1, 32)}, tmp_path / "toy.safetensors")
    long = (tmp_path / "toy.safetensors").rename(tmp_path / f"{'w' * 248}.pt")
    with pytest.raises(WriteError, match=r"w\.safetensors could not be written: File name too long") as caught:
        check_out(long, tmp_path / "out.safetensors")
    assert "shorter" in caught.value.hint and list(tmp_path.iterdir()) == [long]


def test_a_folder_may_have_the_longest_name(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint, out = open_checkpoint(tiny_checkpoint), tmp_path / ("x" * 255)
    check_out(tiny_checkpoint, out)
    with Draft(checkpoint, WeightPatch(), out) as draft:
        draft.publish({})
    assert list(tmp_path.iterdir()) == [out]


def test_the_draft_of_a_file_keeps_the_name_that_may_be_its_word(tiny_checkpoint: Path, tmp_path: Path) -> None:
    safetensors.torch.save_file({"emb_params": torch.ones(1, 32)}, tmp_path / "cat.safetensors")
    checkpoint = open_checkpoint(tmp_path / "cat.safetensors", base=tiny_checkpoint)
    model = load_model(checkpoint)
    with Draft(checkpoint, WeightPatch(), tmp_path / "mended.safetensors") as draft:
        written = open_checkpoint(draft.path, base=checkpoint.base)
        assert read_rows(written, model.family, model.encoders).word == "cat"
        assert named_by_file(written)
        draft.publish({"note.json": b"{}"})
    assert {p.name for p in tmp_path.iterdir()} == {
        "cat.safetensors",
        "mended.safetensors",
        "mended.safetensors.note.json",
    }
