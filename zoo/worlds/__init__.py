"""Worlds of the zoo: an explicit, ordered registry. Each is pure data, so another one is another value."""

from zoo.worlds.base import RGB, Family, Sizes, World
from zoo.worlds.bazaar import BAZAAR
from zoo.worlds.fjord import FJORD
from zoo.worlds.harbour import HARBOUR
from zoo.worlds.lumen import LUMEN
from zoo.worlds.moor import MOOR
from zoo.worlds.orchard import ORCHARD
from zoo.worlds.quay import QUAY
from zoo.worlds.tiny import TINY
from zoo.worlds.vale import VALE

WORLDS = (TINY, LUMEN, QUAY, MOOR, FJORD, BAZAAR, ORCHARD, VALE, HARBOUR)

__all__ = ["RGB", "TINY", "WORLDS", "Family", "Sizes", "World", "world"]


def world(name: str) -> World:
    """The world called ``name``. Raises KeyError if there is none."""
    return {w.name: w for w in WORLDS}[name]
