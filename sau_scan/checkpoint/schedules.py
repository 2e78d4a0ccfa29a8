"""How much noise there is at which timestep: diffusion, and flow matching, behind one interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from sau_scan.checkpoint.builders import construct


class Schedule(Protocol):
    def shares(self, timestep: int | Tensor) -> tuple[Tensor, Tensor]:
        """Of a latent at ``timestep`` (one, or [B]) the parts of picture and of noise, to be broadcast over latents."""

    def noise_of(self, output: Tensor, latents: Tensor, timestep: int | Tensor) -> Tensor:
        """What the denoiser's ``output`` for ``latents`` [B, C, h, w] says of the noise in them."""

    def sampler(self, steps: int, places: int, device: torch.device) -> Any:
        """A deterministic scheduler set to so many steps, for denoisers that see so many places of a picture."""


@dataclass(frozen=True)
class Diffusion:
    """``scheduler``: the checkpoint's own. ``steps_offset``: what the family's pipeline sets it to, if it does."""

    scheduler: Any
    steps_offset: int | None = None

    def shares(self, timestep: int | Tensor) -> tuple[Tensor, Tensor]:
        times = torch.as_tensor(timestep).cpu().reshape(-1, 1, 1, 1)
        alpha_bar: Tensor = self.scheduler.alphas_cumprod.cpu()[times]
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def noise_of(self, output: Tensor, latents: Tensor, timestep: int | Tensor) -> Tensor:
        """Models that predict velocity or the clean latent are converted."""
        kind = self.scheduler.config.get("prediction_type", "epsilon")
        if kind == "epsilon":
            return output
        signal, noise = (share.to(latents) for share in self.shares(timestep))
        if kind == "v_prediction":
            return signal * output + noise * latents
        return (latents - signal * output) / noise

    def sampler(self, steps: int, places: int, device: torch.device) -> Any:
        made = self.ddim()
        made.set_timesteps(steps, device=device)
        return made

    def ddim(self) -> Any:
        """A fresh DDIM scheduler on the checkpoint's noise schedule."""
        config = {**self.scheduler.config, "clip_sample": False, "thresholding": False}
        if self.steps_offset is not None:
            config["steps_offset"] = self.steps_offset
        return construct(DDIMScheduler, config)


@dataclass(frozen=True)
class Flow:
    """Flow matching: a latent at time s (1: pure noise) is (1 - s) x0 + s noise, and v = noise - x0 is predicted."""

    scheduler: Any
    steps_from_one: bool = False

    def shares(self, timestep: int | Tensor) -> tuple[Tensor, Tensor]:
        span = int(self.scheduler.config.num_train_timesteps)
        share = torch.as_tensor(timestep).cpu().float().reshape(-1, 1, 1, 1) / span
        return 1 - share, share

    def noise_of(self, output: Tensor, latents: Tensor, timestep: int | Tensor) -> Tensor:
        """noise = x + (1 - s) v, since x = (1 - s) x0 + s noise."""
        signal, _ = self.shares(timestep)
        return latents + signal.to(latents) * output

    def sampler(self, steps: int, places: int, device: torch.device) -> Any:
        config = {**self.scheduler.config, "stochastic_sampling": False}
        made = construct(FlowMatchEulerDiscreteScheduler, config)
        options: dict[str, Any] = {"mu": self._shift(places)} if config.get("use_dynamic_shifting") else {}
        if self.steps_from_one:
            options["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        made.set_timesteps(steps, device=device, **options)
        return made

    def _shift(self, places: int) -> float:
        """As diffusers' pipelines shift the schedule for larger pictures."""
        config = self.scheduler.config
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        base, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        return float(base + (most - base) * (places - low) / (high - low))
