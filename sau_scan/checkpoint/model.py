"""The model in memory: texts to token ids, to embeddings, to noise predictions, to latents, to pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sau_scan.checkpoint.conditioning import CONDITIONING, GUIDANCE, Conditioning
from sau_scan.checkpoint.families import Family
from sau_scan.checkpoint.naming import canonical
from sau_scan.checkpoint.packing import unpack
from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.checkpoint.readers import TextOutput
from sau_scan.checkpoint.schedules import Schedule
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.checkpoint.views import TensorRef, viewed
from sau_scan.errors import DamagedFile
from sau_scan.findings import Skipped

__all__ = ["Callback", "DiffusionModel", "TextOutput", "finite"]

Callback = Callable[[int, int, Tensor], None]


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

    ``unet``: the denoiser, a UNet or a transformer. ``tokenizers`` and ``context_lengths``: in the family's order;
    the first one's tokens are the rows of the text output. ``disk``: (component, canonical parameter) -> where it lies
    on disk; what a base provides is not in it. ``expand``: words that stand for several tokens -> those.
    ``uneven``: the other way to merge the adapter, where programs do so differently.
    """

    checkpoint: Checkpoint
    family: Family
    tokenizers: tuple[Any, ...]
    text_encoder: Any
    unet: Any
    vae: Any
    scheduler: Any
    device: torch.device
    dtype: torch.dtype
    context_lengths: tuple[int, ...]
    text_encoder_2: Any = None
    text_encoder_3: Any = None
    disk: dict[tuple[str, str], TensorRef] = field(default_factory=dict)
    expand: tuple[tuple[str, str], ...] = ()
    uneven: Skipped | None = None

    @property
    def tokenizer(self) -> Any:
        """The tokenizer whose tokens are the rows of the text output."""
        return self.tokenizers[0]

    @property
    def context_length(self) -> int:
        """Tokens of a prompt, padding included: the first rows of the text output."""
        return self.context_lengths[0]

    @property
    def first_token(self) -> int:
        """The position of a prompt's first own token."""
        return int(self.tokenizer.bos_token_id is not None)

    @property
    def conditioning(self) -> Conditioning:
        return CONDITIONING[self.family.id]

    @property
    def schedule(self) -> Schedule:
        return self.conditioning.schedule(self)

    @property
    def encoders(self) -> dict[str, Any]:
        """The text encoders by component, in the family's order."""
        found = {component: getattr(self, component) for _, component in self.family.encoders}
        return {component: encoder for component, encoder in found.items() if encoder is not None}

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent."""
        return self.conditioning.latent_shape(self)

    @property
    def picture_scale(self) -> int:
        """Pixels to a side of a latent's place."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token (in the tokenizer's byte-level spelling) -> id, added tokens included."""
        return dict(self.tokenizer.get_vocab())

    def token_ids(self, texts: Sequence[str], length: int | None = None) -> Tensor:
        """Texts -> ids [B, N] of all tokenizers, side by side, each padded and cut to its context length.

        With ``length``, each is cut to that: where the encoders are causal, no more is needed to read short texts.
        """
        parts = []
        for tokenizer, limit in zip(self.tokenizers, self.context_lengths, strict=True):
            most = min(limit, length or limit)
            parts.append(tokenizer(self._spelled(texts), padding="max_length", max_length=most, truncation=True))
        return torch.cat([torch.tensor(part.input_ids) for part in parts], dim=1).to(self.device)

    def readings(self, texts: Sequence[str]) -> list[tuple[tuple[int, ...], ...]]:
        """The ids of each text by each tokenizer, neither padded nor cut: texts with equal ones are the same prompt."""
        if not texts:
            return []
        # Not verbose: that a text is long is for the caller to judge.
        read = [tokenizer(self._spelled(texts), verbose=False).input_ids for tokenizer in self.tokenizers]
        return [tuple(map(tuple, ids)) for ids in zip(*read, strict=True)]

    def encode(self, ids: Tensor) -> TextOutput:
        """Ids as from ``token_ids`` -> hidden [B, L + R, D] and pooled [B, P]."""
        return self.conditioning.encode(self, self._parts(ids.to(self.device)))

    def _parts(self, ids: Tensor) -> Sequence[Tensor]:
        """The ids of each tokenizer."""
        whole = ids.shape[1] == sum(self.context_lengths)
        return torch.split(ids, list(self.context_lengths), dim=1) if whole else ids.chunk(len(self.tokenizers), dim=1)

    @torch.no_grad()
    def unconditional(self) -> Tensor:
        """What the denoiser is given [1, L + R, D] in the negative half where no negative prompt is asked for."""
        hidden = self.encode(self.token_ids([""])).hidden
        zeros = self.family.id == "sdxl" and self.checkpoint.index.get("force_zeros_for_empty_prompt", True)
        return torch.zeros_like(hidden) if zeros else hidden

    def tokens_of(self, hidden: Tensor) -> Tensor:
        """The tokens' rows [B, L, D] of text outputs [B, L + R, D], without what is packed behind them."""
        return unpack(hidden, self.conditioning.packed(self))[0]

    def pooled(self, ids: Tensor, anchor: Tensor | None = None) -> Tensor:
        """``encode(ids).pooled``, in a fraction of the time where the encoder allows it.

        ``anchor`` [L]: ids of a text that most rows begin like (default: the first row).
        """
        ids = ids.to(self.device)
        anchors = self._parts(ids[:1] if anchor is None else anchor[None].to(self.device))
        return self.conditioning.pooled(self, self._parts(ids), anchors)

    def predict_noise(self, latents: Tensor, timestep: int | Tensor, hidden: Tensor) -> Tensor:
        """The noise in ``latents`` [B, C, h, w] at ``timestep`` (one, or [B]) given ``hidden`` [B, L + R, D].

        Models that predict velocity or the clean latent are converted.
        """
        latents, output = self._raw(latents, timestep, hidden, GUIDANCE)
        return self.schedule.noise_of(output, latents, timestep)

    def noised(self, latents: Tensor, noise: Tensor, timestep: int | Tensor) -> Tensor:
        """Clean ``latents`` [B, C, h, w] with as much ``noise`` as there is at ``timestep`` (one, or [B])."""
        signal, amount = (share.to(noise) for share in self.schedule.shares(timestep))
        return signal * latents + amount * noise

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
        """From noise ``latents`` [B, C, h, w] to clean latents, as diffusers' pipeline does it with a deterministic
        scheduler: DDIM, or Euler for flow matching.

        ``hidden`` [B, L + R, D]; ``negative`` [1 or B, L + R, D] is used if ``guidance`` > 1: then every call of the
        denoiser holds the negative half of the batch first. Where guidance is an input of the denoiser, there is no
        such half. ``callback(step, timestep, latents)`` is called after each step.
        """
        _, height, width = latents.shape[1:]
        sampler = self.schedule.sampler(steps, height * width // 4, self.device)
        latents = latents.to(self.device, self.dtype) * getattr(sampler, "init_noise_sigma", 1.0)
        guided = guidance > 1 and self.conditioning.guided
        text = torch.cat([negative.expand_as(hidden), hidden]) if guided else hidden
        for step, time in enumerate(sampler.timesteps):
            _, output = self._raw(torch.cat([latents, latents]) if guided else latents, time, text, guidance)
            if guided:
                plain, told = output.chunk(2)
                output = plain + guidance * (told - plain)
            latents = sampler.step(output, time, latents).prev_sample
            if callback is not None:
                callback(step, int(time), latents)
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pictures [B, 3, H, W] in 0..1."""
        config = self.vae.config
        # Some VAEs overflow in half precision and stay in single (see loader).
        latents = latents.to(self.device, self.vae.dtype)
        mean, spread = config.get("latents_mean", None), config.get("latents_std", None)
        if mean is not None and spread is not None:
            center, unit = (latents.new_tensor(values).view(1, -1, 1, 1) for values in (mean, spread))
            latents = latents * unit / config.scaling_factor + center
        else:
            latents = latents / config.scaling_factor + (config.get("shift_factor", None) or 0.0)
        pictures: Tensor = self.vae.decode(latents).sample
        return (pictures / 2 + 0.5).clamp(0, 1)

    def module(self, component: str) -> Any:
        """A component's module by the name that it has on disk."""
        return self.unet if component == self.family.denoiser else getattr(self, component)

    def disk_tensor(self, component: str, parameter: str) -> TensorRef:
        """Where a module's parameter lies on disk; ``parameter`` with or without ``text_model.``. Raises KeyError."""
        return self.disk[component, canonical(parameter)]

    @torch.no_grad()
    def apply(self, patch: WeightPatch) -> None:
        """Puts a patch's values into the modules in memory. Raises KeyError for a tensor that is not loaded."""
        places = {ref: place for place, ref in self.disk.items()}
        for ref, value in patch.tensors.items():
            part = self.stored(*places[ref])
            part.copy_(value.reshape(part.shape))

    def stored(self, component: str, key: str) -> Tensor:
        """What a place on disk holds: a parameter, or that part of it that ``key`` goes on to name (``...[49408]``)."""
        name, bracket, view = key.partition("[")
        tensors = {canonical(name): tensor for name, tensor in self.module(component).state_dict().items()}
        return viewed(tensors[name], bracket + view)

    def answer(self, latents: Tensor, timestep: int, hidden: Tensor) -> Tensor:
        """The denoiser's output [B, C, h, w] as it is, whatever it predicts."""
        return self._raw(latents, timestep, hidden, GUIDANCE)[1]

    def _raw(self, latents: Tensor, timestep: int | Tensor, hidden: Tensor, guidance: float) -> tuple[Tensor, Tensor]:
        """The latents as the denoiser was given them, and its output as it is."""
        latents = latents.to(self.device, self.dtype)
        times = torch.as_tensor(timestep, device=self.device).expand(len(latents))
        output = self.conditioning.ask(self, latents, times, hidden.to(self.device, self.dtype), guidance)
        return latents, output

    def _spelled(self, texts: Sequence[str]) -> list[str]:
        for word, expanded in self.expand:
            texts = [text.replace(word, expanded) for text in texts]
        return [text.lower().strip() for text in texts] if self.family.folds_case else list(texts)
