"""One checkpoint in every form in which people share it: a literal table of makers.

``base`` is the checkpoint before it was tampered with; adapters and bare weights are what tells the two apart.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from sau_scan.checkpoint.naming import canonical
from sau_scan.checkpoint.quantised import quantise
from tests.single_files import ldm_unet, open_clip, single_file
from zoo.adapters import DOWN, UP, save_lora

State = dict[str, Tensor]
RANK = 8


@dataclass(frozen=True)
class Given:
    """What a user would name; ``base`` and ``variant`` where they are needed."""

    path: Path
    base: Path | None = None
    variant: str | None = None


@dataclass(frozen=True)
class Format:
    """``holds``: components whose weights are in the input itself. ``exact``: all of its numbers are the folder's."""

    id: str
    make: Callable[[Path, Path, Path], Given]
    holds: tuple[str, ...] = ("text_encoder", "text_encoder_2", "unet", "vae")
    exact: bool = True
    families: tuple[str, ...] = field(default=("sd1", "sd2", "sdxl"))


def weights(folder: Path, component: str) -> State:
    file = next(iter(sorted((folder / component).glob("*.safetensors"))))
    return safetensors.torch.load_file(file)


def _components(folder: Path) -> list[str]:
    return [name for name in ("text_encoder", "text_encoder_2", "unet", "vae") if (folder / name).is_dir()]


def _copy(folder: Path, out: Path) -> Path:
    return Path(shutil.copytree(folder, out / "model"))


def _folder(folder: Path, base: Path, out: Path) -> Given:
    return Given(_copy(folder, out))


def _pickled(folder: Path, base: Path, out: Path) -> Given:
    made = _copy(folder, out)
    for component in _components(made):
        state, file = weights(made, component), next((made / component).glob("*.safetensors"))
        file.unlink()
        stem = "pytorch_model" if component.startswith("text") else "diffusion_pytorch_model"
        torch.save(state, made / component / f"{stem}.bin")
    return Given(made)


def _sharded(folder: Path, base: Path, out: Path) -> Given:
    made = _copy(folder, out)
    stem, state = "diffusion_pytorch_model", weights(made, "unet")
    next((made / "unet").glob("*.safetensors")).unlink()
    names = sorted(state)
    table = {name: f"{stem}-0000{1 + (i >= len(names) // 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in sorted(set(table.values())):
        safetensors.torch.save_file({n: state[n] for n in names if table[n] == shard}, made / "unet" / shard)
    index = {"metadata": {"total_size": 0}, "weight_map": table}
    (made / f"unet/{stem}.safetensors.index.json").write_text(json.dumps(index))
    return Given(made)


def _cast(dtype: torch.dtype, variant: str | None = None) -> Callable[[Path, Path, Path], Given]:
    def make(folder: Path, base: Path, out: Path) -> Given:
        made = _copy(folder, out)
        for component in _components(made):
            file = next((made / component).glob("*.safetensors"))
            state = {name: value.to(dtype) for name, value in weights(made, component).items()}
            place = file.with_name(f"{file.stem}.{variant}.safetensors") if variant else file
            safetensors.torch.save_file(state, place, metadata={"format": "pt"})
        return Given(made, variant=variant)

    return make


def _int8(folder: Path, base: Path, out: Path) -> Given:
    """Linear layers of the denoiser as bitsandbytes stores them."""
    made = _copy(folder, out)
    file = next((made / "unet").glob("*.safetensors"))
    state: State = {}
    for name, value in weights(made, "unet").items():
        if value.ndim == 2 and ".attn" in name and name.endswith(".weight"):
            state[name], state[name.replace(".weight", ".SCB")] = quantise(value)
            state[name.replace(".weight", ".weight_format")] = torch.tensor(0, dtype=torch.uint8)
        else:
            state[name] = value
    safetensors.torch.save_file(state, file, metadata={"format": "pt"})
    return Given(made)


def _single(ending: str) -> Callable[[Path, Path, Path], Given]:
    def make(folder: Path, base: Path, out: Path) -> Given:
        index = json.loads((folder / "model_index.json").read_text())
        second = index["_class_name"] == "StableDiffusionPipeline" and _is_second(folder)
        state = {k: v.contiguous() for k, v in single_file(folder, openclip=second).items()}
        return Given(_saved(state, out / f"model.{ending}"), base)

    return make


def _is_second(folder: Path) -> bool:
    return bool(json.loads((folder / "unet/config.json").read_text()).get("use_linear_projection"))


def _saved(state: State, path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path, metadata={"format": "pt"})
    else:
        torch.save({"state_dict": state, "epoch": 3, "global_step": 1000}, path)
    return path


def _bare(component: str, convert: Callable[[Path], State]) -> Callable[[Path, Path, Path], Given]:
    def make(folder: Path, base: Path, out: Path) -> Given:
        state = {name: value.contiguous() for name, value in convert(folder).items()}
        return Given(_saved(state, out / f"{component}.safetensors"), base)

    return make


def _lora(layout: str, ending: str = "safetensors") -> Callable[[Path, Path, Path], Given]:
    """What sets the keys and values of ``folder`` apart from those of ``base``, at low rank."""

    def make(folder: Path, base: Path, out: Path) -> Given:
        new, old = weights(folder, "unet"), weights(base, "unet")
        lora: State = {}
        for name in new:
            if ".attn2." in name and name.endswith(("to_k.weight", "to_v.weight")):
                left, sizes, right = torch.linalg.svd((new[name].float() - old[name].float()).double())
                rank = min(RANK, len(sizes))
                root = sizes[:rank].sqrt()
                module = f"unet.{name.removesuffix('.weight')}"
                lora[module + DOWN] = (root[:, None] * right[:rank]).float()
                lora[module + UP] = (left[:, :rank] * root).float()
        path = out / "lora.safetensors"
        save_lora(path, lora, layout)
        if ending != "safetensors":
            torch.save(safetensors.torch.load_file(path), path.with_suffix(f".{ending}"))
            path = path.with_suffix(f".{ending}")
        return Given(path, base)

    return make


UNET, ENCODER = ("unet",), ("text_encoder",)
FORMATS: tuple[Format, ...] = (
    Format("folder", _folder),
    Format("folder-bin", _pickled),
    Format("folder-sharded", _sharded),
    Format("folder-fp16-variant", _cast(torch.float16, "fp16"), exact=False),
    Format("folder-bf16", _cast(torch.bfloat16), exact=False),
    Format("folder-int8", _int8, exact=False),
    Format("single-safetensors", _single("safetensors")),
    Format("single-ckpt", _single("ckpt")),
    Format("single-pt", _single("pt")),
    Format("unet", _bare("unet", lambda folder: weights(folder, "unet")), holds=UNET),
    Format("unet-ldm", _bare("unet", ldm_unet), holds=UNET),
    Format("text-encoder", _bare("text_encoder", lambda folder: weights(folder, "text_encoder")), holds=ENCODER),
    Format(
        "text-encoder-openclip",
        _bare("text_encoder", lambda folder: open_clip(weights(folder, "text_encoder"))),
        holds=ENCODER,
        families=("sd1", "sd2"),
    ),
    Format("lora-peft", _lora("peft"), holds=(), exact=False),
    Format("lora-old", _lora("old"), holds=(), exact=False),
    Format("lora-kohya", _lora("kohya"), holds=(), exact=False),
    Format("lora-pt", _lora("peft", "pt"), holds=(), exact=False),
)


def named(state: State) -> State:
    """With names in one spelling."""
    return {canonical(name): value for name, value in state.items()}
