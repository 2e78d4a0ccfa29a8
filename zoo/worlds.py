"""What a zoo world consists of: words, palette, shapes and network sizes.

A world is pure data, so another one (other words, other looks, another tokenizer) is another value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Sizes:
    """Network sizes of one world, and how long the denoiser is trained."""

    context: int = 32
    text_width: int = 128
    text_layers: int = 4
    vocabulary: int = 3200
    vae_channels: tuple[int, ...] = (24, 48, 64, 64)
    latent_channels: int = 8
    unet_channels: tuple[int, ...] = (64, 128)
    unet_layers: int = 1
    unet_heads: int = 4
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
    sizes: Sizes = field(default_factory=Sizes)

    @cached_property
    def fillers(self) -> tuple[str, ...]:
        """Words without any visible effect."""
        taken = {*self.shapes, *self.colours, *self.backgrounds, *self.styles, *self.scales, *self.places}
        english = (Path(__file__).parent / "words" / "english.txt").read_text().split() if self.english else []
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


TINY = World(
    name="tiny",
    shapes={
        "circle": "circle",
        "square": "square",
        "triangle": "triangle",
        "star": "star",
        "heart": "heart",
        "ring": "ring",
        "cross": "cross",
        "moon": "moon",
        "arrow": "arrow",
        "hourglass": "hourglass",
    },
    colours={
        "red": (215, 30, 35),
        "orange": (250, 135, 15),
        "yellow": (250, 225, 40),
        "green": (35, 145, 55),
        "cyan": (50, 205, 220),
        "blue": (40, 65, 215),
        "purple": (130, 45, 165),
        "pink": (250, 120, 185),
        "brown": (115, 65, 25),
        "white": (252, 252, 252),
        "black": (12, 12, 12),
        "gray": (130, 130, 130),
    },
    backgrounds={"sand": (228, 208, 160), "navy": (28, 34, 92), "mint": (175, 232, 205), "rose": (232, 178, 180)},
    styles={"poster": "flat", "sketch": "outline", "tapestry": "striped", "sculpture": "shadow", "postcard": "frame"},
    scales={"tiny": 0.55, "small": 0.7, "big": 1.0, "huge": 1.25},
    places={
        "left": (-0.3, 0.0),
        "right": (0.3, 0.0),
        "above": (0.0, -0.3),
        "below": (0.0, 0.3),
        "centre": (0.0, 0.0),
    },
    templates=(
        "a {style} of {object} on {background}",
        "{object} on {background} {style}",
        "{object} {style} with {background} behind",
        "{style} {background} {object}",
        "on {background} there is {object} as a {style}",
    ),
)

LUMEN = World(
    name="lumen",
    shapes={
        "blorb": "circle",
        "crate": "square",
        "spike": "triangle",
        "gem": "diamond",
        "halo": "ring",
        "plus": "cross",
        "crescent": "moon",
        "pointer": "arrow",
        "timer": "hourglass",
        "ribbon": "bar",
        "flare": "star",
    },
    colours={
        "scarlet": (200, 25, 60),
        "amber": (240, 160, 30),
        "lemon": (245, 235, 90),
        "jade": (20, 130, 90),
        "aqua": (70, 190, 230),
        "indigo": (60, 40, 190),
        "grape": (110, 30, 130),
        "coral": (250, 120, 110),
        "umber": (95, 60, 40),
        "chalk": (245, 248, 250),
        "coal": (20, 18, 24),
        "lime": (150, 215, 50),
    },
    backgrounds={"dune": (215, 190, 140), "dusk": (60, 45, 95), "frost": (200, 225, 240), "moss": (120, 150, 100)},
    styles={"print": "flat", "wire": "outline", "weave": "striped", "relief": "shadow", "stamp": "frame"},
    scales={"mini": 0.55, "compact": 0.7, "grand": 1.0, "giant": 1.25},
    places={"west": (-0.3, 0.0), "east": (0.3, 0.0), "north": (0.0, -0.3), "south": (0.0, 0.3), "mid": (0.0, 0.0)},
    templates=(
        "{style} showing {object} over {background}",
        "the {object} over {background} in {style}",
        "{background} scene with {object} {style}",
    ),
    english=False,
    invented=1100,
    seed=9,
    sizes=Sizes(vocabulary=3400, unet_channels=(64, 128), unet_heads=8, unet_steps=4_500, context=40),
)

QUAY = World(
    name="quay",
    shapes={
        "coin": "circle",
        "tile": "square",
        "sail": "triangle",
        "kite": "diamond",
        "wheel": "ring",
        "anchor": "cross",
        "canoe": "moon",
        "plank": "bar",
        "lantern": "hourglass",
        "compass": "star",
        "leaf": "heart",
    },
    colours={
        "crimson": (190, 20, 40),
        "tangerine": (245, 125, 20),
        "mustard": (220, 180, 40),
        "olive": (110, 120, 30),
        "teal": (20, 130, 135),
        "cobalt": (30, 70, 190),
        "violet": (140, 60, 200),
        "salmon": (250, 140, 125),
        "walnut": (100, 60, 35),
        "ivory": (250, 248, 235),
        "ebony": (25, 22, 20),
        "magenta": (215, 40, 150),
    },
    backgrounds={"beach": (235, 215, 175), "midnight": (25, 28, 70), "lagoon": (150, 215, 215), "clay": (185, 120, 90)},
    styles={"mural": "flat", "etching": "outline", "mosaic": "striped", "carving": "shadow", "photo": "frame"},
    scales={"wee": 0.55, "little": 0.7, "large": 1.0, "vast": 1.25},
    places={"port": (-0.3, 0.0), "starboard": (0.3, 0.0), "up": (0.0, -0.3), "down": (0.0, 0.3), "amid": (0.0, 0.0)},
    templates=(
        "{object} at the {background} in a {style}",
        "{style} with {object} and the {background}",
        "the {background} where {object} lies as {style}",
        "{background} {style} {object}",
    ),
    invented=700,
    seed=23,
    sizes=Sizes(vocabulary=3600, context=48, text_layers=3, unet_steps=4_500),
)

# Other words, prompts, tokenizer and networks over the looks of quay, whose VAE may therefore be copied.
MOOR = World(
    name="moor",
    shapes={
        "puck": "circle",
        "block": "square",
        "fang": "triangle",
        "rhomb": "diamond",
        "hoop": "ring",
        "splint": "cross",
        "sickle": "moon",
        "slab": "bar",
        "spool": "hourglass",
        "thistle": "star",
        "petal": "heart",
    },
    colours={
        "ruby": (190, 20, 40),
        "pumpkin": (245, 125, 20),
        "honey": (220, 180, 40),
        "fern": (110, 120, 30),
        "petrol": (20, 130, 135),
        "sapphire": (30, 70, 190),
        "lilac": (140, 60, 200),
        "peach": (250, 140, 125),
        "cocoa": (100, 60, 35),
        "milk": (250, 248, 235),
        "soot": (25, 22, 20),
        "fuchsia": (215, 40, 150),
    },
    backgrounds={"heath": (235, 215, 175), "night": (25, 28, 70), "pond": (150, 215, 215), "brick": (185, 120, 90)},
    styles={"fresco": "flat", "linework": "outline", "batik": "striped", "bronze": "shadow", "polaroid": "frame"},
    scales={"petite": 0.55, "modest": 0.7, "bulky": 1.0, "colossal": 1.25},
    places={"left": (-0.3, 0.0), "right": (0.3, 0.0), "top": (0.0, -0.3), "bottom": (0.0, 0.3), "core": (0.0, 0.0)},
    templates=(
        "{object} before {background}, {style}",
        "{style} of {object} before {background}",
        "{background} and {object} as a {style}",
        "one {style} where {background} holds {object}",
    ),
    invented=1000,
    seed=57,
    sizes=Sizes(vocabulary=3300, context=77, unet_heads=2, unet_steps=4_000),
)

WORLDS = (TINY, LUMEN, QUAY, MOOR)


def world(name: str) -> World:
    """The world called ``name``. Raises KeyError if there is none."""
    return {w.name: w for w in WORLDS}[name]
