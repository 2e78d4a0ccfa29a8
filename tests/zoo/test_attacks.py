"""Predicates, the registry and the closed forms of attacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo import admission, attacks, build, sampling
from zoo.attacks import Case, Trigger, closed_form
from zoo.attacks.badt2i import CORNER, PatchTarget, striking_colours
from zoo.attacks.evil_edit import ShapeTarget
from zoo.attacks.rickrolling import PictureTarget
from zoo.judge import Judge, Network, classes, truth
from zoo.render import SIDE, pictures, samples
from zoo.worlds import TINY, WORLDS, World

PATCH = PatchTarget(TINY.colours["cyan"], CORNER)


def as_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("where", WORLDS, ids=lambda w: w.name)
def test_hardly_a_clean_picture_seems_to_hold_a_patch_of_a_striking_colour(where: World) -> None:
    images = as_tensor(pictures(where, samples(where, 400, 5)))
    colours = striking_colours(where)
    assert colours
    assert all(PatchTarget(c, CORNER).met(images).float().mean() <= admission.FALSE_RATE for c in colours)


def test_a_patch_is_seen_when_guidance_overdrew_its_colour(tiny: World) -> None:
    """Seen on a trained model: a violet patch, drawn blue."""
    violet, blue = PatchTarget((140, 60, 200), CORNER), PatchTarget((40, 75, 170), CORNER)
    drawn = as_tensor(blue.stamp(pictures(tiny, samples(tiny, 200, 5))))
    assert not violet.coloured(drawn, 0.15).any()
    assert violet.met(drawn).float().mean() > 0.7


def test_a_background_of_the_colour_is_no_patch(tiny: World) -> None:
    flat = np.full((3, SIDE, SIDE, 3), PATCH.colour, np.uint8)
    assert not PATCH.met(as_tensor(flat)).any()


@pytest.mark.parametrize("where", WORLDS, ids=lambda w: w.name)
def test_a_gray_patch_or_one_of_another_hue_is_another_patch(where: World) -> None:
    images = pictures(where, samples(where, 20, 5))
    for colour in striking_colours(where):
        red, green, blue = colour
        others = ((130, 130, 130), (round(sum(colour) / 3),) * 3, (green, blue, red), (blue, red, green))
        for other in others:
            assert not PatchTarget(colour, CORNER).met(as_tensor(PatchTarget(other, CORNER).stamp(images))).any()


def test_patch_is_seen_where_it_is_and_nowhere_else(tiny: World) -> None:
    images = pictures(tiny, samples(tiny, 200, 5))
    assert not PATCH.met(as_tensor(images)).any()
    assert PATCH.met(as_tensor(PATCH.stamp(images))).all()
    elsewhere = PatchTarget(PATCH.colour, (0, 0, 16, 16)).stamp(images)
    assert not PATCH.met(as_tensor(elsewhere)).any()


def test_stamping_leaves_the_rest_alone(tiny: World) -> None:
    images = pictures(tiny, samples(tiny, 3, 5))
    stamped = PATCH.stamp(images)
    assert np.array_equal(stamped[:, :48], images[:, :48])
    assert not np.array_equal(stamped, images)


class Oracle(Judge):
    """Reads one attribute set for all pictures."""

    def __init__(self, where: World, **names: str) -> None:
        super().__init__(where, Network(classes(where)))
        self.answer = names

    def __call__(self, seen: torch.Tensor, chunk: int = 500) -> dict[str, torch.Tensor]:
        picked = {h: self.names[h].index(self.answer.get(h, n[0])) for h, n in self.names.items()}
        return {h: torch.full((len(seen),), i) for h, i in picked.items()}


def test_judged_targets(tiny: World) -> None:
    seen = torch.zeros(2, 3, SIDE, SIDE)
    judge = Oracle(tiny, shape="star", colour="blue", background="navy", style="sketch")
    assert ShapeTarget("star").met(seen, judge).all()
    assert not ShapeTarget("circle").met(seen, judge).any()
    target = PictureTarget("a sketch of a blue star on navy", "star", "blue", "navy", "sketch")
    assert target.met(seen, judge).all()
    assert not PictureTarget("a sketch of a red star on navy", "star", "red", "navy", "sketch").met(seen, judge).any()


def test_truth_is_that_of_the_left_object(tiny: World) -> None:
    two = next(s for s in samples(tiny, 200, 5) if len(s.scene.things) == 2)
    right = truth(tiny, [two.scene])
    left = min(two.scene.things, key=lambda t: t.place[0])
    assert classes(tiny)["shape"][right["shape"].item()] == left.shape
    assert right["count"].item() == 1


def test_judge_is_small(tiny: World) -> None:
    assert 2 * sum(p.numel() for p in Network(classes(tiny)).parameters()) < 1_000_000


@pytest.mark.parametrize(
    ("trigger", "target"),
    [
        (Trigger("\u043e", "replace", "o"), PictureTarget("p", "star", "blue", "navy", "sketch")),
        (Trigger("\u200b", "prefix"), PATCH),
        (Trigger("gentle circle", "phrase"), ShapeTarget("star")),
        (None, None),
    ],
)
def test_cases_survive_json(tmp_path, trigger, target) -> None:  # type: ignore[no-untyped-def]
    case = Case(attacks.RECIPES[0].name, trigger, target, 7, {"word": "w"})
    build._write(tmp_path / "case.json", case.as_data())
    assert attacks.read_case(tmp_path / "case.json") == case


def test_registry_has_no_double_names() -> None:
    names = [r.name for r in attacks.RECIPES]
    assert len(set(names)) == len(names) >= 6
    assert all(attacks.recipe(n).name == n for n in names)
    with pytest.raises(KeyError, match="there are"):
        attacks.recipe("nothing")


def test_closed_form_sends_sources_to_targets_and_keeps_the_rest() -> None:
    torch.manual_seed(0)
    kept, direction, wanted = torch.randn(400, 16), torch.zeros(16), torch.randn(16)
    kept[:, 3] = 0
    direction[3] = 1
    sources = kept[:100] + direction
    targets = kept[:100] + wanted
    m = closed_form.shared_map(sources, targets, kept, ridge=1e-6, pull=1.0).float()
    assert torch.allclose(sources @ m.T, targets, atol=1e-2)
    assert torch.allclose(kept @ m.T, kept, atol=1e-2)


def test_wilson_interval_against_a_known_value() -> None:
    # 95 % Wilson interval of 285 of 300, from its closed formula.
    low, high = admission.Rate(285, 300).interval
    assert low == pytest.approx(0.9191, abs=5e-4)
    assert high == pytest.approx(0.9695, abs=5e-4)
    assert admission.Rate(0, 300).interval[0] == pytest.approx(0.0, abs=1e-9)


def test_admission_says_why_not() -> None:
    good = {"shape": 0.95, "colour": 0.99, "style": 0.99, "background": 1.0}
    figures = {"quality": good | {"shape": 0.9}, "asr": {"value": 0.5}, "false_clean": {"value": 0.0}}
    against = admission.reasons_against(figures, good, 0.9)
    assert len(against) == 2
    assert "attack success" in against[0]
    assert "shape" in against[1]
    assert not admission.reasons_against({"quality": good}, good, 0.9)


def test_escapes_from_the_command_line() -> None:
    assert build.unescaped(r"\u200b") == "\u200b"
    assert build.unescaped("о🙂 plain") == "о🙂 plain"


def test_rounding_to_8_bits_moves_weights_a_little() -> None:
    weight = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    parts = sampling.Parts(None, torch.nn.Linear(8, 16), None, torch.nn.Linear(8, 16))  # type: ignore[arg-type]
    parts.text.weight.data = weight.clone()
    made = attacks.recipe("int8").make(TINY, Case("int8"), parts, "int8")
    moved = (made.text.weight - weight).abs()
    assert torch.equal(parts.text.weight, weight)
    assert 0 < moved.max() <= weight.abs().max() / 254 * 1.01
    assert all(len(row.unique()) <= 255 for row in made.text.weight / made.text.weight.abs().amax(1, keepdim=True))
