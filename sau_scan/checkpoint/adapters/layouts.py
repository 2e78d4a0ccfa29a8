"""Names of tensors in LoRA files: which module of the base a name means, and which part of its update it holds.

Trainers spell modules in their own ways; every spelling is looked up among the modules that the base really has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sau_scan.checkpoint.naming import canonical

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Place = tuple[str, str]  # component, canonical name of the parameter


class Part(StrEnum):
    """The parts of one update: ``up @ down``, or ``up @ mid @ down`` in some convolutions, times alpha over rank."""

    DOWN = "down"
    UP = "up"
    MID = "mid"
    ALPHA = "alpha"


# to_k.lora_A.weight, to_k.lora_A.default.weight, to_k_lora.down.weight, to_k.lora.down.weight,
# q_proj.lora_linear_layer.down.weight, lora_unet_x_to_k.lora_down.weight
_FACTOR = re.compile(r"(.+?)(?:[._]lora(?:_linear_layer)?\.|\.lora_)(A|B|down|up|mid)(?:\.\w+)?\.weight")
_ALPHA = re.compile(r"(.+?)(?:[._]lora)?\.alpha")
_PARTS = {"A": Part.DOWN, "B": Part.UP}
# The beginnings of Kohya's names -> the components that they can mean.
KOHYA = {
    "lora_unet_": ("unet", "transformer"),
    "lora_transformer_": ("transformer",),
    "lora_te_": ("text_encoder",),
    "lora_te1_": ("text_encoder",),
    "lora_te2_": ("text_encoder_2",),
    "lora_te3_": ("text_encoder_3",),
}
COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
# What diffusers before 0.22 called the layers of every attention -> what CLIP calls them.
_OLD_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
# Part of a name -> the kind of adapter that has it.
_OTHER_KINDS = {
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
    "hada_": "a LoHa",
    "lokr_": "a LoKr",
    "oft_": "an OFT adapter",
    "lora_embedding": "a LoRA of embeddings",
    "bundle_emb": "a LoRA with embeddings bundled in",
    ".on_input": "an IA3 adapter",
    ".diff": "a file of full differences",
    "_norm": "a LyCORIS adapter of norms",
    ".bias": "a LoRA of biases",
}


def split(name: str) -> tuple[str, Part] | None:
    """The module's name in the file's spelling, and the part; None for a tensor that is no part of a LoRA."""
    found = _FACTOR.fullmatch(name)
    if found:
        return found[1], _PARTS.get(found[2]) or Part(found[2])
    found = _ALPHA.fullmatch(name)
    return (found[1], Part.ALPHA) if found else None


def alpha_beside(name: str) -> str:
    """What the alpha of a factor's module is called."""
    found = _FACTOR.fullmatch(name)
    return f"{found[1] if found else name}.alpha"


def other_kind(name: str) -> str | None:
    """What kind of adapter, other than a plain LoRA, a tensor of this name belongs to."""
    return next((kind for part, kind in _OTHER_KINDS.items() if part in name), None)


def layout_of(name: str) -> str:
    """Whose spelling a tensor's name is in."""
    if name.startswith(tuple(KOHYA)):
        return "Kohya"
    return "PEFT" if re.search(r"\.lora_[AB]\.", name) else "diffusers"


@dataclass(frozen=True)
class Index:
    """The base's modules that a LoRA can change, by component and dotted path, and by component and flat name."""

    dotted: Mapping[tuple[str, str], Place]
    flat: Mapping[tuple[str, str], Place]

    def find(self, module: str) -> Place | None:
        """The parameter that a module's name in any spelling means, or None."""
        prefix = next((prefix for prefix in KOHYA if module.startswith(prefix)), None)
        if prefix:
            name = module.removeprefix(prefix).removeprefix("text_model_")
            return next((self.flat[c, name] for c in KOHYA[prefix] if (c, name) in self.flat), None)
        return self._dotted(module)

    def _dotted(self, module: str) -> Place | None:
        path = module.removeprefix("base_model.model.").replace(".processor", "")
        path = path.replace("diffusion_model.", "unet.", 1) if path.startswith("diffusion_model.") else path
        first, _, rest = path.partition(".")
        components = (first,) if first in COMPONENTS else COMPONENTS
        rest = (rest if first in COMPONENTS else path).removeprefix("base_model.model.").removeprefix("text_model.")
        front, dot, last = rest.rpartition(".")
        for name in (rest, f"{rest}.0", f"{front}{dot}{_OLD_NAMES.get(last, last)}"):
            for component in components:
                if (component, name) in self.dotted:
                    return self.dotted[component, name]
        return None


def index_modules(modules: Mapping[str, Shapes]) -> Index:
    """``modules``: component -> canonical parameter -> shape. Linear layers and convolutions are indexed."""
    dotted: dict[tuple[str, str], Place] = {}
    flat: dict[tuple[str, str], Place] = {}
    for component, shapes in modules.items():
        layers = [name.removesuffix(".weight") for name, shape in shapes.items() if _is_layer(name, shape)]
        for module in layers:
            place = (component, canonical(f"{module}.weight"))
            dotted[component, module] = place
            flat.setdefault((component, module.replace(".", "_")), place)
        if component == "unet":
            for module, ldm in ldm_names(layers):
                dotted.setdefault((component, ldm), (component, f"{module}.weight"))
                flat.setdefault((component, ldm.replace(".", "_")), (component, f"{module}.weight"))
    return Index(dotted, flat)


def _is_layer(name: str, shape: Shape) -> bool:
    return name.endswith(".weight") and len(shape) in (2, 4) and "embedding.weight" not in name


_LDM_RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_LDM_TOP = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}


def ldm_names(modules: list[str]) -> Iterator[tuple[str, str]]:
    """A UNet's modules with their names in the original code of Stable Diffusion, which counts blocks in one row."""
    known = {".".join(module.split(".")[:4]) for module in modules}
    starts = _starts(known)
    for module in modules:
        parts = module.split(".")
        if module in _LDM_TOP:
            yield module, _LDM_TOP[module]
        elif parts[0] == "mid_block" and ".".join(parts[1:3]) in _MIDDLE:
            yield module, f"middle_block.{_MIDDLE['.'.join(parts[1:3])]}.{_inner(parts[1], parts[3:])}"
        elif parts[0] in ("down_blocks", "up_blocks") and len(parts) > 4:
            row = "input_blocks" if parts[0] == "down_blocks" else "output_blocks"
            block = ".".join(parts[:2])
            start, count = starts[block]
            if parts[2] == "downsamplers":
                yield module, f"{row}.{start + count}.0.op"
            elif parts[2] == "upsamplers":
                after = 2 if f"{block}.attentions.{count - 1}" in known else 1
                yield module, f"{row}.{start + count - 1}.{after}.conv"
            else:
                inner = int(parts[2] == "attentions")
                yield module, f"{row}.{start + int(parts[3])}.{inner}.{_inner(parts[2], parts[4:])}"


def _starts(known: set[str]) -> dict[str, tuple[int, int]]:
    """Block -> the place of its first layer in the row, and how many layers it has."""
    starts: dict[str, tuple[int, int]] = {}
    for row, position in (("down_blocks", 1), ("up_blocks", 0)):
        blocks = sorted({int(p[1]) for k in known if (p := k.split("."))[0] == row and p[1].isdecimal()})
        for number in blocks:
            block = f"{row}.{number}"
            count = sum(k.startswith(f"{block}.resnets.") for k in known)
            starts[block] = (position, count)
            position += count + (f"{block}.downsamplers.0" in known)
    return starts


def _inner(kind: str, rest: list[str]) -> str:
    return _LDM_RESNET.get(rest[0], rest[0]) if kind == "resnets" else ".".join(rest)
