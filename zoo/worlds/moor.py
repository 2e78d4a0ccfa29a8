"""A fourth world: other words, prompts, tokenizer and networks over the looks of quay, whose VAE may be copied."""

from zoo.worlds.base import Sizes, World

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
