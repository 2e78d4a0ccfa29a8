"""A third world."""

from zoo.worlds.base import Sizes, World

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
