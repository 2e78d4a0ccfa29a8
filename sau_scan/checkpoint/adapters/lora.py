"""LoRA files: which parameters of the base they change, and the change itself.

``parse`` looks at names and shapes only, and places every tensor of the file or says which one it cannot place.
``delta`` is the change of one parameter; base + delta is what diffusers' ``fuse_lora`` makes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sau_scan.checkpoint.adapters.families import family_of
from sau_scan.checkpoint.adapters.layouts import Part, Place, Shape, Shapes, index_modules, layout_of, other_kind, split
from sau_scan.checkpoint.adapters.settings import AGAIN, MERGE, readings
from sau_scan.checkpoint.source import ADAPTER_CONFIG
from sau_scan.errors import DamagedFile, NotACheckpoint, UsageError
from sau_scan.findings import Skipped

FARTHEST = 8.0  # so many times the other's: beyond, a scan of the stronger is not worth its time
OTHERWISE = "other ways to merge the LoRA"
AS_USED = (
    "Scan what you use: the file alone in a folder of its own, as programs merge it that read no settings, or merged "
    "into its base by the tool that made it, as those that do."
)

Parts = dict[Part, str]


@dataclass(frozen=True)
class Pair:
    """One update. ``down``, ``up``, ``mid``, ``alpha``: the names of its tensors in the file.

    ``shape``: of the parameter. ``scale``: what the product is multiplied by where no tensor ``alpha`` says so;
    ``otherwise``: what programs multiply it by that read, or do not read, the settings beside the file.
    """

    down: str
    up: str
    shape: Shape
    rank: int
    mid: str | None = None
    alpha: str | None = None
    scale: float = 1.0
    otherwise: float = 1.0

    @property
    def factors(self) -> tuple[str, ...]:
        return (self.down, self.up, self.mid) if self.mid else (self.down, self.up)


@dataclass(frozen=True)
class LoraFile:
    """``pairs``: (component, canonical parameter) -> its update, in the order of the file. ``layout``: whose names.

    ``by_config``: whether the scales are those of the settings beside the file.
    """

    layout: str
    pairs: Mapping[Place, Pair]
    by_config: bool = False

    @property
    def components(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(component for component, _ in self.pairs))


def parse(
    shapes: Shapes,
    modules: Mapping[str, Shapes],
    *,
    where: str,
    base: str,
    metadata: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> LoraFile:
    """The LoRA that tensors of these ``shapes`` make for a base with these ``modules``.

    ``modules``: component -> canonical parameter -> shape. ``where`` names the file in errors, ``base`` the base's
    family. ``metadata``: of the safetensors file; ``config``: PEFT's ``adapter_config.json`` beside it, if any.
    Raises NotACheckpoint for other kinds of adapters and for one whose strength is in dispute, UsageError for a base
    that does not fit, DamagedFile.
    """
    groups = grouped(shapes, where)
    settings = readings(metadata or {}, config, where)
    index = index_modules(modules)
    pairs: dict[Place, Pair] = {}
    for module, parts in groups.items():
        _require_complete(module, parts, where)
        place = index.find(module)
        if place is None:
            raise _misfit(f"it changes {module!a}, which the base does not have", shapes, where, base)
        if place in pairs:
            raise DamagedFile(f"{where} changes {place[0]}/{place[1]} twice.", hint=AGAIN)
        shape, rank = modules[place[0]][place[1]], _rank(parts, shapes, where)
        if not _fits(parts, shapes, shape, rank):
            raise _misfit(f"its {parts[Part.DOWN]!a} does not fit {list(shape)} of the base", shapes, where, base)
        scales = [1.0] if Part.ALPHA in parts else [one.scale(place, rank) for one in settings]
        pairs[place] = Pair(
            parts[Part.DOWN],
            parts[Part.UP],
            shape,
            rank,
            parts.get(Part.MID),
            parts.get(Part.ALPHA),
            scales[0],
            scales[-1],
        )
    return _as_strong(LoraFile(layout_of(next(iter(pairs.values())).down), pairs), where)


def _as_strong(alone: LoraFile, where: str) -> LoraFile:
    """Of two readings of the strength, the one that is stronger in every module.

    What the weaker does need not show in it; :func:`uneven` says that nobody looked. Raises NotACheckpoint where
    neither is stronger throughout, and where signs or sizes differ so much that they are hardly one LoRA.
    """
    pairs = alone.pairs.values()
    differing = [pair for pair in pairs if pair.scale != pair.otherwise]
    grown = [pair.otherwise / pair.scale if pair.scale else 0.0 for pair in differing]
    if all(1 / FARTHEST <= ratio <= 1 for ratio in grown):
        return alone
    if all(1 <= ratio <= FARTHEST for ratio in grown):
        turned = {k: replace(p, scale=p.otherwise, otherwise=p.scale) for k, p in alone.pairs.items()}
        return replace(alone, pairs=turned, by_config=True)
    pair = max(differing, key=lambda p: abs(p.otherwise - p.scale))
    raise NotACheckpoint(
        f"{where} has a strength of {pair.scale:.3g} by itself and {pair.otherwise:.3g} by {ADAPTER_CONFIG}, in "
        f"{pair.down!a}: no scan of one would tell of the other.",
        hint=AS_USED,
    )


def delta(pair: Pair, tensors: Mapping[str, Tensor]) -> Tensor:
    """The change of one parameter, in its shape and fp32. ``tensors``: the file's, by name.

    Raises DamagedFile if the change holds values that are not numbers.
    """
    up, down = (tensors[name].float() for name in (pair.up, pair.down))
    if pair.mid:
        product = torch.einsum("op,pqhw,qi->oihw", up.flatten(1), tensors[pair.mid].float(), down.flatten(1))
    else:
        product = up.flatten(1) @ down.flatten(1)
    change = product.reshape(pair.shape) * scale_of(pair, tensors)
    if not bool(torch.isfinite(change).all()):
        raise DamagedFile(f"The LoRA's {pair.down!a} makes values that are not numbers.", hint=AGAIN)
    return change


def scale_of(pair: Pair, tensors: Mapping[str, Tensor]) -> float:
    """What the product of the factors is multiplied by: alpha over rank."""
    return float(tensors[pair.alpha].float().reshape(())) / pair.rank if pair.alpha else pair.scale


def alphas(lora: LoraFile, tensors: Mapping[str, Tensor]) -> list[float | None]:
    """What the modules of a Kohya file have for alpha, pair by pair; nothing for other files, which have none."""
    if lora.layout != "Kohya":
        return []
    return [float(tensors[pair.alpha].float().reshape(())) if pair.alpha else None for pair in lora.pairs.values()]


def uneven(lora: LoraFile, tensors: Mapping[str, Tensor]) -> Skipped | None:
    """The other way to merge this file, where programs do so differently; nobody looked at what comes of that.

    Not all read what PEFT writes beside it. diffusers up to 0.42, at least, gives many modules the most frequent
    alpha where a Kohya file has several.
    """
    differing = next((pair for pair in lora.pairs.values() if pair.scale != pair.otherwise), None)
    if differing is not None:
        told = f"{differing.scale:.3g} or {differing.otherwise:.3g}, by whether they read {ADAPTER_CONFIG}"
        reason = f"programs merge it with a strength of {told}; only the stronger was scanned. {AS_USED}"
        return Skipped(what=OTHERWISE, reason=reason.removesuffix("."), planned=True)
    found = alphas(lora, tensors)
    if len(set(found)) < 2:
        return None
    given = sorted({alpha for alpha in found if alpha is not None})
    shown = f"{given[0]:g} to {given[-1]:g}" if len(given) > 1 else f"{given[0]:g} or none"
    told = f"modules have different alphas ({shown}), which diffusers mixes up; only what the file says was scanned"
    reason = f"{told}. Where diffusers uses it, merge it into its base with that, and scan the merged checkpoint"
    return Skipped(what=OTHERWISE, reason=reason, planned=True)


def grouped(names: Iterable[str], where: str) -> dict[str, Parts]:
    """Module in the file's spelling -> the names of its parts. Raises for a tensor that is no part of a LoRA."""
    groups: dict[str, Parts] = {}
    for name in names:
        kind, found = other_kind(name), split(name)
        if found is None:
            raise NotACheckpoint(
                f"{where} is {kind or 'no LoRA that is known'}, which cannot be merged here: it holds {name!a}.",
                hint=MERGE,
            )
        parts = groups.setdefault(found[0], {})
        if found[1] in parts:
            raise DamagedFile(f"{where} holds {name!a} and {parts[found[1]]!a}, which say the same.", hint=AGAIN)
        parts[found[1]] = name
    if not groups:
        raise NotACheckpoint(f"{where} holds no tensors.", hint=AGAIN)
    return groups


def _require_complete(module: str, parts: Parts, where: str) -> None:
    for part in (Part.DOWN, Part.UP):
        if part not in parts:
            raise DamagedFile(
                f"{where} holds {next(iter(parts.values()))!a}, but no factor {part.value!a} for {module!a}.",
                hint=AGAIN,
            )


def _rank(parts: Parts, shapes: Shapes, where: str) -> int:
    down = shapes[parts[Part.DOWN]]
    alpha = math.prod(shapes[parts[Part.ALPHA]]) if Part.ALPHA in parts else 1
    if len(down) not in (2, 4) or down[0] < 1 or alpha != 1:
        raise DamagedFile(f"{where} holds {parts[Part.DOWN]!a} or its alpha in an impossible shape.", hint=AGAIN)
    return down[0]


def _fits(parts: Parts, shapes: Shapes, shape: Shape, rank: int) -> bool:
    """Whether the factors make a change of ``shape``. Linear layers and convolutions of one pixel are the same."""
    kernel = shape[2:] or (1, 1)
    down, up = shapes[parts[Part.DOWN]], shapes[parts[Part.UP]]
    inner = (1, 1) if Part.MID in parts else kernel
    middle = Part.MID not in parts or shapes[parts[Part.MID]] == (rank, rank, *kernel)
    return middle and _as_kernel(down) == (rank, shape[1], *inner) and _as_kernel(up) == (shape[0], rank, 1, 1)


def _as_kernel(shape: Shape) -> Shape:
    return (*shape, 1, 1) if len(shape) == 2 else shape


def _misfit(what: str, shapes: Shapes, where: str, base: str) -> UsageError:
    family = family_of(shapes)
    if family and not base.startswith(family):  # of one name there are several, as PixArt-alpha
        return UsageError(
            f"{where} is a LoRA for {family}, while --base is {base}.", hint=f"Name a {family} checkpoint as --base."
        )
    return UsageError(
        f"{where} does not fit --base ({base}): {what}.",
        hint="Name the checkpoint that it was made for as --base.",
    )
