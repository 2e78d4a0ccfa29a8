"""What a file holds twice is refused, and what no component takes is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint.components import Disk, load_component
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.strays import UNKNOWN, strays
from sau_scan.errors import DamagedFile
from tests.single_files import State, ldm_unet, open_clip, single_file

UNET = "model.diffusion_model."
EXTRA = torch.zeros(3)


def bare(folder: Path, component: str) -> State:
    return safetensors.torch.load_file(next((folder / component).glob("*.safetensors")))


def saved(folder: Path, state: State) -> Path:
    path = folder / "file.safetensors"
    safetensors.torch.save_file({name: value.clone().contiguous() for name, value in state.items()}, path)
    return path


def renamed(state: State, old: str, new: str) -> State:
    return {name.replace(old, new, 1): value + 1 for name, value in state.items() if old in name}


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value + 1 for name, value in state.items()}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("component", "form"),
    [
        ("unet", "bare"),
        ("unet", "ldm"),
        ("unet", "layouts"),
        ("unet", "single"),
        ("unet", "blocks"),
        ("text_encoder", "bare"),
        ("text_encoder", "layouts"),
        ("text_encoder", "single"),
        ("vae", "single"),
    ],
)
def test_a_component_that_is_there_twice(
    component: str, form: str, first: bool, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Whichever of the two stands first: what would be scanned may not be what another program loads."""
    state = bare(tiny_checkpoint, component) if form in ("bare", "layouts") else single_file(tiny_checkpoint)
    if component == "text_encoder" and form != "single":
        plain = {name.removeprefix("text_model."): value for name, value in state.items()}
        other = prefixed(plain, "text_model.") if form == "bare" else open_clip(plain)
        state = plain
    elif component == "text_encoder":
        other = renamed(state, "cond_stage_model.", "conditioner.embedders.0.")
    elif component == "vae":
        other = renamed(state, "first_stage_model.", "vae.")
    elif form == "bare":
        other = prefixed(state, "unet.")
    elif form == "ldm":
        state = ldm_unet(tiny_checkpoint)
        other = prefixed(state, "unet.")
    elif form == "layouts":
        other = ldm_unet(tiny_checkpoint)
    elif form == "single":
        other = renamed(state, UNET, UNET + UNET)
    else:
        other = renamed(state, "in_layers.2", "conv1")
    both = {**other, **state} if first else {**state, **other}
    checkpoint = open_checkpoint(saved(tmp_path, both), base=tiny_checkpoint)
    with pytest.raises(DamagedFile, match=f"holds the {component} twice"):
        load_component(checkpoint, component, {})


def test_what_no_component_takes_is_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    state = single_file(tiny_checkpoint)
    known = {
        "model_ema.decay": EXTRA,
        "sqrt_one_minus_alphas_cumprod": EXTRA,
        "log_one_minus_alphas_cumprod": EXTRA,
        "betas": EXTRA,
        "cond_stage_model.logit_scale": EXTRA,
        "cond_stage_model.transformer.text_model.embeddings.position_ids": EXTRA,
    }
    hidden = {"whatever.payload": EXTRA, UNET + "more": EXTRA, "xbetas": EXTRA, "model_ema\x1b": EXTRA}
    disk: Disk = {}
    checkpoint = open_checkpoint(saved(tmp_path, state | known | hidden), base=tiny_checkpoint)
    for component in ("unet", "vae", "text_encoder"):
        load_component(checkpoint, component, disk)
    told = {skip.reason: skip.what for skip in strays(checkpoint, disk.values())}
    assert told[UNKNOWN].startswith("4 tensors") and "\x1b" not in str(told)
    assert sum(int(what.split()[0]) for what in told.values()) == len(known) + len(hidden)
    assert len(told) == 5


def test_a_file_of_nothing_else_has_nothing_to_tell(tiny_checkpoint: Path, tmp_path: Path) -> None:
    disk: Disk = {}
    checkpoint = open_checkpoint(saved(tmp_path, bare(tiny_checkpoint, "unet")), base=tiny_checkpoint)
    load_component(checkpoint, "unet", disk)
    assert not strays(checkpoint, disk.values())
    whole = open_checkpoint(tiny_checkpoint)
    assert not strays(whole, ())
