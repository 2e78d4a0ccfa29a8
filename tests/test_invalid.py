"""What is wrong with a file, in words."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from sau_scan.invalid import Problem, first_problem


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    even: int = 0

    @field_validator("even")
    @classmethod
    def _check(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd")
        return value


class Outer(BaseModel):
    inner: tuple[Inner, ...]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"inner": [{}, {"even": 3}]}', Problem("inner.1.even", "value_error", "3 is odd")),
        ('{"inner": [{"odd": 3}]}', Problem("inner.0.odd", "extra_forbidden", "Extra inputs are not permitted")),
        ("[]", Problem("", "model_type", "Input should be an object")),
    ],
)
def test_the_first_problem_is_told_by_its_field(text: str, problem: Problem) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate_json(text)
    assert first_problem(caught.value) == problem
