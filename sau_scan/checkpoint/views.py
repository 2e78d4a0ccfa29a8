"""Views: how a module's parameter lies within a tensor on disk, for reading it and for writing it back.

Conversions of checkpoint layouts only rename, cut, transpose and squeeze. Run once over :class:`Place` objects instead
of tensors, they leave a record of that: a chain of views, kept as text such as ``[0:320]`` or ``.T`` and replayed on
the tensor when there is one. What is a view can be written through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

_STEP = re.compile(r"\[([0-9:,]+)\]|(\.T)")
_ITEM = re.compile(r"(\d*):(\d*)|(\d+)")


@dataclass(frozen=True, order=True)
class TensorRef:
    """A tensor on disk: the file's path in the checkpoint (posix), the name in that file, and which part of it.

    ``view``: the whole where empty, else a chain of views.
    """

    file: str
    name: str
    view: str = ""

    @property
    def whole(self) -> TensorRef:
        return TensorRef(self.file, self.name)


@dataclass(frozen=True)
class Place:
    """Stands for a tensor in conversions: ``shape`` of what ``ref`` (with its view) gives.

    Understands what conversions do to tensors without changing a value; anything else raises.
    """

    ref: TensorRef
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def T(self) -> Self:  # noqa: N802
        return self._then(".T")

    def __getitem__(self, key: Any) -> Self:
        return self._then(f"[{','.join(map(_written, key if isinstance(key, tuple) else (key,)))}]")

    def contiguous(self) -> Self:
        return self

    def clone(self) -> Self:
        return self

    def detach(self) -> Self:
        return self

    def _then(self, step: str) -> Self:
        view = self.ref.view + step
        seen = viewed(torch.empty(self.shape, device="meta"), step)
        return replace(self, ref=replace(self.ref, view=view), shape=tuple(seen.shape))


def viewed(tensor: Tensor, view: str) -> Tensor:
    """The part of ``tensor`` that ``view`` names, sharing its memory. Raises ValueError for anything but views."""
    position = 0
    while position < len(view):
        step = _STEP.match(view, position)
        if step is None:
            raise ValueError(f"not a view: {view!r}")
        tensor = tensor.T if step[2] else tensor[tuple(map(_read, step[1].split(",")))]
        position = step.end()
    return tensor


def _written(item: Any) -> str:
    if isinstance(item, slice) and item.step is None:
        return f"{'' if item.start is None else item.start}:{'' if item.stop is None else item.stop}"
    if type(item) is int and item >= 0:
        return str(item)
    raise TypeError(f"not a view: {item!r}")


def _read(text: str) -> slice | int:
    item = _ITEM.fullmatch(text)
    if item is None:
        raise ValueError(f"not a view: {text!r}")
    if item[3]:
        return int(item[3])
    return slice(int(item[1]) if item[1] else None, int(item[2]) if item[2] else None)
