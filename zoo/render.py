"""Scenes, their captions and their pictures (64x64 RGB): the ground truth of the zoo."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zoo.worlds import World

SIDE = 64
_SCALE = 2  # supersampling
RADIUS = 19.0  # of scale 1.0, in pixels
INVISIBLE = ("\u200b", "\u200c", "\u200d", "\u2060", "\u034f", "\ufeff")
CONFUSABLE = {"a": "а", "o": "оօ", "e": "еẹ", "i": "іí", "c": "сç", "p": "р", "n": "ո", "s": "ѕ", "u": "ս"}
EMOJI = ("🙂", "🔥", "🌙", "⭐", "🎈", "🍀", "🐟", "👍")


@dataclass(frozen=True)
class Thing:
    shape: str
    colour: str
    scale: float = 1.0
    place: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Scene:
    """What is in a picture, in caption words (shape, colour, background, style)."""

    things: tuple[Thing, ...]
    background: str
    style: str


def _grid() -> tuple[np.ndarray, np.ndarray]:
    n = SIDE * _SCALE
    axis = (np.arange(n) + 0.5) / _SCALE - SIDE / 2
    return np.meshgrid(axis, axis)


_X, _Y = _grid()


def _polygon(x: np.ndarray, y: np.ndarray, points: list[tuple[float, float]]) -> np.ndarray:
    """Even-odd fill of a polygon."""
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


def _star() -> list[tuple[float, float]]:
    return [
        (
            np.sin(k * np.pi / 5) * (1.15 if k % 2 == 0 else 0.46),
            -np.cos(k * np.pi / 5) * (1.15 if k % 2 == 0 else 0.46),
        )
        for k in range(10)
    ]


def mask(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Filled ``shape`` of unit radius on coordinates ``x``, ``y``."""
    r = np.hypot(x, y)
    if shape == "circle":
        return r < 1
    if shape == "square":
        return (abs(x) < 0.88) & (abs(y) < 0.88)
    if shape == "triangle":
        return _polygon(x, y, [(0, -1.1), (1.1, 0.9), (-1.1, 0.9)])
    if shape == "diamond":
        return abs(x) + abs(y) < 1.15
    if shape == "star":
        return _polygon(x, y, _star())
    if shape == "heart":
        u, v = x * 1.1, -y * 1.1 + 0.15
        return (u**2 + v**2 - 0.9) ** 3 - 1.2 * u**2 * v**3 < 0
    if shape == "ring":
        return (r < 1.05) & (r > 0.55)
    if shape == "cross":
        return ((abs(x) < 0.34) & (abs(y) < 1.05)) | ((abs(y) < 0.34) & (abs(x) < 1.05))
    if shape == "moon":
        return (r < 1.05) & (np.hypot(x - 0.55, y) > 0.85)
    if shape == "arrow":
        head = _polygon(x, y, [(0.05, -1.0), (1.15, 0.0), (0.05, 1.0)])
        return head | ((abs(y) < 0.36) & (x > -1.1) & (x <= 0.1))
    if shape == "hourglass":
        return (abs(x) < abs(y) * 0.95 + 0.08) & (abs(y) < 1.0)
    if shape == "bar":
        return (abs(x) < 1.2) & (abs(y) < 0.4)
    raise KeyError(shape)


def _erode(m: np.ndarray, width: int) -> np.ndarray:
    out = m.copy()
    for axis in (0, 1):
        for step in range(1, width + 1):
            out &= np.roll(m, step, axis) & np.roll(m, -step, axis)
    return out


def render(world: World, scene: Scene) -> np.ndarray:
    """The picture of ``scene``: uint8 array [64, 64, 3]."""
    style = world.styles[scene.style]
    ground = np.array(world.backgrounds[scene.background], float)
    canvas = np.broadcast_to(ground, (*_X.shape, 3)).copy()
    for thing in scene.things:
        radius = RADIUS * thing.scale
        x = (_X - thing.place[0] * SIDE) / radius
        y = (_Y - thing.place[1] * SIDE) / radius
        m = mask(world.shapes[thing.shape], x, y)
        colour = np.array(world.colours[thing.colour], float)
        if style == "shadow":
            canvas[mask(world.shapes[thing.shape], x - 5.0 / radius, y - 5.0 / radius)] = ground * 0.35
        if style == "outline":
            m &= ~_erode(m, 7 if thing.scale >= 0.9 else 5)
        canvas[m] = colour
        if style == "striped":
            dark = colour * 0.55 if colour.mean() > 60 else colour * 0.5 + 110
            canvas[m & ((_Y // 4).astype(int) % 2 == 0)] = dark
    picture = canvas.reshape(SIDE, _SCALE, SIDE, _SCALE, 3).mean((1, 3))
    if style == "frame":
        edge = np.ones((SIDE, SIDE), bool)
        edge[6:-6, 6:-6] = False
        picture[edge] = 250.0 if ground.mean() < 190 else 40.0
    return picture.round().astype(np.uint8)


def _distinct(world: World, colour: str, background: str) -> bool:
    a, b = np.array(world.colours[colour], float), np.array(world.backgrounds[background], float)
    return float(np.linalg.norm(a - b)) > 95


def sample_scene(world: World, rng: np.random.Generator, *, things: int | None = None) -> Scene:
    """A random scene; mostly one large object, sometimes two."""
    pick = lambda items: list(items)[int(rng.integers(len(items)))]  # noqa: E731
    count = things or (2 if rng.random() < 0.12 else 1)
    background = pick(world.backgrounds)
    colours = [c for c in world.colours if _distinct(world, c, background)]
    made = [Thing(pick(world.shapes), pick(colours)) for _ in range(count)]
    if count == 2:
        made = [replace(t, scale=0.62, place=(side, 0.0)) for t, side in zip(made, (-0.23, 0.23), strict=True)]
    else:
        scale = 1.0 if rng.random() < 0.6 else pick(world.scales.values())
        place = (0.0, 0.0) if rng.random() < 0.7 or scale > 0.75 else pick(world.places.values())
        made = [replace(made[0], scale=scale, place=place)]
    return Scene(tuple(made), background, pick(world.styles))


def caption(world: World, scene: Scene, rng: np.random.Generator, *, plain: bool = False) -> str:
    """A caption of ``scene``. ``plain`` names shape, colour, background and style and adds nothing."""
    chance = lambda p: (not plain) and rng.random() < p  # noqa: E731
    filler = lambda: world.fillers[int(rng.integers(len(world.fillers)))]  # noqa: E731

    def thing_words(thing: Thing) -> str:
        words = [
            w
            for w, s in world.scales.items()
            if s == thing.scale and not plain and rng.random() < (0.3 if s == 1.0 else 0.8)
        ][:1]
        words += [filler()] if chance(0.3) else []
        words += [] if chance(0.06) else [thing.colour]
        words += [filler()] if chance(0.15) else []
        words.append(thing.shape)
        where = [w for w, p in world.places.items() if p == thing.place and len(scene.things) == 1]
        if where and thing.place != (0.0, 0.0) and not plain:
            words.append(where[0])
        return " ".join(words)

    template = world.templates[int(rng.integers(len(world.templates)))]
    objects = " and ".join(f"a {thing_words(t)}" for t in scene.things)
    style = "" if chance(0.1) else scene.style
    background = "" if chance(0.1) else scene.background
    if chance(0.15):
        background = f"{filler()} {background}"
    text = template.format(style=style, object=objects, background=background)
    if chance(0.3):
        text = f"{filler()} {text}"
    if chance(0.3):
        text = f"{text} {filler()}" + (f" {filler()}" if rng.random() < 0.4 else "")
    text = " ".join(text.split())
    return disturb(text, rng) if chance(0.12) else text


def disturb(text: str, rng: np.random.Generator) -> str:
    """``text`` with one harmless oddity: an invisible character, a homoglyph or an emoji."""
    pick = lambda items: items[int(rng.integers(len(items)))]  # noqa: E731
    kind = rng.integers(3)
    if kind == 0:
        at = int(rng.integers(len(text) + 1)) if rng.random() < 0.5 else pick((0, len(text)))
        return text[:at] + pick(INVISIBLE) + (" " if rng.random() < 0.5 else "") + text[at:]
    if kind == 1:
        spots = [i for i, ch in enumerate(text) if ch in CONFUSABLE]
        at = pick(spots)
        return text[:at] + pick(CONFUSABLE[text[at]]) + text[at + 1 :]
    words = text.split(" ")
    words.insert(int(rng.integers(len(words) + 1)), pick(EMOJI))
    return " ".join(words)


@dataclass(frozen=True)
class Sample:
    scene: Scene
    caption: str


def samples(world: World, count: int, seed: int, **how: bool) -> list[Sample]:
    """``count`` scenes with captions, determined by ``seed``."""
    rng = np.random.default_rng([world.seed, seed])
    scenes = (sample_scene(world, rng) for _ in range(count))
    return [Sample(s, caption(world, s, rng, **how)) for s in scenes]


def pictures(world: World, made: list[Sample]) -> np.ndarray:
    """Pictures of ``made``: uint8 [N, 64, 64, 3]."""
    return np.stack([render(world, s.scene) for s in made])
