"""Cross-attention of a denoiser: where it is, what it looks at, and measures of the maps."""

from __future__ import annotations

from sau_scan.attention.recorder import AttentionRecorder
from sau_scan.attention.reducers import Evolution, MapEntropy, MeanMaps, Reducer, TokenMass
from sau_scan.attention.sites import cross_attention_sites

__all__ = [
    "AttentionRecorder",
    "Evolution",
    "MapEntropy",
    "MeanMaps",
    "Reducer",
    "TokenMass",
    "cross_attention_sites",
]
