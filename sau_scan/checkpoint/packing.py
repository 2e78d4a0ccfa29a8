"""One tensor for everything that a denoiser is told about a prompt.

Rows 0 to L-1 are the tokens, in order. Behind them come what some families add: an embedding of the whole prompt, a
mask of the padding; each filled up with zeros to whole rows. So a prompt's rows can be indexed, joined and blended
without knowing the family, and the position of a token is its row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pack(tokens: Tensor, vectors: Sequence[Tensor]) -> Tensor:
    """Tokens [B, L, D] with ``vectors`` [B, P] behind them: [B, L + R, D]."""
    width = tokens.shape[2]
    return torch.cat([tokens, *(_in_rows(vector.to(tokens), width) for vector in vectors)], dim=1)


def unpack(packed: Tensor, widths: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """The tokens [B, L, D], and the vectors [B, P] of these ``widths`` P."""
    batch, rows, width = packed.shape
    start = rows - extra_rows(width, widths)
    tokens, vectors = packed[:, :start], []
    for size in widths:
        end = start + extra_rows(width, [size])
        vectors.append(packed[:, start:end].reshape(batch, -1)[:, :size])
        start = end
    return tokens, vectors


def extra_rows(width: int, widths: Sequence[int]) -> int:
    """Rows of ``width`` that vectors of ``widths`` take."""
    return sum(-(-size // width) for size in widths)


def _in_rows(vector: Tensor, width: int) -> Tensor:
    rows = extra_rows(width, [vector.shape[1]])
    return F.pad(vector, (0, rows * width - vector.shape[1])).view(len(vector), rows, width)
