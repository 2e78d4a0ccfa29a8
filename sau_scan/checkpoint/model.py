"""The model in memory: texts to token ids, to embeddings, to noise predictions, to latents, to pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from sau_scan.checkpoint.builders import construct
from sau_scan.checkpoint.families import Family
from sau_scan.checkpoint.naming import canonical
from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.checkpoint.prefix import end_states, tower
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.checkpoint.views import TensorRef
from sau_scan.errors import DamagedFile

Callback = Callable[[int, int, Tensor], None]


class TextOutput(NamedTuple):
    """``hidden`` [B, L, D]: what the UNet is given; ``pooled`` [B, D]: the encoder's output at the end of the text."""

    hidden: Tensor
    pooled: Tensor


def finite(values: Tensor, dtype: torch.dtype) -> Tensor:
    """``values`` as they are. Raises DamagedFile if they are not finite: nothing compares with what is no number, and
    what cannot be compared would look harmless."""
    if bool(torch.isfinite(values).all()):
        return values
    raise DamagedFile(
        f"Some texts make the model give values that are not numbers in {dtype}; it cannot be examined.",
        hint="Do not use this checkpoint: its weights overflow."
        if dtype == torch.float32
        else "Scan with --dtype float32.",
    )


@dataclass(eq=False)
class DiffusionModel:
    """A loaded checkpoint. Modules are in eval mode, and their parameters ask for no gradient.

    ``disk``: (component, canonical parameter) -> where it lies on disk.
    """

    checkpoint: Checkpoint
    family: Family
    tokenizer: Any
    text_encoder: Any
    unet: Any
    vae: Any
    scheduler: Any
    device: torch.device
    dtype: torch.dtype
    context_length: int
    disk: dict[tuple[str, str], TensorRef] = field(default_factory=dict)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(self.unet.config.in_channels), int(height), int(width)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token (in the tokenizer's byte-level spelling) -> id, added tokens included."""
        return dict(self.tokenizer.get_vocab())

    def token_ids(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ids [B, L], padded and cut to the context length."""
        batch = self.tokenizer(
            list(texts), padding="max_length", max_length=self.context_length, truncation=True, return_tensors="pt"
        )
        ids: Tensor = batch.input_ids
        return ids.to(self.device)

    def encode(self, ids: Tensor) -> TextOutput:
        """Ids [B, L] -> hidden [B, L, D] and pooled [B, D]."""
        ids = ids.to(self.device)
        hidden: Tensor = self.text_encoder(ids).last_hidden_state
        # Found through the tokenizer: the encoder's own pooling trusts an id in its config.json.
        ends = (ids == self.tokenizer.eos_token_id).int().argmax(dim=1)
        return TextOutput(hidden, hidden[torch.arange(len(ids), device=self.device), ends])

    def pooled(self, ids: Tensor, anchor: Tensor | None = None) -> Tensor:
        """``encode(ids).pooled``, in a fraction of the time where the encoder allows it.

        ``anchor`` [L]: ids of a text that most rows begin like (default: the first row).
        """
        clip = tower(self.text_encoder)
        if clip is None:
            return torch.cat([self.encode(some).pooled for some in torch.split(ids, 64)])
        return end_states(clip, ids.to(self.device), self.tokenizer.eos_token_id, anchor).last

    def predict_noise(self, latents: Tensor, timestep: int | Tensor, hidden: Tensor) -> Tensor:
        """The noise in ``latents`` [B, C, h, w] at ``timestep`` (one, or [B]) given ``hidden`` [B, L, D].

        Models that predict velocity or the clean latent are converted.
        """
        latents, output = self._raw(latents, timestep, hidden)
        kind = self.scheduler.config.get("prediction_type", "epsilon")
        if kind == "epsilon":
            return output
        times = torch.as_tensor(timestep).cpu().reshape(-1, 1, 1, 1)
        alpha_bar: Tensor = self.scheduler.alphas_cumprod.cpu()[times].to(latents)
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        if kind == "v_prediction":
            return signal * output + noise * latents
        return (latents - signal * output) / noise

    @torch.no_grad()
    def sample(
        self,
        hidden: Tensor,
        negative: Tensor,
        latents: Tensor,
        *,
        steps: int,
        guidance: float,
        callback: Callback | None = None,
    ) -> Tensor:
        """Deterministic DDIM from noise ``latents`` [B, C, h, w] to clean latents, as diffusers' pipeline does it.

        ``hidden`` [B, L, D]; ``negative`` [1 or B, L, D] is used if ``guidance`` > 1: then every UNet call holds the
        negative half of the batch first. ``callback(step, timestep, latents)`` is called after each step.
        """
        scheduler = self.ddim()
        scheduler.set_timesteps(steps, device=self.device)
        latents = latents.to(self.device, self.dtype) * scheduler.init_noise_sigma
        guided = guidance > 1
        text = torch.cat([negative.expand_as(hidden), hidden]) if guided else hidden
        for step, time in enumerate(scheduler.timesteps):
            _, output = self._raw(torch.cat([latents, latents]) if guided else latents, time, text)
            if guided:
                plain, told = output.chunk(2)
                output = plain + guidance * (told - plain)
            latents = scheduler.step(output, time, latents).prev_sample
            if callback is not None:
                callback(step, int(time), latents)
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pictures [B, 3, H, W] in 0..1."""
        scale = self.vae.config.scaling_factor
        shift = self.vae.config.get("shift_factor", None) or 0.0
        pictures: Tensor = self.vae.decode(latents.to(self.device, self.dtype) / scale + shift).sample
        return (pictures / 2 + 0.5).clamp(0, 1)

    def ddim(self) -> Any:
        """A fresh DDIM scheduler on the checkpoint's noise schedule."""
        # offset 1 and no clipping: what diffusers' pipeline makes of any scheduler of this family.
        config = {**self.scheduler.config, "steps_offset": 1, "clip_sample": False, "thresholding": False}
        return construct(DDIMScheduler, config)

    def disk_tensor(self, component: str, parameter: str) -> TensorRef:
        """Where a module's parameter lies on disk; ``parameter`` with or without ``text_model.``. Raises KeyError."""
        return self.disk[component, canonical(parameter)]

    @torch.no_grad()
    def apply(self, patch: WeightPatch) -> None:
        """Puts a patch's values into the modules in memory. Raises KeyError for a tensor that is not loaded."""
        places = {ref: place for place, ref in self.disk.items()}
        for ref, value in patch.tensors.items():
            component, name = places[ref]
            tensors = {canonical(key): tensor for key, tensor in getattr(self, component).state_dict().items()}
            tensors[name].copy_(value.reshape(tensors[name].shape))

    def _raw(self, latents: Tensor, timestep: int | Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The latents as the UNet was given them, and its output as it is."""
        latents = latents.to(self.device, self.dtype)
        time = timestep.to(self.device) if isinstance(timestep, Tensor) else timestep
        output: Tensor = self.unet(latents, time, encoder_hidden_states=hidden.to(self.device, self.dtype)).sample
        return latents, output
