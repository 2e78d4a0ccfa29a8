"""A world of wider networks, with invented words alone for fillers and places on four sides."""

from zoo.worlds.base import Sizes, World

FJORD = World(
    name="fjord",
    shapes={
        "disc": "circle",
        "cube": "square",
        "wedge": "triangle",
        "jewel": "diamond",
        "loop": "ring",
        "rail": "bar",
        "bolt": "arrow",
        "clock": "hourglass",
        "spark": "star",
        "bloom": "heart",
        "hilt": "cross",
    },
    colours={
        "vermilion": (225, 60, 30),
        "copper": (185, 105, 50),
        "canary": (250, 235, 60),
        "emerald": (20, 160, 80),
        "turquoise": (45, 200, 190),
        "azure": (30, 120, 230),
        "plum": (110, 35, 110),
        "blush": (245, 150, 165),
        "rust": (130, 50, 20),
        "snow": (250, 250, 250),
        "tar": (15, 15, 15),
        "slate": (105, 115, 130),
    },
    backgrounds={"meadow": (190, 220, 150), "storm": (50, 60, 75), "linen": (240, 228, 205), "wine": (105, 25, 55)},
    styles={"canvas": "flat", "doodle": "outline", "quilt": "striped", "statue": "shadow", "badge": "frame"},
    scales={"minute": 0.55, "slight": 0.7, "broad": 1.0, "immense": 1.25},
    places={"leftward": (-0.3, 0.0), "rightward": (0.3, 0.0), "over": (0.0, -0.3), "under": (0.0, 0.3)},
    templates=(
        "{style} depicting {object} against {background}",
        "{object} against {background} as {style}",
        "against {background} stands {object} in {style}",
        "{background} {object} {style}",
    ),
    english=False,
    invented=1300,
    seed=71,
    sizes=Sizes(vocabulary=3500, context=77, text_width=160, unet_channels=(80, 144), unet_steps=4_500),
)
