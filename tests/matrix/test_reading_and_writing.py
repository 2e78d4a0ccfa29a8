"""Every form of every family loads to the numbers that were put into it, and what is changed is written back in kind.

Random weights: what is asked here is where numbers come from and go to. What scans and repairs make of trained models
in each form is asked by ``test_detect_and_fix``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.patch import make_patch
from sau_scan.checkpoint.writer import write_patched
from sau_scan.findings import Finding
from sau_scan.static import blocks, open_vetted
from tests.conftest import tiny_pipeline
from tests.matrix.inputs import FORMATS, Format, named
from tests.tiny_models import tiny_of

FAMILIES = ("sd1", "sd2", "sdxl")
TITLES = {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "Stable Diffusion XL"}
CELLS = [(family, form) for form in FORMATS for family in FAMILIES if family in form.families]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Family -> a checkpoint, and its base, which differs in all weights of the denoiser and text encoder."""
    made = {}
    for family in FAMILIES:
        root = tmp_path_factory.mktemp(family)
        for name, seed in (("model", 1), ("base", 0)):
            pipeline = tiny_pipeline(seed) if family == "sd1" else tiny_of(family, seed)
            pipeline.save_pretrained(root / name)
        made[family] = (root / "model", root / "base")
    return made


def opened(path: Path, base: Path | None, variant: str | None = None) -> DiffusionModel:
    checkpoint, notes = open_vetted(path, base=base, variant=variant)
    assert not [note for note in notes if isinstance(note, Finding) and blocks(note)]
    return load_model(checkpoint)


def states(model: DiffusionModel) -> dict[str, dict[str, torch.Tensor]]:
    modules = {**model.encoders, "unet": model.unet, "vae": model.vae}
    return {component: named(dict(module.state_dict())) for component, module in modules.items()}


@pytest.mark.parametrize(("family", "form"), CELLS, ids=[f"{family}-{form.id}" for family, form in CELLS])
def test_in_and_out(family: str, form: Format, pairs: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    folder, base = pairs[family]
    given = form.make(folder, base, tmp_path)
    model = opened(given.path, given.base, given.variant)
    assert model.family.title == TITLES[family]
    _require_numbers(model, form, folder, base)
    out = tmp_path / ("out" if given.path.is_dir() else "out.safetensors")
    changed = _write(model, states(load_model_of(base)), out)
    again = opened(out, given.base, given.variant)
    assert changed.keys() <= again.disk.keys()
    for place, wanted in changed.items():
        found = again.stored(*place).float()
        spread = float((found - wanted).norm() / wanted.norm())
        assert spread < (0.02 if form.id == "folder-int8" else 1e-2 if not form.exact else 1e-6), place
    others = [p for p in again.disk if p not in changed][:20]
    assert all(torch.equal(again.stored(*place), model.stored(*place)) for place in others)


def _require_numbers(model: DiffusionModel, form: Format, folder: Path, base: Path) -> None:
    """Components that the input holds are the folder's, the others the base's."""
    ours, theirs, mine = states(load_model_of(folder)), states(load_model_of(base)), states(model)
    for component, state in mine.items():
        whole = ours if component in form.holds else theirs
        for name, value in state.items():
            expected = whole[component][name]
            if form.id.startswith("lora") and name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
                expected = ours[component][name]
                nearer = (value - expected).norm() < 0.9 * (theirs[component][name] - expected).norm()
                assert nearer, "the LoRA's rank holds a part of the difference"
            elif form.exact or component not in form.holds:
                assert torch.equal(value, expected), f"{component} {name}"
            else:
                assert torch.allclose(value, expected, atol=0.02, rtol=0.02), f"{component} {name}"


def load_model_of(folder: Path) -> DiffusionModel:
    return opened(folder, None)


def _write(
    model: DiffusionModel, base: dict[str, dict[str, torch.Tensor]], out: Path
) -> dict[tuple[str, str], torch.Tensor]:
    """Writes a copy with a few parameters changed, of every component that the input holds: halfway to the base.

    So a LoRA can hold it, too, and every type's range.
    """
    changed: dict[tuple[str, str], torch.Tensor] = {}
    for component in {component for component, _ in model.disk}:
        places = sorted(place for place in model.disk if place[0] == component and place[1].endswith(".weight"))
        for place in places[:: max(1, len(places) // 4)]:
            changed[place] = (model.stored(*place).detach().float() + base[component][place[1]].float()) / 2
    values = {model.disk[place]: value for place, value in changed.items()}
    write_patched(model.checkpoint, make_patch(model.checkpoint, values), out)
    return changed
