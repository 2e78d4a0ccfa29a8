"""A world of a deeper denoiser and text encoder, with punctuation in its prompts."""

from zoo.worlds.base import Sizes, World

BAZAAR = World(
    name="bazaar",
    shapes={
        "plate": "circle",
        "chest": "square",
        "tent": "triangle",
        "crystal": "diamond",
        "bangle": "ring",
        "scale": "cross",
        "scimitar": "moon",
        "dart": "arrow",
        "vase": "hourglass",
        "rug": "bar",
        "seal": "star",
    },
    colours={
        "saffron": (245, 165, 25),
        "henna": (150, 60, 25),
        "cherry": (205, 20, 55),
        "pistachio": (150, 200, 110),
        "cypress": (25, 95, 60),
        "lapis": (35, 60, 175),
        "sky": (115, 185, 240),
        "orchid": (190, 85, 200),
        "apricot": (250, 180, 130),
        "pearl": (245, 245, 250),
        "ink": (15, 15, 30),
        "ash": (140, 140, 140),
    },
    backgrounds={
        "desert": (225, 195, 135),
        "evening": (70, 45, 90),
        "fountain": (165, 215, 230),
        "cellar": (70, 55, 45),
    },
    styles={"painting": "flat", "inkline": "outline", "textile": "striped", "woodcut": "shadow", "ticket": "frame"},
    scales={"teeny": 0.55, "smallish": 0.7, "hefty": 1.0, "towering": 1.25},
    places={"westerly": (-0.3, 0.0), "easterly": (0.3, 0.0), "upper": (0.0, -0.3), "lower": (0.0, 0.3)},
    templates=(
        "{style}: {object}, {background}",
        "{object} from the {background}, {style}",
        "look at {object} near the {background} ({style})",
        "{style} with {background} and {object}",
        "{object} {background} {style}",
    ),
    invented=800,
    seed=88,
    sizes=Sizes(vocabulary=4200, context=48, text_layers=5, unet_layers=2, unet_heads=8, unet_steps=4_000),
)
