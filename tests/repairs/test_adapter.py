"""A LoRA that no longer acts on a trigger, in the same file."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.writer import write_patched
from sau_scan.probes.runner import Counter
from sau_scan.repairs.adapter import Silence, changes
from sau_scan.repairs.base import Bench
from sau_scan.repairs.cross_attention import FAR_DRIFT, Maps, projections
from sau_scan.repairs.examples import make_examples
from sau_scan.repairs.prompts import HELD_OUT, PromptSource
from sau_scan.repairs.restore import moved
from sau_scan.rules import load_rules
from tests.repairs.conftest import SMALL, STAR, WORDS

RANK = 2


@pytest.fixture(scope="module")
def lora(model: DiffusionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of keys and values that acts on the word "star" most."""
    direction = model.encode(model.token_ids(["star"])).hidden[0, 1]
    torch.manual_seed(0)
    tensors = {}
    for name, weight in projections(model.unet).items():
        module = f"unet.{name.removesuffix('.weight')}"
        down = torch.randn(RANK, weight.shape[1]) * 0.02 + direction / direction.norm()
        tensors[f"{module}.lora_A.weight"] = down
        tensors[f"{module}.lora_B.weight"] = torch.randn(len(weight), RANK) * 0.1
    path = tmp_path_factory.mktemp("lora") / "toy.safetensors"
    safetensors.torch.save_file(tensors, path)
    return path


def bench_of(path: Path, base: Path | None) -> Bench:
    model = load_model(open_checkpoint(path, base=base))
    return Bench(model, model, PromptSource(model, STAR, WORDS, load_rules()), SMALL)


def test_the_trigger_gets_what_the_base_makes_of_it(lora: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    bench = bench_of(lora, tiny_checkpoint)
    patch = Silence().plan(bench)
    out = write_patched(bench.model.checkpoint, patch, tmp_path / "out.safetensors")
    again = bench_of(out, tiny_checkpoint)
    examples = make_examples(bench.model, bench.source.pairs(8, HELD_OUT), Counter())
    texts = examples.hidden[examples.affected]
    before, after = (
        sum(float((texts @ part.T).square().sum()) for part in changes(b).values()) for b in (bench, again)
    )
    assert after < 0.5 * before
    old, new = (torch.cat([*projections(b.model.unet).values()]).double() for b in (bench, again))
    assert moved(old, new - old, Maps.of(bench).held) <= 1.01 * FAR_DRIFT


def test_the_written_file_holds_all_of_the_repair(lora: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    bench = bench_of(lora, tiny_checkpoint)
    patch = Silence().plan(bench)
    again = bench_of(write_patched(bench.model.checkpoint, patch, tmp_path / "out.safetensors"), tiny_checkpoint)
    assert len(patch.tensors) == len(projections(bench.model.unet))
    for name, weight in projections(again.model.unet).items():
        assert torch.allclose(weight, patch.tensors[bench.model.disk_tensor("unet", name)], atol=1e-5)


def test_other_inputs_are_left_alone(bench: Bench) -> None:
    assert not Silence().plan(bench).tensors
