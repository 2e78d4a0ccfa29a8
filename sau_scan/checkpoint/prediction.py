"""What a denoiser of an unnamed kind predicts, told by its answer: two Stable Diffusions 2 differ in nothing else.

Near the end of the schedule the latents are almost all noise. A model that predicts the noise gives them back; one that
predicts the velocity (2202.00512) gives the picture, of which they say nothing.
"""

from __future__ import annotations

import json

import torch

from sau_scan.checkpoint.builders import construct
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.shipped import shipped_files
from sau_scan.checkpoint.source import Form

# Measured: 0.99 and more of noise predictors, 0.2 at most of a velocity predictor.
HALFWAY = 0.5
ROWS = 4


def settle_prediction(model: DiffusionModel) -> None:
    """Takes a single file of Stable Diffusion 2 for the 512-pixel model if it predicts noise."""
    checkpoint = model.checkpoint
    if checkpoint.form is not Form.SINGLE or checkpoint.base is not None or model.family.id != "sd2":
        return
    if noise_returned(model) < HALFWAY:
        return
    files = shipped_files("sd2-base")
    model.scheduler = construct(type(model.scheduler), json.loads(files["scheduler/scheduler_config.json"]))
    model.unet.register_to_config(sample_size=json.loads(files["unet/config.json"])["sample_size"])


@torch.no_grad()
def noise_returned(model: DiffusionModel) -> float:
    """The cosine between noise and what the denoiser answers to it at the highest noise, 0 to 1."""
    noise = torch.randn(ROWS, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    hidden = model.encode(model.token_ids([""])).hidden.expand(ROWS, -1, -1)
    last = int(model.scheduler.config.get("num_train_timesteps", 1000)) - 1
    answer = model.answer(noise, last, hidden).float().cpu()
    return float(torch.nn.functional.cosine_similarity(answer.flatten(1), noise.flatten(1)).mean())
