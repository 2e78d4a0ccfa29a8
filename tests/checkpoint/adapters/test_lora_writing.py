"""A repaired LoRA is the best of its rank, in the same file."""

from __future__ import annotations

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sau_scan.checkpoint.adapters.lora import delta, uneven
from sau_scan.checkpoint.adapters.lora_writing import refit, with_one_alpha
from sau_scan.checkpoint.adapters.rewriting import rewrite
from sau_scan.errors import DamagedFile, WriteError
from tests.checkpoint.adapters.samples import (
    CONVOLUTIONS,
    LAYOUTS,
    LINEAR,
    fused,
    kohya_name,
    make,
    peft_name,
    read,
    weights,
)
from tests.conftest import tiny_pipeline

BASE = weights(tiny_pipeline())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_repair_that_fits_the_rank_is_kept_whole(layout: str) -> None:
    naming, modules, alpha = LAYOUTS[layout]
    tensors = make(BASE, modules, naming, alpha=alpha)
    other = make(BASE, modules, naming, alpha=alpha, rank=3)
    lora = read(tensors, BASE)
    goal = {n: torch.flip(t, (0,)) if t.ndim else t for n, t in other.items()}
    wanted = {place: BASE[place] + delta(pair, goal) for place, pair in lora.pairs.items()}
    done = refit(lora, tensors, BASE, wanted)
    assert done.share > 0.9999 and not done.drop and done.kept.keys() == wanted.keys()
    assert all(done.tensors[name].shape == tensors[name].shape for name in done.tensors)
    for place, pair in lora.pairs.items():
        assert torch.allclose(BASE[place] + delta(pair, tensors | done.tensors), wanted[place], atol=1e-5), place


@pytest.mark.parametrize("module", [LINEAR[0], CONVOLUTIONS[0]])
def test_no_factors_of_the_rank_come_closer(module: tuple[str, str]) -> None:
    """Eckart and Young: what is left of a full-rank goal are its smaller singular values."""
    tensors = make(BASE, [module], kohya_name, alpha=1.5)
    lora = read(tensors, BASE)
    ((place, pair),) = lora.pairs.items()
    goal = torch.randn(BASE[place].shape, generator=torch.Generator().manual_seed(1))
    done = refit(lora, tensors, BASE, {place: BASE[place] + goal})
    left = float((goal - delta(pair, tensors | done.tensors)).square().sum())
    values = torch.linalg.svdvals(goal.flatten(1))
    assert left == pytest.approx(float(values[pair.rank :].square().sum()), rel=1e-4)
    repair = (goal - delta(pair, tensors)).square().sum()
    assert done.share == done.kept[place] == pytest.approx(1 - float(left / repair), rel=1e-3)
    assert "rank 3 hold only" in done.drop


def test_three_factors_recover_what_three_factors_made() -> None:
    stem, shape = kohya_name(CONVOLUTIONS[0])[0].removesuffix(".lora_down.weight"), (32, 32, 3, 3)

    def three(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        sizes = {"down": (2, shape[1], 1, 1), "mid": (2, 2, 3, 3), "up": (shape[0], 2, 1, 1)}
        return {f"{stem}.lora_{part}.weight": torch.randn(size) for part, size in sizes.items()}

    tensors = three(0)
    lora = read(tensors, BASE)
    ((place, pair),) = lora.pairs.items()
    done = refit(lora, tensors, BASE, {place: BASE[place] + delta(pair, three(1))})
    assert done.share > 0.9999


def test_what_the_file_does_not_reach_counts_as_lost() -> None:
    tensors = make(BASE, LINEAR[:1], peft_name)
    lora = read(tensors, BASE)
    outside = ("unet", "conv_in.weight")
    done = refit(lora, tensors, BASE, {outside: BASE[outside] + 1})
    assert done.tensors == {} and done.kept == {outside: 0.0} and "needs unet/conv_in.weight" in done.drop
    ((place, pair),) = lora.pairs.items()
    unchanged = BASE[place] + delta(pair, tensors)
    assert refit(lora, tensors, BASE, {}).share == 1.0
    both = refit(lora, tensors, BASE, {place: unchanged * 2 - BASE[place], outside: BASE[outside] + 1e-3})
    assert 0.9 < both.share < 1 and not both.drop


@pytest.mark.parametrize("alpha", [0.0, 1e-7])
def test_an_alpha_that_silences_whatever_half_precision_holds(alpha: float) -> None:
    tensors = make(BASE, LINEAR[:1], kohya_name, alpha=alpha, dtype=torch.float16)
    lora = read(tensors, BASE)
    ((place, _),) = lora.pairs.items()
    done = refit(lora, tensors, BASE, {place: BASE[place] + 1e3})
    assert done.share == 0.0 and done.drop


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_file_stays_as_it_was_but_for_the_factors(dtype: torch.dtype) -> None:
    tensors = make(BASE, LINEAR, kohya_name, alpha=2.0, dtype=dtype)
    old = safetensors.torch.save(tensors, metadata={"ss_tag_frequency": "kept"})
    lora = read(tensors, BASE)
    place = next(iter(lora.pairs))
    done = refit(lora, tensors, BASE, {place: BASE[place].clone()})
    new = rewrite(old, done.tensors, "x")
    start = 8 + int.from_bytes(old[:8], "little")
    assert len(new) == len(old) and new[:start] == old[:start]
    back = safetensors.torch.load(new)
    assert {n for n in tensors if not torch.equal(back[n], tensors[n])} == set(lora.pairs[place].factors)
    assert delta(lora.pairs[place], back).abs().max() < 1e-6, "the base's own weights were wanted"


def test_rewriting_refuses_what_does_not_belong() -> None:
    data = safetensors.torch.save({"a": torch.ones(2, dtype=torch.float16)})
    for wrong in ({"b": torch.ones(2)}, {"a": torch.ones(3)}):
        with pytest.raises(DamagedFile, match="no tensor"):
            rewrite(data, wrong, "x")
    with pytest.raises(WriteError, match="float16"):
        rewrite(data, {"a": torch.full((2,), 1e6)}, "x")


def test_diffusers_makes_of_the_written_file_what_the_repair_wants() -> None:
    tensors = make(BASE, LINEAR, kohya_name, alpha=2.0)
    lora = read(tensors, BASE)
    place = next(iter(lora.pairs))
    wanted = BASE[place] + 0.25 * delta(lora.pairs[place], tensors)
    written = rewrite(safetensors.torch.save(tensors), refit(lora, tensors, BASE, {place: wanted}).tensors, "x")
    after = fused(tiny_pipeline(), safetensors.torch.load(written))
    assert torch.allclose(after[place], wanted, atol=1e-5)
    before = fused(tiny_pipeline(), tensors)
    assert all(torch.equal(after[other], before[other]) for other in before if other != place)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_is_written_has_one_alpha_and_does_the_same(dtype: torch.dtype) -> None:
    """diffusers mixes up several; a repaired file that programs read differently could not be verified."""
    tensors = {name: t.to(dtype) for name, t in make(BASE, LINEAR, kohya_name, alpha=2.0).items()}
    first, second, *_ = (name for name in tensors if name.endswith(".alpha"))
    assert not with_one_alpha(read(tensors, BASE), tensors)
    tensors[first] = torch.tensor(6.0, dtype=dtype)
    del tensors[second]
    lora = read(tensors, BASE)
    new = with_one_alpha(lora, tensors)
    assert len(new) == 4 and {first, second} <= new.keys()
    written = tensors | new
    again = read(written, BASE)
    assert uneven(lora, tensors) is not None and uneven(again, written) is None
    for place, pair in lora.pairs.items():
        assert torch.allclose(delta(again.pairs[place], written), delta(pair, tensors), rtol=2e-3, atol=1e-4)
    assert not with_one_alpha(again, written)
