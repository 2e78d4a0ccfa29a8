"""Single files, bare weights and pickles load to the same model as the folder that they were made from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.patch import make_patch
from sau_scan.checkpoint.source import Form
from sau_scan.checkpoint.writer import write_patched
from sau_scan.errors import DamagedFile, NotACheckpoint, UnsafeFile, UsageError
from sau_scan.static import open_vetted
from tests.checkpoint.spoiling import edit_json
from tests.single_files import State, ldm_unet, open_clip, single_file


class Cleared:
    """A watch that finds nothing."""

    def begin(self, relpath: str, size: int, file: BinaryIO) -> Any:
        return self

    def update(self, chunk: memoryview) -> None: ...
    def end(self, sha256: str) -> None: ...
    def clears(self, relpath: str) -> bool:
        return True


def bare(folder: Path, component: str) -> State:
    return safetensors.torch.load_file(next((folder / component).glob("*.safetensors")))


MAKERS: dict[str, tuple[Form, Callable[[Path], State]]] = {
    "single": (Form.SINGLE, single_file),
    "single, OpenCLIP": (Form.SINGLE, lambda folder: single_file(folder, openclip=True)),
    "unet": (Form.DENOISER, lambda folder: bare(folder, "unet")),
    "unet, LDM": (Form.DENOISER, ldm_unet),
    "unet, LDM, prefixed": (
        Form.SINGLE,
        lambda folder: {f"model.diffusion_model.{name}": value for name, value in ldm_unet(folder).items()},
    ),
    "encoder": (Form.TEXT_ENCODER, lambda folder: bare(folder, "text_encoder")),
    "encoder, OpenCLIP": (Form.TEXT_ENCODER, lambda folder: open_clip(bare(folder, "text_encoder"))),
}


def states(model: DiffusionModel) -> dict[str, torch.Tensor]:
    return {f"{c}.{k}": v for c in ("text_encoder", "unet", "vae") for k, v in getattr(model, c).state_dict().items()}


def same(one: DiffusionModel, other: DiffusionModel) -> bool:
    left, right = states(one), states(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def original(tiny_checkpoint: Path) -> DiffusionModel:
    return load_model(open_checkpoint(tiny_checkpoint))


@pytest.mark.parametrize("ending", ["safetensors", "ckpt", "pt"])
@pytest.mark.parametrize("kind", MAKERS)
def test_what_a_file_holds_is_what_the_folder_holds(
    kind: str, ending: str, tiny_checkpoint: Path, original: DiffusionModel, tmp_path: Path
) -> None:
    form, make = MAKERS[kind]
    path = tmp_path / f"file.{ending}"
    if ending == "safetensors":
        safetensors.torch.save_file({k: v.contiguous() for k, v in make(tiny_checkpoint).items()}, path)
    else:
        torch.save({"state_dict": make(tiny_checkpoint), "epoch": 3}, path)
    checkpoint = open_checkpoint(path, base=tiny_checkpoint, watch=Cleared())
    assert checkpoint.form is form
    model = load_model(checkpoint)
    assert same(model, original)
    changed = next(iter(model.disk))
    value = dict(states(model))[_full(model, *changed)] * 2
    out = tmp_path / "repaired.safetensors"
    write_patched(checkpoint, make_patch(checkpoint, {model.disk[changed]: value}), out)
    again = load_model(open_checkpoint(out, base=tiny_checkpoint))
    for name, tensor in states(again).items():
        factor = 2 if name == _full(model, *changed) else 1
        assert torch.equal(tensor, factor * states(original)[name]), name


def _full(model: DiffusionModel, component: str, key: str) -> str:
    names = [name for name in getattr(model, component).state_dict() if name.removeprefix("text_model.") == key]
    return f"{component}.{names[0]}"


def test_every_parameter_can_be_written_back(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Slices, transposed and squeezed tensors: what is read as a view is written as one."""
    path, out = tmp_path / "file.safetensors", tmp_path / "out.safetensors"
    safetensors.torch.save_file(
        {k: v.contiguous() for k, v in single_file(tiny_checkpoint, openclip=True).items()}, path
    )
    checkpoint = open_checkpoint(path, base=tiny_checkpoint)
    model = load_model(checkpoint)
    values = {ref: states(model)[_full(model, *place)] * 3 for place, ref in model.disk.items()}
    write_patched(checkpoint, make_patch(checkpoint, values), out)
    again = load_model(open_checkpoint(out, base=tiny_checkpoint))
    assert all(torch.equal(tensor, 3 * states(model)[name]) for name, tensor in states(again).items())
    left, right = path.read_bytes(), out.read_bytes()
    start = 8 + int.from_bytes(left[:8], "little")
    assert left[:start] == right[:start], "names, types, order and metadata are in the header"


def test_only_what_the_file_holds_has_a_place_to_be_written_to(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    safetensors.torch.save_file(bare(tiny_checkpoint, "unet"), path)
    model = load_model(open_checkpoint(path, base=tiny_checkpoint))
    assert {component for component, _ in model.disk} == {"unet"}


def test_a_pickle_is_not_opened_unexamined(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.ckpt"
    torch.save(single_file(tiny_checkpoint), path)
    with pytest.raises(UnsafeFile, match="not examined"):
        open_checkpoint(path, base=tiny_checkpoint)


def test_inputs_that_need_a_base_and_bases_that_do_not_fit(tiny_checkpoint: Path, tmp_path: Path) -> None:
    unet = tmp_path / "unet.safetensors"
    safetensors.torch.save_file(bare(tiny_checkpoint, "unet"), unet)
    with pytest.raises(UsageError, match="bare UNet"):
        open_checkpoint(unet)
    with pytest.raises(UsageError, match="not a whole checkpoint"):
        open_checkpoint(unet, base=unet)
    with pytest.raises(UsageError, match="whole checkpoint"):
        open_checkpoint(tiny_checkpoint, base=tiny_checkpoint)
    with pytest.raises(NotACheckpoint, match="has no model_index"):
        open_checkpoint(tiny_checkpoint / "unet", base=tiny_checkpoint)
    (tmp_path / "a; b").mkdir()
    shutil.copy(unet, tmp_path / "a; b")
    with pytest.raises(NotACheckpoint) as caught:
        open_checkpoint(tmp_path / "a; b")
    assert f"itself: '{tmp_path}/a; b/unet.safetensors'; an adapter" in caught.value.hint


def test_a_folder_that_only_lacks_its_index_is_downloaded_again(copy_of: Path) -> None:
    (copy_of / "model_index.json").unlink()
    with pytest.raises(NotACheckpoint, match="has no model_index") as caught:
        open_checkpoint(copy_of)
    assert caught.value.hint == "Download the checkpoint again, with all files."


def test_a_part_of_another_size_does_not_fit(tiny_checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({k: v[:1] for k, v in bare(tiny_checkpoint, "unet").items()}, other)
    with pytest.raises(UsageError, match="does not fit"):
        load_model(open_checkpoint(other, base=tiny_checkpoint))


def test_what_is_wrong_with_a_base_is_said_of_the_base(tiny_checkpoint: Path, tmp_path: Path) -> None:
    unet = tmp_path / "unet.safetensors"
    safetensors.torch.save_file(bare(tiny_checkpoint, "unet"), unet)
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text.md").write_text("words")
    shutil.copytree(tiny_checkpoint, tmp_path / "nested/model")
    (tmp_path / "a; b").mkdir()
    shutil.copy(unet, tmp_path / "a; b")
    for name, variant, words, advice in (
        ("nope", None, "nope does not exist", "Check the path"),
        ("empty", None, "empty is empty", "Give the folder"),
        ("pipe", None, "neither a folder nor a regular file", "Name a checkpoint"),
        ("text.md", None, "no file of weights", "Read are"),
        ("nested/model", "fp16", "no weights of the variant 'fp16'", "Leave --variant out."),
        ("nested", None, "it has no model_index.json", f"Did you mean {tmp_path}/nested/model?"),
        ("a; b", None, "it has no model_index.json", "used with"),
        ("unet.safetensors", None, "is not a whole checkpoint", "used with"),
    ):
        with pytest.raises(UsageError, match=f"^--base {tmp_path}/.*{words}") as caught:
            open_vetted(unet, base=tmp_path / name, variant=variant)
        assert caught.value.exit_code == 2 and advice in caught.value.hint


def test_a_base_that_lacks_a_part_is_the_wrong_base(tiny_checkpoint: Path, copy_of: Path, tmp_path: Path) -> None:
    unet, pruned = tmp_path / "unet.safetensors", tmp_path / "pruned.safetensors"
    safetensors.torch.save_file(bare(tiny_checkpoint, "unet"), unet)
    whole = single_file(tiny_checkpoint).items()
    safetensors.torch.save_file({k: v.contiguous() for k, v in whole if not k.startswith("first_stage")}, pruned)
    (copy_of / "vae/diffusion_pytorch_model.safetensors").unlink()
    for base, words, hint in (
        (pruned, f"--base {pruned} holds no vae", "has it: --base BASE"),
        (copy_of, f"--base {copy_of}/vae has no weights", "with all components"),
    ):
        with pytest.raises(UsageError, match=f"^{words}") as caught:
            load_model(open_checkpoint(unet, base=base))
        assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vae": [None, None]}, "has no vae"),
        ({"_class_name": "OtherPipeline"}, "names the pipeline 'OtherPipeline'"),
        ({}, "tokenizer.json is missing"),
    ],
)
def test_a_base_without_settings_is_the_wrong_base(
    change: dict[str, Any], words: str, tiny_checkpoint: Path, copy_of: Path, tmp_path: Path
) -> None:
    unet = tmp_path / "unet.safetensors"
    safetensors.torch.save_file(bare(tiny_checkpoint, "unet"), unet)
    index = json.loads((copy_of / "model_index.json").read_text())
    (copy_of / "model_index.json").write_text(json.dumps({**index, **change}))
    if not change:
        shutil.rmtree(copy_of / "tokenizer")
    with pytest.raises(UsageError, match=f"^--base {copy_of}/.*{words}"):
        load_model(open_checkpoint(unet, base=copy_of))
    with pytest.raises(NotACheckpoint):
        load_model(open_checkpoint(copy_of))


def test_a_damaged_base_is_not_taken_for_the_input(copy_of: Path, tmp_path: Path) -> None:
    unet, cut = tmp_path / "unet.safetensors", tmp_path / "cut.safetensors"
    safetensors.torch.save_file(bare(copy_of, "unet"), unet)
    cut.write_bytes(unet.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match=f"^--base: {cut} ends after"):
        open_checkpoint(unet, base=cut)
    edit_json(copy_of / "vae/config.json", latent_channels=5)
    with pytest.raises(DamagedFile, match=f"^--base: {copy_of}/vae"):
        load_model(open_checkpoint(unet, base=copy_of))


def test_a_single_file_of_another_size_than_the_published_needs_its_base(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    safetensors.torch.save_file({k: v.contiguous() for k, v in single_file(tiny_checkpoint).items()}, path)
    checkpoint = open_checkpoint(path)
    assert checkpoint.index["_class_name"] == "StableDiffusionPipeline" and checkpoint.base is None
    with pytest.raises(DamagedFile, match="does not fit"):
        load_model(checkpoint)


def test_a_single_file_without_its_vae_is_none_by_itself(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "pruned.safetensors"
    left = {k: v.contiguous() for k, v in single_file(tiny_checkpoint).items() if not k.startswith("first_stage")}
    safetensors.torch.save_file(left, path)
    with pytest.raises(NotACheckpoint, match="holds no vae"):
        load_model(open_checkpoint(path))
    assert load_model(open_checkpoint(path, base=tiny_checkpoint)).vae is not None


@pytest.mark.parametrize("name", ["notes.txt", "model.gguf", "weights.safetensors"])
def test_files_of_something_else(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(safetensors.torch.save({f"layer.{i}": torch.zeros(2, 2, 2) for i in range(3)}))
    with pytest.raises(NotACheckpoint):
        open_checkpoint(path)
