"""What PEFT writes: settings beside the tensors, which say how strong they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint.adapters.applying import lora_content
from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.source import Form
from sau_scan.checkpoint.writer import check_out
from sau_scan.errors import DamagedFile, NotACheckpoint, UsageError
from sau_scan.findings import Finding
from sau_scan.options import Budget, ScanOptions
from sau_scan.scan import detect
from sau_scan.static import open_vetted
from tests.checkpoint.adapters.samples import LINEAR, kohya_name, make, peft_name, weights
from tests.conftest import tiny_pipeline

UNET = LINEAR[:3]
KEY = UNET[0][1] + ".weight"


def peft(
    folder: Path, *, name: str = "adapter_model.safetensors", own: dict[str, str] | None = None, **settings: Any
) -> Path:
    """A folder as PEFT writes it, of rank 3. ``own``: metadata of the file itself."""
    folder.mkdir(exist_ok=True)
    tensors = make(weights(tiny_pipeline()), UNET, peft_name)
    named = {f"base_model.model.{key.removeprefix('unet.')}": tensor for key, tensor in tensors.items()}
    if name.endswith(".bin"):
        torch.save(named, folder / name)
    else:
        safetensors.torch.save_file(named, folder / name, metadata={"format": "pt", **(own or {})})
    config = {"peft_type": "LORA", "r": 3, "target_modules": ["to_k"], **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def loaded(path: Path, base: Path) -> DiffusionModel:
    return load_model(open_vetted(path, base=base)[0])


def change(model: DiffusionModel, base: Path) -> torch.Tensor:
    return model.unet.state_dict()[KEY] - load_model(open_vetted(base)[0]).unet.state_dict()[KEY]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
@pytest.mark.parametrize("folder", [True, False])
def test_the_settings_beside_are_read(folder: bool, name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = peft(tmp_path / "lora", name=name, lora_alpha=12)
    model = loaded(path if folder else path / name, tiny_checkpoint)
    assert model.checkpoint.form is Form.LORA and model.checkpoint.root == path / name
    record = model.checkpoint.record("adapter_config.json")
    assert record is not None
    assert record.sha256 == hashlib.sha256((path / "adapter_config.json").read_bytes()).hexdigest()
    (path / "adapter_config.json").unlink()
    alone = change(loaded(path / name, tiny_checkpoint), tiny_checkpoint)
    assert torch.allclose(change(model, tiny_checkpoint), 4 * alone, atol=1e-5) and alone.abs().max() > 0.01
    assert "4 or 1" in str(model.uneven)


def test_settings_that_make_it_weaker_for_some_are_not_taken(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = loaded(peft(tmp_path / "lora", lora_alpha=1.5), tiny_checkpoint)
    assert change(model, tiny_checkpoint).abs().max() > 0.01
    assert "1 or 0.5" in str(model.uneven)


TIMES = {UNET[0][1]: 6, UNET[1][1]: 1.5}


@pytest.mark.parametrize(
    "settings",
    [{"lora_alpha": -3.03}, {"lora_alpha": 3e6}, {"lora_alpha": 1e-6}, {"lora_alpha": 0}, {"alpha_pattern": TIMES}],
)
def test_readings_that_one_scan_cannot_cover_are_refused(
    settings: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotACheckpoint, match="no scan of one"):
        loaded(peft(tmp_path / "lora", **settings), tiny_checkpoint)


@pytest.mark.parametrize(("alpha", "told"), [(12, "4 or 1"), (1.5, "1 or 0.5")])
def test_another_way_to_merge_makes_the_scan_incomplete(
    alpha: float, told: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """A backdoor that acts at one strength need not act at another."""
    options = ScanOptions(base=tiny_checkpoint, budget=Budget.QUICK, max_time=20)
    result = detect(peft(tmp_path / "lora", lora_alpha=alpha), options)
    left = next(s for s in result.coverage.skipped if s.what == "other ways to merge the LoRA")
    assert told in left.reason and left.planned and not result.complete
    assert "alone in a folder of its own" in left.reason and "merged into its base by the tool" in left.reason
    assert {record.path for record in result.model.files} == {"adapter_model.safetensors", "adapter_config.json"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes its base"),
        ({"peft_type": "LOHA"}, "'LOHA'"),
    ],
)
def test_what_is_no_plain_lora_is_said_to_be_unsupported(
    settings: dict[str, Any], words: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotACheckpoint, match=words):
        loaded(peft(tmp_path / "lora", **settings), tiny_checkpoint)


def test_settings_are_vetted_as_other_json(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = peft(tmp_path / "lora", auto_map={"x": "evil.py"})
    for given in (path, path / "adapter_model.safetensors"):
        notes = open_vetted(given, base=tiny_checkpoint)[1]
        assert "file/config-code" in [note.id for note in notes if isinstance(note, Finding)]
    (path / "adapter_config.json").write_text("[]")
    with pytest.raises(DamagedFile, match="JSON object"):
        loaded(path, tiny_checkpoint)


def test_a_folder_needs_its_base_and_others_have_no_settings(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = peft(tmp_path / "lora", use_dora=True)
    with pytest.raises(UsageError, match="LoRA"):
        open_vetted(path)
    kohya = make(weights(tiny_pipeline()), UNET, kohya_name, alpha=1.5)
    safetensors.torch.save_file(kohya, path / "other.safetensors")
    assert loaded(path / "other.safetensors", tiny_checkpoint).uneven is None


def test_settings_of_another_file_are_not_taken(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = peft(tmp_path / "lora", lora_alpha=12) / "adapter_model.safetensors"
    mine = path.with_name("mine.safetensors")
    mine.write_bytes(path.read_bytes())
    for file, records in ((mine, 1), (path, 2)):
        assert len(open_vetted(file, base=tiny_checkpoint)[0].records) == records


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_nothing_is_written_into_the_folder(name: str, tmp_path: Path) -> None:
    """Beside the pickle, a safetensors file of PEFT's name would be taken instead of it."""
    path = peft(tmp_path / "lora", name=name)
    with pytest.raises(UsageError, match="inside the other"):
        check_out(path, path / "new.safetensors")
    with pytest.raises(UsageError, match="not the name of a safetensors file"):
        check_out(path, tmp_path / "mended")
    check_out(path, tmp_path / "mended.safetensors")
    (tmp_path / "mended.safetensors.note.json").touch()
    with pytest.raises(UsageError, match="there already"):
        check_out(path, tmp_path / "mended.safetensors", ("note.json",))


@pytest.mark.parametrize("other", ["pytorch_lora_weights.safetensors", "adapter_model.bin", "last/optimizer.pt"])
def test_a_folder_with_other_weights_is_not_scanned_as_one_file(
    other: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """diffusers prefers its own name to PEFT's, and nobody would have looked at that file."""
    path = peft(tmp_path / "a; b")
    (path / other).parent.mkdir(exist_ok=True)
    (path / other).symlink_to("/dev/null")
    with pytest.raises(UsageError, match=other) as caught:
        open_vetted(path, base=tiny_checkpoint)
    assert f"'{path}/adapter_model.safetensors' --base BASE" in caught.value.hint
    assert open_vetted(path / "adapter_model.safetensors", base=tiny_checkpoint)[0].form is Form.LORA


@pytest.mark.parametrize(("beside", "within"), [(12, None), (3, 12), (12, 6)])
def test_a_repaired_file_is_as_strong_alone(
    beside: int, within: int | None, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Whichever of the two readings is the stronger, and what else the file says of itself stays."""
    own = {"author": "me"}
    if within is not None:
        own["lora_adapter_metadata"] = json.dumps({"unet.r": 3, "unet.lora_alpha": within})
    model = loaded(peft(tmp_path / "lora", own=own, lora_alpha=beside), tiny_checkpoint)
    wanted = model.unet.state_dict()[KEY] - change(model, tiny_checkpoint) / 2
    content = lora_content(model.checkpoint, model.family, {model.disk["unet", KEY]: wanted})
    (tmp_path / "mended.safetensors").write_bytes(content)
    again = loaded(tmp_path / "mended.safetensors", tiny_checkpoint)
    assert torch.allclose(again.unet.state_dict()[KEY], wanted, atol=1e-5) and again.uneven is None
    other = UNET[1][1] + ".weight"
    assert torch.allclose(again.unet.state_dict()[other], model.unet.state_dict()[other], atol=1e-5)
    with safetensors.safe_open(tmp_path / "mended.safetensors", "pt") as file:
        assert file.metadata()["author"] == "me"


def test_settings_without_weights_are_told(tmp_path: Path) -> None:
    path = peft(tmp_path / "lora")
    (path / "adapter_model.safetensors").unlink()
    with pytest.raises(NotACheckpoint, match=r"adapter_model\.safetensors is missing") as caught:
        open_vetted(path)
    assert "its weights" in caught.value.hint


def test_an_unknown_adapter_is_called_what_its_settings_call_it(tmp_path: Path) -> None:
    path = peft(tmp_path / "lora", peft_type="LOHA\x1b")
    safetensors.torch.save_file({"x": torch.zeros(2, 2)}, path / "adapter_model.safetensors")
    with pytest.raises(NotACheckpoint, match=r"holds x|'x'") as caught:
        open_vetted(path)
    assert r"adapter_config.json calls it 'LOHA\x1b'" in str(caught.value)
