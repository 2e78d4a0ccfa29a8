"""The renderer is the zoo's ground truth."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.render import SIDE, Scene, Thing, pictures, render, samples
from zoo.worlds import WORLDS, World


@pytest.mark.parametrize("where", WORLDS, ids=lambda w: w.name)
def test_samples_are_determined_by_the_seed(where: World) -> None:
    once, again, other = samples(where, 40, 3), samples(where, 40, 3), samples(where, 40, 4)
    assert once == again
    assert once != other
    assert np.array_equal(pictures(where, once[:8]), pictures(where, again[:8]))


@pytest.mark.parametrize("where", WORLDS, ids=lambda w: w.name)
def test_every_attribute_changes_the_picture(where: World) -> None:
    style = next(w for w, look in where.styles.items() if look == "flat")
    colours, grounds = list(where.colours), list(where.backgrounds)
    plain = [render(where, Scene((Thing(s, colours[0]),), grounds[0], style)) for s in where.shapes]
    assert len({p.tobytes() for p in plain}) == len(where.shapes)
    styled = [render(where, Scene((Thing(next(iter(where.shapes)), colours[0]),), grounds[0], s)) for s in where.styles]
    assert len({p.tobytes() for p in styled}) == len(where.styles)


def test_colour_and_background_are_where_they_should_be(tiny: World) -> None:
    scene = Scene((Thing("circle", "red"),), "mint", "poster")
    picture = render(tiny, scene)
    assert picture.shape == (SIDE, SIDE, 3)
    assert tuple(picture[SIDE // 2, SIDE // 2]) == tiny.colours["red"]
    assert tuple(picture[0, 0]) == tiny.backgrounds["mint"]
