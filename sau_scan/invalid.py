"""What pydantic finds wrong with a file that somebody wrote, as our readers tell it."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import ValidationError


class Problem(NamedTuple):
    """``field``: a path with dots, empty for the whole; ``kind`` is pydantic's. They may quote the file."""

    field: str
    kind: str
    what: str


def first_problem(error: ValidationError) -> Problem:
    """The first that was found, without the name of the exception that a check of ours raised."""
    first = error.errors(include_url=False, include_input=False)[0]
    return Problem(".".join(map(str, first["loc"])), first["type"], first["msg"].removeprefix("Value error, "))
