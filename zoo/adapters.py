"""Small files that change a model: LoRA in three layouts, textual inversion in two; and the model with one applied.

A LoRA is held in diffusers' layout of today, ``unet.<module>.lora_A.weight`` [rank, in] and ``lora_B`` [out, rank].
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from zoo import parts as families
from zoo.parts import Parts
from zoo.train.export import model_dir
from zoo.worlds import World

Tensors = dict[str, torch.Tensor]
LAYOUTS = ("peft", "old", "kohya")
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
# Kohya's trainer scales by alpha / rank; half of the rank is a usual choice.
ALPHA = 0.5


def save_lora(path: Path, lora: Tensors, layout: str = "peft") -> None:
    """Write ``lora`` in half precision as one of ``LAYOUTS``."""
    laid = {"peft": dict, "old": _old, "kohya": _kohya}[layout](lora)
    save_file({k: v.half().contiguous() for k, v in laid.items()}, path, {"format": "pt"})


def _old(lora: Tensors) -> Tensors:
    return {k.replace(DOWN, ".lora.down.weight").replace(UP, ".lora.up.weight"): v for k, v in lora.items()}


def _kohya(lora: Tensors) -> Tensors:
    made = {}
    for key, value in lora.items():
        module = "lora_unet_" + key.removeprefix("unet.").removesuffix(DOWN).removesuffix(UP).replace(".", "_")
        if key.endswith(DOWN):
            made[f"{module}.lora_down.weight"] = value
            made[f"{module}.alpha"] = torch.tensor(ALPHA * len(value))
        else:
            made[f"{module}.lora_up.weight"] = value / ALPHA
    return made


@torch.no_grad()
def with_lora(parts: Parts, lora: Tensors, strength: float = 1.0) -> Parts:
    """The model with ``lora`` added to its weights."""
    net = copy.deepcopy(parts.unet)
    for key in (k for k in lora if k.endswith(DOWN)):
        module = net.get_submodule(key.removeprefix("unet.").removesuffix(DOWN))
        change = lora[key.replace(DOWN, UP)].float() @ lora[key].float()
        module.weight += strength * change.to(module.weight)
    return parts._replace(unet=net)


def save_inversion(path: Path, word: str, row: torch.Tensor) -> None:
    """Write the ``row`` [D] of ``word``: as diffusers does, or as ``.pt`` the way of the well-known web interface."""
    value = row.detach().cpu().reshape(1, -1)
    if path.suffix == ".safetensors":
        save_file({word: value.half()}, path)
        return
    held = {"string_to_token": {"*": 265}, "string_to_param": {"*": value}, "name": word, "step": 0}
    torch.save(held | {"sd_checkpoint": None, "sd_checkpoint_name": None}, path)


@torch.no_grad()
def with_inversion(parts: Parts, word: str, row: torch.Tensor) -> Parts:
    """The model with ``row`` [D] for ``word``, added as diffusers adds it: a token of its own, wherever it stands."""
    words, text = copy.deepcopy(parts.tokenizer), copy.deepcopy(parts.text)
    if word in words.get_vocab() or words.add_tokens(word) != 1:
        raise ValueError(f"{word!r} is a token already: diffusers would refuse the file; take another word")
    text.resize_token_embeddings(len(words), mean_resizing=False)
    text.get_input_embeddings().weight[words.convert_tokens_to_ids(word)] = row.to(text.device, torch.float32)
    return parts._replace(tokenizer=words, text=text)


def path_of(where: World, name: str, layout: str = "peft") -> Path:
    """Where the file of one small model lives, in git beside its figures."""
    return model_dir(where.name, name if layout == "peft" else f"{name}-{layout}").with_suffix(".safetensors")


def load(where: World, name: str) -> Parts:
    """A model of the zoo: its own folder, or the base with its small file applied."""
    folder, path = model_dir(where.name, name), path_of(where, name)
    if folder.is_dir() or not path.exists():
        return families.load(folder)
    base, held = families.load(model_dir(where.name, "base")), load_file(path)
    if any(k.endswith(DOWN) for k in held):
        return with_lora(base, held)
    ((word, row),) = held.items()
    return with_inversion(base, word, row[0])
