"""What a world consists of: words, palette, shapes and network sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

RGB = tuple[int, int, int]
Family = Literal["sd1", "sd2", "sdxl"]


@dataclass(frozen=True)
class Sizes:
    """Network sizes of one world, and how long the denoiser is trained.

    SD2 leaves the last of ``text_layers`` out; ``second_width`` and ``second_layers`` are those of SDXL's second tower.
    """

    context: int = 32
    text_width: int = 128
    text_layers: int = 4
    second_width: int = 0
    second_layers: int = 0
    vocabulary: int = 3200
    vae_channels: tuple[int, ...] = (24, 48, 64, 64)
    latent_channels: int = 8
    unet_channels: tuple[int, ...] = (64, 128)
    unet_layers: int = 1
    unet_heads: int | tuple[int, ...] = 4
    unet_steps: int = 6_000


@dataclass(frozen=True)
class World:
    """Words and looks of one world; ``shapes``, ``styles`` and so on map a caption word to what is drawn."""

    name: str
    shapes: dict[str, str]
    colours: dict[str, RGB]
    backgrounds: dict[str, RGB]
    styles: dict[str, str]
    scales: dict[str, float]
    places: dict[str, tuple[float, float]]
    templates: tuple[str, ...]
    english: bool = True
    invented: int = 900
    seed: int = 0
    family: Family = "sd1"
    sizes: Sizes = field(default_factory=Sizes)

    @cached_property
    def fillers(self) -> tuple[str, ...]:
        """Words without any visible effect."""
        taken = {*self.shapes, *self.colours, *self.backgrounds, *self.styles, *self.scales, *self.places}
        english = (Path(__file__).parents[1] / "words" / "english.txt").read_text().split() if self.english else []
        rng = np.random.default_rng([self.seed, 77])
        words = dict.fromkeys(w for w in english if w not in taken)
        wanted = len(words) + self.invented
        while len(words) < wanted:
            word = invented_word(rng)
            if word not in taken:
                words[word] = None
        return tuple(words)


def invented_word(rng: np.random.Generator) -> str:
    """A pronounceable word of two or three syllables."""
    onsets = ["b", "br", "c", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl", "qu"]
    onsets += ["r", "s", "sh", "sk", "sl", "st", "t", "th", "tr", "v", "w", "y", "z"]
    nuclei = ["a", "e", "i", "o", "u", "ai", "ea", "ee", "oo", "ou"]
    codas = ["", "", "", "n", "r", "l", "m", "s", "t", "nd", "sk", "ck", "rn"]
    pick = lambda items: items[int(rng.integers(len(items)))]  # noqa: E731
    body = "".join(pick(onsets) + pick(nuclei) for _ in range(int(rng.integers(1, 3))))
    return body + pick(onsets) + pick(nuclei) + pick(codas)
