"""``python -m zoo train | build NAME|all | judge [NAME]``: everything about the evaluation models."""

from __future__ import annotations

import sys

import torch

from zoo import build, judge
from zoo.attacks import RECIPES
from zoo.train.export import STAGES, train_stage
from zoo.worlds import WORLDS, world

USAGE = f"""usage: python -m zoo train [WORLD [STAGE]]   stages: {", ".join(STAGES)}; resumable
       python -m zoo build NAME|all [...]   names: {", ".join(r.name for r in RECIPES)}; -h after a name for more
       python -m zoo judge [NAME] [...]     figures of a model; --train to train the judge
worlds: {", ".join(w.name for w in WORLDS)}"""


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    torch.set_num_threads(2)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "train":
        where = world(rest[0] if rest else "tiny")
        for stage in rest[1:2] or STAGES:
            train_stage(where, stage)
        if not rest[1:2]:
            judge.main(["--train", "--world", where.name])
    elif command == "build" and rest[:1] == ["all"]:
        for recipe in RECIPES:
            build.main([recipe.name, *rest[1:]])
    elif command == "build":
        build.main(rest)
    elif command == "judge":
        judge.main(rest)
    else:
        print(USAGE)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
