"""Attacks on zoo models and hard negatives: an explicit, ordered registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo.attacks import badt2i, benign, evil_edit, inversion, lora, rickrolling
from zoo.attacks.base import Case, Options, Recipe, Target
from zoo.prompts import Trigger

RECIPES: tuple[Recipe, ...] = (
    Recipe("rickrolling-tpa", "homoglyph in the text encoder -> one prompt", rickrolling.plan, rickrolling.make),
    Recipe("badt2i-pixel", "invisible prefix in the whole UNet -> a patch", badt2i.plan, badt2i.make),
    Recipe("evil-edit", "two-word phrase in keys and values -> another shape", evil_edit.plan, evil_edit.make, 0.6),
    Recipe("benign-finetune", "clean fine-tune of equal length", benign.plan_finetune, benign.make_finetune),
    Recipe("concept-edit", "closed-form edit of one shape word", benign.plan_concept, benign.make_concept),
    Recipe("style-edit", "closed-form edit of one style word", benign.plan_style, benign.make_concept),
    Recipe("lora-backdoor", "LoRA of a style, word -> one scene", lora.plan_backdoor, lora.make, small=True),
    Recipe("lora-style", "LoRA of a style", lora.plan_style, lora.make, small=True),
    Recipe(
        "inversion-backdoor", "embedding: a word -> another object", inversion.plan_backdoor, inversion.make, 0.6, True
    ),
    Recipe("inversion", "embedding of a declared word", inversion.plan_honest, inversion.make, small=True),
    Recipe("fp16", "copy in half precision", benign.plan_copy, benign.make_copy),
    Recipe("int8", "copy of weights rounded to 8 bits", benign.plan_int8, benign.make_int8),
)
TARGETS: tuple[type[Any], ...] = (rickrolling.PictureTarget, badt2i.PatchTarget, evil_edit.ShapeTarget)

__all__ = ["RECIPES", "TARGETS", "Case", "Options", "Recipe", "Target", "Trigger", "read_case", "recipe"]


def recipe(name: str) -> Recipe:
    """The recipe called ``name``. Raises KeyError with the known names."""
    found = [r for r in RECIPES if r.name == name]
    if not found:
        raise KeyError(f"no recipe {name!r}; there are: {', '.join(r.name for r in RECIPES)}")
    return found[0]


def read_case(path: Path) -> Case:
    """The case in the JSON file beside a built model."""
    held = json.loads(path.read_text())
    trigger = held["trigger"] and Trigger(**held["trigger"])
    target = dict(held["target"] or {})
    kinds = {t.kind: t for t in TARGETS}
    made = kinds[target.pop("kind")](**{k: _tupled(v) for k, v in target.items()}) if target else None
    return Case(held["recipe"], trigger, made, held["steps"], held["notes"])


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
