"""Noise and velocity predictors are told apart by what they answer to noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import sau_scan.demo
from sau_scan.checkpoint.builders import construct
from sau_scan.checkpoint.families import SD2
from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.prediction import noise_returned, settle_prediction
from sau_scan.checkpoint.source import Form

TRAINED = Path(sau_scan.demo.__file__).with_name("checkpoint")
VELOCITY = Path(__file__).parents[2] / "zoo/models/vale/base"


def as_single_file(path: Path) -> DiffusionModel:
    """A trained model as it would come from a single file of Stable Diffusion 2: taken for a velocity predictor."""
    model = load_model(open_checkpoint(path))
    scheduler = construct(type(model.scheduler), {**model.scheduler.config, "prediction_type": "v_prediction"})
    checkpoint = replace(model.checkpoint, form=Form.SINGLE)
    return replace(model, family=SD2, checkpoint=checkpoint, scheduler=scheduler)


def test_a_noise_predictor_gives_the_noise_back() -> None:
    model = as_single_file(TRAINED)
    assert noise_returned(model) > 0.95
    settle_prediction(model)
    assert model.scheduler.config["prediction_type"] == "epsilon"
    assert model.unet.config.sample_size == 64


@pytest.mark.skipif(not VELOCITY.is_dir(), reason="needs the zoo's model of that kind")
def test_a_velocity_predictor_does_not() -> None:
    model = as_single_file(VELOCITY)
    assert noise_returned(model) < 0.3
    settle_prediction(model)
    assert model.scheduler.config["prediction_type"] == "v_prediction"


def test_what_a_configuration_says_is_left_alone() -> None:
    model = load_model(open_checkpoint(TRAINED))
    before = dict(model.scheduler.config)
    settle_prediction(model)
    assert dict(model.scheduler.config) == before
