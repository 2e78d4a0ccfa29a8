"""A world with a heart and twelve shapes, long prompts, and two heads."""

from zoo.worlds.base import Sizes, World

ORCHARD = World(
    name="orchard",
    shapes={
        "pebble": "circle",
        "brick": "square",
        "tooth": "triangle",
        "lozenge": "diamond",
        "hoop": "ring",
        "stile": "cross",
        "scythe": "moon",
        "vane": "arrow",
        "bobbin": "hourglass",
        "log": "bar",
        "daisy": "star",
        "cushion": "heart",
    },
    colours={
        "carmine": (200, 20, 45),
        "carrot": (245, 120, 20),
        "straw": (235, 215, 100),
        "clover": (60, 160, 60),
        "mallard": (15, 105, 110),
        "denim": (55, 85, 160),
        "iris": (95, 70, 200),
        "heather": (190, 130, 190),
        "peony": (240, 90, 150),
        "cream": (252, 246, 230),
        "raven": (20, 20, 25),
        "bark": (95, 70, 50),
    },
    backgrounds={"hay": (230, 210, 150), "twilight": (45, 45, 95), "spring": (185, 230, 180), "adobe": (205, 140, 110)},
    styles={"plaque": "flat", "tracing": "outline", "basketry": "striped", "casting": "shadow", "snapshot": "frame"},
    scales={"pocket": 0.55, "lesser": 0.7, "stout": 1.0, "mighty": 1.25},
    places={"leftmost": (-0.3, 0.0), "rightmost": (0.3, 0.0), "highest": (0.0, -0.3), "lowest": (0.0, 0.3)},
    templates=(
        "{style} where {object} rests on {background}",
        "{object} and {background}, a {style}",
        "this {style} has {object} beside {background}",
        "{background} {style} of {object}",
    ),
    invented=1100,
    seed=112,
    sizes=Sizes(vocabulary=3800, context=77, unet_heads=2, unet_steps=4_500),
)
