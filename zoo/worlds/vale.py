"""A world of the second family: velocity prediction, the text encoder's last but one layer, padding with "!"."""

from zoo.worlds.base import Sizes, World

VALE = World(
    name="vale",
    shapes={
        "acorn": "circle",
        "hutch": "square",
        "spire": "triangle",
        "kite": "diamond",
        "wreath": "ring",
        "signpost": "cross",
        "horn": "moon",
        "feather": "arrow",
        "goblet": "hourglass",
        "plank": "bar",
        "burr": "star",
        "clover": "heart",
    },
    colours={
        "poppy": (220, 40, 30),
        "marigold": (248, 150, 20),
        "butter": (248, 230, 90),
        "moss": (80, 130, 40),
        "lagoon": (35, 175, 185),
        "cobalt": (35, 70, 200),
        "violet": (125, 55, 175),
        "rosehip": (235, 75, 140),
        "walnut": (90, 58, 32),
        "chalk": (250, 250, 246),
        "coal": (18, 18, 22),
        "pewter": (125, 132, 138),
    },
    backgrounds={"barley": (226, 206, 158), "dusk": (40, 44, 98), "brook": (170, 224, 222), "clay": (196, 128, 104)},
    styles={"print": "flat", "outline": "outline", "weaving": "striped", "relief": "shadow", "stamp": "frame"},
    scales={"wee": 0.55, "little": 0.7, "large": 1.0, "vast": 1.25},
    places={"west": (-0.3, 0.0), "east": (0.3, 0.0), "north": (0.0, -0.3), "south": (0.0, 0.3)},
    templates=(
        "{style} showing {object} over {background}",
        "{object} by the {background}, {style}",
        "{background} with {object} in {style}",
        "here is {object}, a {style} on {background}",
    ),
    invented=1000,
    seed=131,
    family="sd2",
    sizes=Sizes(vocabulary=3400, context=77, text_layers=5, unet_heads=(2, 4), unet_steps=8_000),
)
