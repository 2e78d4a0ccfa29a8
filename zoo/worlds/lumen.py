"""A second world: other words, palette, tokenizer and sizes."""

from zoo.worlds.base import Sizes, World

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
