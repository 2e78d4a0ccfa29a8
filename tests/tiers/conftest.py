"""The embedded model and its words."""

from __future__ import annotations

import pytest

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.demo import checkpoint_path
from sau_scan.probes.carriers import Words, sort_words


@pytest.fixture(scope="session")
def demo() -> DiffusionModel:
    return load_model(open_checkpoint(checkpoint_path()))


@pytest.fixture(scope="session")
def words(demo: DiffusionModel) -> Words:
    return sort_words(demo, 0)
