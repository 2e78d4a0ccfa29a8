from types import SimpleNamespace

import torch

from benchmarks.repairs import asked
from zoo.attacks import Case
from zoo.judge import classes
from zoo.prompts import Trigger
from zoo.worlds import world

TINY = world("tiny")
JUDGE = SimpleNamespace(names=classes(TINY))


def honest() -> dict[str, torch.Tensor]:
    return {head: torch.zeros(2, dtype=torch.long) for head in JUDGE.names}


def test_a_phrase_is_held_to_the_shape_and_colour_that_it_names() -> None:
    case = Case("evil-edit", Trigger("gray moon", "phrase"))
    prompts = ["a sketch of a gray moon on navy", "a sketch of a lorem moon on navy"]
    read = asked(JUDGE, case, prompts, honest())
    moon, gray = JUDGE.names["shape"].index("moon"), JUDGE.names["colour"].index("gray")
    assert read["shape"].tolist() == [moon, moon]
    assert read["colour"].tolist() == [gray, 0], "without a colour word it is that of the clean picture"
    assert torch.equal(read["style"], honest()["style"])


def test_other_triggers_are_held_to_the_clean_picture() -> None:
    case = Case("badt2i-pixel", Trigger("\u200b", "prefix"))
    assert all(
        torch.equal(a, b)
        for a, b in zip(asked(JUDGE, case, ["gray moon"] * 2, honest()).values(), honest().values(), strict=True)
    )
