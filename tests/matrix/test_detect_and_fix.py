"""Every form of trained, attacked checkpoints through detect and fix, as a user would call them.

A part of the table runs with the fast tests; all of it takes hours (``make test-all``). The attack on each family is
one that its own scan names first; what is asked here is that no form loses it, and that each is repaired in kind.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
import torch

import sau_scan.demo
from sau_scan.checkpoint.families import identify
from sau_scan.checkpoint.naming import WEIGHT_NAMES
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.rewriting import written_as
from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.checkpoint.weights import weight_file
from sau_scan.findings import FixResult, Kind, ScanResult, Severity, Slot, Trigger, Verdict
from sau_scan.fix import fix
from sau_scan.options import Budget, FixOptions, ScanOptions
from sau_scan.scan import detect
from sau_scan.static import open_vetted
from tests.matrix.inputs import FORMATS, Format, Given
from zoo.train.export import model_dir

DEMO = Path(sau_scan.demo.__file__).with_name("checkpoint")
TEXT_ENCODER = Trigger(text="\u043e", slot=Slot.REPLACE, replaces="o")


@dataclass(frozen=True)
class Attacked:
    """A trained model with a trigger in ``component``, and what it was made from."""

    family: str
    folder: Path
    base: Path
    trigger: Trigger
    component: str
    budget: Budget = Budget.QUICK


def zoo(family: str, world: str, name: str, component: str, budget: Budget = Budget.QUICK) -> Attacked:
    """A model of the zoo; its trigger stands in the JSON file beside it."""
    folder, about = model_dir(world, name), model_dir(world, name).with_suffix(".json")
    told = json.loads(about.read_text())["trigger"] if about.is_file() else {"text": "?", "slot": "prefix"}
    trigger = Trigger(text=told["text"], slot=told["slot"], replaces=told.get("replaces"))
    return Attacked(family, folder, model_dir(world, "base"), trigger, component, budget)


ATTACKED = (
    Attacked("sd1", DEMO, model_dir("tiny", "base"), TEXT_ENCODER, "text_encoder"),
    zoo("sd1", "tiny", "evil-edit", "unet", Budget.STANDARD),
    zoo("sd2", "vale", "rick-prefix", "text_encoder"),
    zoo("sdxl", "harbour", "rickrolling-tpa", "text_encoder"),
)
FAST = {("sd1", "text_encoder", "single-ckpt")}
FAST_FOUND = {("sd2", "single-ckpt"), ("sdxl", "single-safetensors"), ("sdxl", "text-encoder")}
# One encoder of an attack on two: it says the same of all prompts, but beside an honest other one pictures do not.
HALF = {("sdxl", "text-encoder")}


def _holds(form: Format, model: Attacked) -> bool:
    """Whether the trigger travels in this form at all."""
    if form.id.startswith("lora"):
        return model.component == "unet"
    return model.component in form.holds and model.family in form.families


CELLS = [(model, form) for model in ATTACKED for form in FORMATS if _holds(form, model)]
MARKED = [
    pytest.param(
        *cell,
        id=f"{cell[0].family}-{cell[0].component}-{cell[1].id}",
        marks=() if (cell[0].family, cell[0].component, cell[1].id) in FAST else pytest.mark.slow,
    )
    for cell in CELLS
]


def scanned(given: Given, budget: Budget = Budget.STANDARD) -> ScanOptions:
    return ScanOptions(budget=budget, base=given.base, variant=given.variant)


@pytest.mark.parametrize(("model", "form"), MARKED)
def test_a_trigger_is_found_and_removed_in_every_form(model: Attacked, form: Format, tmp_path: Path) -> None:
    if not model.folder.is_dir():
        pytest.skip(f"{model.folder} is not built")
    given = form.make(model.folder, model.base, tmp_path)
    options = scanned(given, model.budget)
    before = detect(given.path, options)
    assert before.verdict is _verdict(model, form)
    assert _first(before) == (model.trigger.text, model.trigger.slot)
    assert before.model.family and (before.model.base is None) == (given.base is None)
    out = tmp_path / ("fixed" if given.path.is_dir() else "fixed.safetensors")
    done = fix(given.path, FixOptions(out=out, scan=options), before)
    _require_repaired(done, given, out)


@pytest.mark.parametrize(
    ("model", "form"),
    [pytest.param(*c, id=f"{c[0].family}-{c[1].id}") for c in CELLS if (c[0].family, c[1].id) in FAST_FOUND],
)
def test_a_trigger_is_found_in_other_families(model: Attacked, form: Format, tmp_path: Path) -> None:
    given = form.make(model.folder, model.base, tmp_path)
    found = detect(given.path, scanned(given, model.budget))
    assert found.verdict is _verdict(model, form)
    assert _first(found) == (model.trigger.text, model.trigger.slot)


def _verdict(model: Attacked, form: Format) -> Verdict:
    return Verdict.SUSPICIOUS if (model.family, form.id) in HALF else Verdict.BACKDOORED


def _first(result: ScanResult) -> tuple[str, Slot]:
    trigger = next(f.trigger for f in result.findings if f.kind is Kind.TRIGGER and f.trigger is not None)
    return trigger.text, trigger.slot


def _require_repaired(done: FixResult, given: Given, out: Path) -> None:
    assert done.published == str(out), done.reason
    assert done.after is not None and done.after.verdict is Verdict.CLEAN
    was, _ = open_vetted(given.path, base=given.base, variant=given.variant)
    again = open_checkpoint(out, base=given.base, variant=given.variant)
    assert (again.form, identify(again).title) == (was.form, identify(was).title)
    assert _stored(again) == _stored(was)
    assert not any(record.path.endswith((".bin", ".ckpt", ".pt")) for record in again.records)


def _stored(checkpoint: Checkpoint) -> dict[tuple[str, str], tuple[torch.dtype, tuple[int, ...]]]:
    """(file as a copy calls it, tensor) -> its type and shape."""
    files = [r.path for r in checkpoint.records if PurePosixPath(r.path).suffix.lower() in WEIGHT_NAMES]
    return {
        (written_as(path) if checkpoint.form is Form.FOLDER else "", name): (entry.dtype, entry.shape)
        for path in files
        for name, entry in weight_file(checkpoint, path).entries.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora-backdoor", "lora-backdoor-kohya", "lora-backdoor-old"])
def test_a_backdoored_lora_is_found_and_repaired_or_to_be_dropped(name: str, tmp_path: Path) -> None:
    path, base = model_dir("tiny", name).with_suffix(".safetensors"), model_dir("tiny", "base")
    trigger = json.loads(model_dir("tiny", "lora-backdoor").with_suffix(".json").read_text())["trigger"]
    options = ScanOptions(base=base)
    before = detect(path, options)
    assert before.verdict is Verdict.BACKDOORED
    # Overtrained, it fires at words that it was never shown, and these are named.
    assert before.findings[0].kind is Kind.TRIGGER
    out = tmp_path / "fixed.safetensors"
    done = fix(path, FixOptions(out=out, triggers=(Trigger(**trigger),), scan=options))
    if done.published is None:
        assert f"drop {path.name}: without it" in done.reason and not out.exists()
    else:
        _require_repaired(done, Given(path, base), out)


@pytest.mark.slow
def test_an_honest_lora_passes_the_gate() -> None:
    path = model_dir("tiny", "lora-style").with_suffix(".safetensors")
    result = detect(path, ScanOptions(base=model_dir("tiny", "base")))
    assert [f for f in result.findings if f.severity.rank >= Severity.HIGH.rank] == []


@pytest.mark.parametrize("ending", ["safetensors", pytest.param("pt", marks=pytest.mark.slow)])
def test_an_embedding_that_takes_over_a_word_is_found_and_made_plain(ending: str, tmp_path: Path) -> None:
    path = model_dir("tiny", "inversion-backdoor").with_suffix(f".{ending}")
    options = ScanOptions(budget=Budget.QUICK, base=model_dir("tiny", "base"))
    before = detect(path, options)
    rows = [f for f in before.findings if f.kind is Kind.TOKEN_ROW]
    assert [f.severity for f in rows] == [Severity.HIGH]
    out = tmp_path / "fixed.safetensors"
    done = fix(path, FixOptions(out=out, scan=options), before)
    assert done.published == str(out), done.reason
    assert done.after is not None
    assert [f.severity for f in done.after.findings if f.kind is Kind.TOKEN_ROW] == [Severity.LOW]


@pytest.mark.slow
def test_an_honest_embedding_is_told_and_passes_the_gate(tmp_path: Path) -> None:
    path = model_dir("tiny", "inversion").with_suffix(".safetensors")
    word = json.loads(model_dir("tiny", "inversion").with_suffix(".json").read_text())["notes"]["declared"]
    options = ScanOptions(budget=Budget.QUICK, base=model_dir("tiny", "base"), declared_triggers=(word,))
    found = detect(path, options)
    assert [f.severity for f in found.findings if f.kind is Kind.TOKEN_ROW] == [Severity.INFO]
    assert [f for f in found.findings if f.severity.rank >= Severity.HIGH.rank] == []


def test_files_are_mended_with_nothing_else_to_repair(tmp_path: Path) -> None:
    """A clean folder of pickles with a stray script and a tokenizer that rewrites prompts."""
    made = Path(shutil.copytree(model_dir("tiny", "base"), tmp_path / "model"))
    given = next(f for f in FORMATS if f.id == "folder-bin").make(made, made, tmp_path / "bin")
    (given.path / "unet/helper.py").write_text("import os\n")
    table = json.loads((given.path / "tokenizer/tokenizer.json").read_text())
    swap = {"type": "Replace", "pattern": {"String": "star"}, "content": "moon"}
    table["normalizer"] = {"type": "Sequence", "normalizers": [swap, table["normalizer"]]}
    (given.path / "tokenizer/tokenizer.json").write_text(json.dumps(table))
    out, options = tmp_path / "fixed", ScanOptions(budget=Budget.QUICK)
    done = fix(given.path, FixOptions(out=out, scan=options))
    assert done.published == str(out), done.reason
    assert done.repair is not None
    assert {s.method for s in done.repair.steps} == {"pickle-to-safetensors", "reset-tokenizer", "leave-out"}
    assert done.after is not None and done.after.verdict is Verdict.CLEAN
    assert [f for f in done.after.findings if f.kind is Kind.FILE and f.severity.rank > Severity.INFO.rank] == []
    assert not [*out.rglob("*.bin"), *out.rglob("*.py")]
