"""LoRA files that are something else, are damaged, or belong to another base: an error says which."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint.adapters.lora import delta, parse, uneven
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.errors import DamagedFile, NotACheckpoint, UsageError
from tests.checkpoint.adapters.samples import LINEAR, kohya_name, make, peft_name, read, shapes_of, weights
from tests.conftest import tiny_pipeline


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        ({"unet.conv_in.lora_A.weight": (2, 4, 3, 3)}, DamagedFile, "no factor 'up'"),
        ({"lora_unet_conv_in.hada_w1_a": (4, 4)}, NotACheckpoint, "is a LoHa"),
        ({"lora_unet_conv_in.lokr_w1": (4, 4)}, NotACheckpoint, "is a LoKr"),
        ({"lora_unet_conv_in.dora_scale": (4, 4)}, NotACheckpoint, "is a DoRA"),
        ({"something": (4, 4)}, NotACheckpoint, "no LoRA that is known.*'something'"),
        ({}, NotACheckpoint, "no tensors"),
        ({"lora_te2_.lora_down.weight": (1, 2), "lora_te2_.lora_up.weight": (2, 1)}, UsageError, "XL, while --base is"),
        ({"unet.x.lora_A.weight": (1, 2), "unet.x.lora_B.weight": (2, 1)}, UsageError, "'unet.x'.*does not have"),
        ({"unet.conv_in.lora_A.weight": (1, 2), "unet.conv_in.lora_B.weight": (2, 1)}, UsageError, "does not fit"),
        ({"unet.conv_in.lora_A.weight": (), "unet.conv_in.lora_B.weight": (2, 1)}, DamagedFile, "impossible"),
        ({"unet.conv_in.lora_A.weight": (1, 2), "unet.conv_in.lora_down.weight": (2, 1)}, DamagedFile, "say the same"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_placed(names: dict[str, tuple[int, ...]], error: type[Exception], words: str) -> None:
    base = shapes_of(weights(tiny_pipeline()))
    with pytest.raises(error, match=words) as caught:
        parse(names, base, where="x.safetensors", base="Stable Diffusion 1.x")
    assert caught.value.hint  # type: ignore[attr-defined]


def test_the_same_parameter_by_two_names() -> None:
    base = weights(tiny_pipeline())
    both = make(base, LINEAR[:1], peft_name) | make(base, LINEAR[:1], kohya_name)
    with pytest.raises(DamagedFile, match="twice"):
        read(both, base)


@pytest.mark.parametrize(("width", "family"), [(768, "1.x"), (1024, "2.x"), (2048, "XL")])
def test_the_width_of_texts_tells_the_family(width: int, family: str) -> None:
    module = LINEAR[0][1]
    names = {f"unet.{module}.lora_A.weight": (4, width), f"unet.{module}.lora_B.weight": (320, 4)}
    with pytest.raises(UsageError, match=f"LoRA for Stable Diffusion {family}, while --base is a toy"):
        parse(names, shapes_of(weights(tiny_pipeline())), where="x", base="a toy")


def test_values_that_are_not_numbers() -> None:
    base = weights(tiny_pipeline())
    tensors = make(base, LINEAR[:1], kohya_name, alpha=float("inf"))
    (pair,) = read(tensors, base).pairs.values()
    with pytest.raises(DamagedFile, match="not numbers"):
        delta(pair, tensors)


def test_alphas_that_programs_merge_differently() -> None:
    base = weights(tiny_pipeline())
    tensors = make(base, LINEAR, kohya_name, alpha=2.0)
    assert uneven(read(tensors, base), tensors) is None
    names = [name for name in tensors if name.endswith(".alpha")]
    tensors[names[0]] = torch.tensor(6.0)
    lora = read(tensors, base)
    other = uneven(lora, tensors)
    assert other is not None and other.planned
    assert "(2 to 6)" in other.reason and "scan the merged checkpoint" in other.reason
    first = next(iter(lora.pairs.values()))
    assert torch.allclose(delta(first, tensors), tensors[first.up] @ tensors[first.down] * 2)
    del tensors[names[0]]
    lora = read(tensors, base)
    assert "2 or none" in str(uneven(lora, tensors))
    first = next(iter(lora.pairs.values()))
    assert torch.allclose(delta(first, tensors), tensors[first.up] @ tensors[first.down])


def test_other_kinds_are_refused_before_a_base_is_asked_for(tmp_path: Path) -> None:
    for name, kind in (("lora_unet_x.hada_w1_a", "LoHa"), ("lora_unet_x.lokr_w1", "LoKr"), ("x.dora_scale", "DoRA")):
        safetensors.torch.save_file({name: torch.ones(2, 2)}, tmp_path / "a.safetensors")
        with pytest.raises(NotACheckpoint, match=f"is a {kind}, which cannot be merged here"):
            open_checkpoint(tmp_path / "a.safetensors")
