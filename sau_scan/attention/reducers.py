"""What to keep of attention maps while they stream by: each reducer sees one mean map per denoising step.

A reducer's memory does not depend on the number of steps. Results are None until the first step has been seen.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from sau_scan.attention import maps as measures


class Reducer(Protocol):
    def add(self, step: int, maps: Tensor) -> None:
        """``maps`` [B, L, h, w]: attention to each token at each place in ``step``, averaged over heads and layers."""

    def reset(self) -> None:
        """Forget everything seen."""


class _RunningMean:
    """Mean over steps; out of place, so that it stays differentiable when the maps are."""

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self._count = 0

    def reset(self) -> None:
        self.value, self._count = None, 0

    def _add(self, sample: Tensor) -> None:
        self._count += 1
        self.value = sample if self.value is None else self.value + (sample - self.value) / self._count


class MeanMaps(_RunningMean):
    """``value`` [B, L, h, w]: mean map of each token over all steps."""

    def add(self, step: int, maps: Tensor) -> None:
        self._add(maps)


class TokenMass(_RunningMean):
    """``value`` [B, L]: share of attention that each token takes, mean over steps.

    Of cross-attention a prompt's shares sum to 1; of joint attention to less, since places look at each other as well.
    """

    def add(self, step: int, maps: Tensor) -> None:
        self._add(measures.token_mass(maps))


class MapEntropy(_RunningMean):
    """``value`` [B, L]: how spread out each token's map is, 0 (one place) to 1 (uniform), mean over steps."""

    def add(self, step: int, maps: Tensor) -> None:
        self._add(measures.spatial_entropy(maps))


class Evolution:
    """``value`` [S, B, L]: how far each token's map moves from one step to the next, over the first ``first`` moves.

    Early moves only, since that is where the published measures look and memory must not grow with steps.
    """

    def __init__(self, first: int = 8) -> None:
        self._first = first
        self.reset()

    def reset(self) -> None:
        self._rates: list[Tensor] = []
        self._previous: Tensor | None = None

    def add(self, step: int, maps: Tensor) -> None:
        if len(self._rates) == self._first:
            self._previous = None
            return
        if self._previous is not None:
            self._rates.append(measures.frobenius(maps - self._previous))
        self._previous = maps

    @property
    def value(self) -> Tensor | None:
        return torch.stack(self._rates) if self._rates else None
