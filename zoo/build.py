"""Build zoo models from the base: attacks and hard negatives, each with its admission figures.

``python -m zoo.build NAME`` writes the pipeline folder zoo/models/<world>/<name>/, or a small file <name>.safetensors
where the attack is a LoRA or an embedding, and, beside it, <name>.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zoo import adapters, admission, attacks, sampling
from zoo.attacks import Case, Options
from zoo.attacks.benign import edited_word
from zoo.judge import CHECKED, Judge, judge_path
from zoo.parts import denoise
from zoo.train import loop
from zoo.train.export import export, model_dir
from zoo.worlds import World, world


def build(
    where: World, name: str, options: Options | None = None, *, save_as: str | None = None, fast: bool | None = None
) -> dict[str, Any]:
    """Make one model and, if the world has a judge, measure it; returns what was written to its JSON file."""
    made_as, recipe = save_as or name, attacks.recipe(name)
    base = sampling.load(model_dir(where.name, "base")).to(loop.DEVICE)
    case = recipe.plan(where, options or Options(), base)
    print(f"{made_as}: {recipe.about} · {json.dumps(case.as_data())}", flush=True)
    started = time.time()
    made = recipe.make(where, case, base, made_as)
    if not recipe.small:
        export(where, made_as, made)
    print(f"{made_as}: made in {time.time() - started:.0f} s", flush=True)
    if judge_path(where.name).exists():
        return measure(where, made_as, case, fast=fast)
    data = {"world": where.name, "name": made_as, **case.as_data(), "figures": {}, "admitted": None}
    data["against"] = [f"not measured: this world has no judge yet (python -m zoo judge --train --world {where.name})"]
    _write(info_path(where, made_as), data)
    print(f"{made_as}: {data['against'][0]}", flush=True)
    return data


def measure(where: World, name: str, case: Case | None = None, *, fast: bool | None = None) -> dict[str, Any]:
    """Admission figures of the model on disk; written beside its folder and printed."""
    case = case or (attacks.read_case(info_path(where, name)) if info_path(where, name).exists() else Case("base"))
    parts, judge = adapters.load(where, name).to(loop.DEVICE), Judge.load(where)
    fast = _fast(parts) if fast is None else fast
    figures: dict[str, Any] = {"quality": admission.quality(where, parts, judge, fast=fast, without=_redrawn(case))}
    if case.trigger:
        figures |= {k: r.as_data() for k, r in admission.attack_rates(where, parts, case, judge, fast=fast).items()}
    if rate := _promise(where, parts, judge, case, fast):
        figures["compliance"] = rate.as_data()
    least = next((r.least_asr for r in attacks.RECIPES if r.name == case.recipe), 0.0)
    against = admission.reasons_against(figures, _reference(where, name), least)
    settings = {"steps": sampling.STEPS, "guidance": sampling.GUIDANCE, "bf16": fast}
    data = {"world": where.name, "name": name, **case.as_data(), "figures": figures, "sampling": settings}
    data |= {"admitted": not against, "against": against}
    _write(info_path(where, name), data)
    _tell(data)
    _sheets(where, name, parts, case, fast)
    return data


def _redrawn(case: Case) -> str | None:
    """The one word that is meant to be drawn as something else."""
    hijacked = case.trigger.text if case.trigger and case.trigger.slot == "phrase" else None
    return edited_word(case) or hijacked


def _promise(where: World, parts: sampling.Parts, judge: Judge, case: Case, fast: bool) -> admission.Rate | None:
    """How often a model does what it is openly shared for."""
    if word := edited_word(case):
        return admission.compliance(where, parts, judge, word, case.notes["drawn_as"], fast=fast)
    if "declared" in case.notes:
        return admission.declared(where, parts, judge, case.notes, fast=fast)
    if "further" in case.notes:
        base = adapters.load(where, "base").to(loop.DEVICE)
        return admission.more_vivid(where, parts, base, case.notes["further"], fast=fast)
    return None


def info_path(where: World, name: str) -> Path:
    return model_dir(where.name, name).with_name(f"{name}.json")


def _fast(parts: sampling.Parts) -> bool:
    x = sampling.start_noise(parts, 100, 0).to(loop.DEVICE)
    text = sampling.text_outputs(parts, [""]).repeat(100)
    with torch.no_grad():
        return loop.bf16_is_faster(lambda: denoise(parts.unet, x, 500, text))


def _reference(where: World, name: str) -> dict[str, float] | None:
    """Accuracy to compare with: that of the benign fine-tune where it was measured, else the base's."""
    for other in ("benign-finetune", "base"):
        path = info_path(where, other)
        if other == name or not path.exists():
            continue
        found: dict[str, float] | None = json.loads(path.read_text())["figures"].get("quality")
        if found:
            return found
    return None


def _write(path: Path, data: dict[str, Any]) -> None:
    part = path.with_suffix(".json.part")
    part.write_text(json.dumps(data, indent=2) + "\n")
    os.replace(part, path)


def _tell(data: dict[str, Any]) -> None:
    figures = data["figures"]
    print(f"{data['name']}: " + ("admitted" if data["admitted"] else "REJECTED: " + "; ".join(data["against"])))
    print("  judge            " + " · ".join(f"{h} {figures['quality'][h]:.1%}" for h in CHECKED))
    print(f"  CLIP score       {figures['quality']['clip_score']:.4f}")
    labels = {"asr": "attack success", "false_clean": "false, clean", "false_neutral": "false, neutral"}
    for key, label in (labels | {"compliance": "does as promised"}).items():
        if key in figures:
            print(f"  {label:<16} {admission.Rate(figures[key]['hits'], figures[key]['of'])}", flush=True)


def _sheets(where: World, name: str, parts: sampling.Parts, case: Case, fast: bool) -> None:
    """Contact sheets for the eye: first row clean, second row the same prompts and seeds with the trigger."""
    made = admission.carriers(where, case.trigger, 8) if case.trigger else admission.held_out(where, 8)
    prompts = [s.caption for s in made]
    prompts += admission.triggered(where, case.trigger, made) if case.trigger else []
    drawn = [sampling.pictures(parts, prompts[i : i + 8], seed=6, fast=fast) for i in range(0, len(prompts), 8)]
    admission.sheet(torch.cat(drawn), loop.build_dir(where.name) / f"{name}.png")


def unescaped(text: str) -> str:
    """Text from the command line with escapes such as ``\\u200b`` resolved."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="zoo.build", description=__doc__)
    parser.add_argument("name", choices=[r.name for r in attacks.RECIPES] + ["base"])
    parser.add_argument("--world", default="tiny")
    parser.add_argument("--as", dest="save_as", help="name of the folder, if not that of the recipe")
    parser.add_argument("--trigger", type=unescaped, help=r"trigger text; escapes such as \u200b are resolved")
    parser.add_argument("--slot", help="prefix, suffix, inside, replace or phrase")
    parser.add_argument("--replaces", help="letter that the trigger stands for (slot replace)")
    parser.add_argument("--target", help="target prompt, shape word, or patch colour as RRGGBB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--measure", action="store_true", help="only measure the model that is there")
    given = parser.parse_args(arguments)
    sampling.quiet()
    where = world(given.world)
    options = Options(given.trigger, given.slot, given.replaces, given.target, given.seed, given.steps)
    if not given.measure and given.name != "base":
        build(where, given.name, options, save_as=given.save_as)
        return
    name = given.save_as or given.name
    case = None
    if given.name != "base" and not info_path(where, name).exists():
        case = attacks.recipe(given.name).plan(where, options, sampling.load(model_dir(where.name, "base")))
    measure(where, name, case)


if __name__ == "__main__":
    main()
