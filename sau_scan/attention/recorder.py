"""Recording of cross-attention beside a running denoiser, without touching what it computes."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Literal, Self

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.hooks import RemovableHandle

from sau_scan.attention.joint import is_joint, joint_attention_sites, joint_map, why_not_joint
from sau_scan.attention.recompute import attention_probabilities
from sau_scan.attention.reducers import Reducer
from sau_scan.attention.sites import cross_attention_sites, why_not_reproducible
from sau_scan.findings import Skipped

Half = Literal["all", "unconditional", "conditional"]
Shape = tuple[int, int]

# Default grid: the finest recorded one up to this many places (16 x 16, where published measures look).
DEFAULT_PLACES = 256


class AttentionRecorder:
    """Context manager that feeds ``reducers`` with the mean map of attention to the text in every pass of ``unet``.

    Of cross-attention that is all of it; of joint attention, which looks at the picture as well, the part that falls to
    the text. One pass of the denoiser is one step. Maps are averaged over heads, resized to ``grid`` and averaged over
    layers.
    ``half``: with classifier-free guidance in one batch, record only its first (unconditional) or second half.
    ``keep_grad``: keep the graph, so that losses on the results have gradients (memory then grows with steps).
    ``skipped``: sites that could not be recorded, and why. Outputs of the denoiser are bit-identical with and without;
    hooks come off when the block ends, however it ends. A pass that fails half-way leaves no trace in the results.
    """

    def __init__(
        self,
        unet: nn.Module,
        *reducers: Reducer,
        grid: Shape | None = None,
        half: Half = "all",
        keep_grad: bool = False,
    ) -> None:
        self.unet = unet
        self.reducers = reducers
        self.grid = grid
        self.half = half
        self.keep_grad = keep_grad
        self.steps = 0
        self._skipped: dict[str, Skipped] = {}
        self._handles: list[RemovableHandle] = []
        self._latent_shape: Shape | None = None
        self._text = 0
        self._sums: dict[Shape, tuple[Tensor, int]] = {}

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return tuple(self._skipped.values())

    def reset(self) -> None:
        """Forget all steps, for the next batch."""
        self.steps = 0
        self._sums = {}
        for reducer in self.reducers:
            reducer.reset()

    def __enter__(self) -> Self:
        if self._handles:
            raise RuntimeError("this recorder is already recording")
        try:
            self._attach()
        except BaseException:
            self._detach()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._detach()

    def _attach(self) -> None:
        self._handles.append(self.unet.register_forward_pre_hook(self._begin_step, with_kwargs=True))
        for path, attn in {**cross_attention_sites(self.unet), **joint_attention_sites(self.unet)}.items():
            if self._reproducible(path, attn):
                hook = _SiteHook(self, path)
                self._handles.append(attn.register_forward_pre_hook(hook, with_kwargs=True))
        self._handles.append(self.unet.register_forward_hook(self._end_step))

    def _detach(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._sums = {}

    def _reproducible(self, path: str, attn: Any) -> bool:
        reason = why_not_joint(attn) if is_joint(attn) else why_not_reproducible(attn)
        if reason is not None:
            self._skip(path, reason)
        return reason is None

    def _skip(self, path: str, reason: str) -> None:
        self._skipped.setdefault(path, Skipped(what=f"cross-attention of {path}", reason=reason))

    def _begin_step(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = dict(zip(("sample", "timestep", "encoder_hidden_states"), args, strict=False)) | kwargs
        sample = given["sample"] if "sample" in given else given["hidden_states"]
        text = given.get("encoder_hidden_states")
        self._latent_shape = (sample.shape[-2], sample.shape[-1]) if sample.ndim == 4 else _packed_shape(given)
        self._text = 0 if text is None else text.shape[1]
        self._sums = {}

    def _record(self, path: str, attn: nn.Module, given: dict[str, Any]) -> None:
        if not self._reproducible(path, attn):  # the processor may have been exchanged since
            return
        mask, joint = given.get("attention_mask"), is_joint(attn)
        if joint and mask is not None:
            self._skip(path, "joint attention under a mask")
            return
        # Entering no_grad costs as much as a small operation, and a scan is in it already.
        with torch.no_grad() if torch.is_grad_enabled() and not self.keep_grad else nullcontext():
            context = given.get("encoder_hidden_states")
            context = None if context is None else self._select(context)
            hidden = self._select(given["hidden_states"])
            if joint:
                rotary = given.get("image_rotary_emb")
                maps = joint_map(attn, hidden, context, rotary, self._text)
            else:
                assert isinstance(attn, Attention)
                mask = mask if mask is None or mask.shape[0] == 1 else self._select(mask)
                maps = attention_probabilities(attn, hidden, context, mask).mean(dim=1, dtype=torch.float32)
            self._accumulate(path, maps)

    def _accumulate(self, path: str, maps: Tensor) -> None:
        """Add the maps [B, h*w, L] of one layer to those of its resolution."""
        shape = map_shape(maps.shape[1], self._latent_shape)
        if shape is None:
            self._skip(path, f"{maps.shape[1]} places do not fit latents of {self._latent_shape}")
        elif shape in self._sums:
            total, count = self._sums[shape]
            self._sums[shape] = (total + maps if self.keep_grad else total.add_(maps), count + 1)
        else:
            self._sums[shape] = (maps, 1)

    def _select(self, batch: Tensor) -> Tensor:
        if self.half == "all":
            return batch
        middle, odd = divmod(batch.shape[0], 2)
        if odd:
            raise ValueError(f"a batch of {batch.shape[0]} has no two halves; record it with half='all'")
        return batch[:middle] if self.half == "unconditional" else batch[middle:]

    def _end_step(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        sums, self._sums = self._sums, {}
        if not sums:
            return
        if self.grid is None:
            self.grid = _default_grid(sums)
        layers = sum(count for _, count in sums.values())
        resized = [_resize(total, shape, self.grid) for shape, (total, _) in sums.items()]
        maps = torch.stack(resized).sum(0) / layers
        for reducer in self.reducers:
            reducer.add(self.steps, maps)
        self.steps += 1


class _SiteHook:
    """Forward pre-hook of one site; returns None, so that the module's arguments stay as they are."""

    def __init__(self, recorder: AttentionRecorder, path: str) -> None:
        self._recorder = recorder
        self._path = path

    def __call__(self, attn: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = ("hidden_states", "encoder_hidden_states", "attention_mask")
        given = dict(zip(names, args, strict=False)) | kwargs
        self._recorder._record(self._path, attn, given)


def _packed_shape(given: dict[str, Any]) -> Shape | None:
    """Rows and columns of a picture that is given as a list of places, by the positions given with it."""
    places = given.get("img_ids")
    return None if places is None else (int(places[:, -2].max()) + 1, int(places[:, -1].max()) + 1)


def map_shape(places: int, latent: Shape | None) -> Shape | None:
    """Height and width of a map with ``places`` positions, for latents halved (rounding up) some number of times."""
    if latent is None:
        side = math.isqrt(places)
        return (side, side) if side * side == places else None
    height, width = latent
    while height * width > places and (height, width) != (1, 1):
        height, width = (height + 1) // 2, (width + 1) // 2
    return (height, width) if height * width == places else None


def _default_grid(shapes: dict[Shape, tuple[Tensor, int]]) -> Shape:
    small = [shape for shape in shapes if math.prod(shape) <= DEFAULT_PLACES]
    return max(small, key=math.prod) if small else min(shapes, key=math.prod)


def _resize(maps: Tensor, shape: Shape, grid: Shape) -> Tensor:
    """[B, h*w, L] -> [B, L, grid]; by areas, which keeps each token's share of attention when sides divide."""
    spatial = maps.transpose(1, 2).reshape(maps.shape[0], maps.shape[2], *shape)
    return spatial if shape == grid else adaptive_avg_pool2d(spatial, grid)
