"""The world that methods and cut-offs were chosen on."""

from zoo.worlds.base import World

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
