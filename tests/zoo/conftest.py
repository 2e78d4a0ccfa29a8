from __future__ import annotations

import pytest
from transformers import CLIPTokenizer

from zoo.train import tokenizer
from zoo.worlds import TINY, World


@pytest.fixture(scope="session")
def tiny() -> World:
    return TINY


@pytest.fixture(scope="session")
def words(tiny: World) -> CLIPTokenizer:
    return tokenizer.train(tiny)
