"""What a zoo model consists of in every family: what its text encoders make of a prompt, one pass of its denoiser.

Each family is fed as its diffusers pipeline feeds it. SD2's text encoder is a CLIP without its last layer; SDXL has
two, of which it takes the last but one hidden states side by side, and the second one's projected text beside them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
# Original size, top left corner of the crop, target size: a whole picture of 64x64.
WHOLE = (64.0, 64.0, 0.0, 0.0, 64.0, 64.0)


class Parts(NamedTuple):
    """What attacks work on, in single precision; SDXL has a second tokenizer and text encoder."""

    tokenizer: CLIPTokenizer
    text: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    tokenizer_2: CLIPTokenizer | None = None
    text_2: CLIPTextModelWithProjection | None = None
    prediction: str = "epsilon"

    def to(self, device: torch.device) -> Parts:
        networks = {k: v.to(device) for k, v in self._asdict().items() if isinstance(v, torch.nn.Module)}
        return self._replace(**networks)


@dataclass(frozen=True)
class Text:
    """What a denoiser is fed: encoder outputs [N, L, D] and, for SDXL, the pooled text [N, P]."""

    hidden: torch.Tensor
    pooled: torch.Tensor | None = None

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Text:
        """This with ``change`` done to each tensor."""
        return Text(change(self.hidden), None if self.pooled is None else change(self.pooled))

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, pick: Any) -> Text:
        return self.map(lambda held: held[pick])

    def float(self) -> Text:
        return self.map(torch.Tensor.float)

    def half(self) -> Text:
        return self.map(torch.Tensor.half)

    def repeat(self, count: int) -> Text:
        """One text ``count`` times."""
        return self.map(lambda held: held.expand(count, *held.shape[1:]))

    def where(self, picked: torch.Tensor, other: Text) -> Text:
        """``other`` where ``picked`` [N], else this; ``other`` may be a single text."""

        def mixed(own: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
            return torch.where(picked.view(-1, *[1] * (own.dim() - 1)), others, own)

        pooled = None if self.pooled is None or other.pooled is None else mixed(self.pooled, other.pooled)
        return Text(mixed(self.hidden, other.hidden), pooled)

    @staticmethod
    def cat(texts: Sequence[Text]) -> Text:
        pooled = [t.pooled for t in texts if t.pooled is not None]
        return Text(torch.cat([t.hidden for t in texts]), torch.cat(pooled) if pooled else None)


def token_ids(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Padded ids [N, context]."""
    return tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    ).input_ids


def encode(parts: Parts, prompts: Sequence[str]) -> Text:
    """What the pipeline makes of ``prompts`` for its UNet."""
    ids = token_ids(parts.tokenizer, prompts).to(parts.text.device)
    if parts.text_2 is None or parts.tokenizer_2 is None:
        return Text(parts.text(ids).last_hidden_state)
    first = parts.text(ids, output_hidden_states=True).hidden_states[-2]
    second = parts.text_2(token_ids(parts.tokenizer_2, prompts).to(ids.device), output_hidden_states=True)
    return Text(torch.cat([first, second.hidden_states[-2]], -1), second.text_embeds)


@torch.no_grad()
def encode_all(parts: Parts, prompts: Sequence[str], chunk: int = 500) -> Text:
    """``encode`` of many prompts, in half precision."""
    return Text.cat([encode(parts, prompts[i : i + chunk]).half() for i in range(0, len(prompts), chunk)])


@torch.no_grad()
def unconditional(parts: Parts) -> Text:
    """What guidance leads away from: the empty prompt, or nothing at all where the pipeline takes zeros for it."""
    empty = encode(parts, [""])
    return empty if empty.pooled is None else Text(torch.zeros_like(empty.hidden), torch.zeros_like(empty.pooled))


def denoise(
    unet: UNet2DConditionModel, x: torch.Tensor, t: Any, text: Text, sizes: torch.Tensor | None = None
) -> torch.Tensor:
    """The UNet's prediction [N, C, h, w] in single precision; ``sizes`` [N, 6] are SDXL's time ids."""
    if text.pooled is None:
        return unet(x, t, text.hidden).sample.float()
    if sizes is None:
        sizes = torch.tensor(WHOLE, device=x.device).expand(len(x), -1)
    return unet(x, t, text.hidden, added_cond_kwargs={"text_embeds": text.pooled, "time_ids": sizes}).sample.float()


def scheduler(prediction: str = "epsilon") -> DDIMScheduler:
    return DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type=prediction)


def load(folder: Path) -> Parts:
    """The parts of a pipeline folder of ours (trusted: it was written by this package)."""
    how = {"torch_dtype": torch.float32, "use_safetensors": True, "local_files_only": True}
    text = {"dtype": torch.float32, "use_safetensors": True, "local_files_only": True}
    parts = Parts(
        CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        CLIPTextModel.from_pretrained(folder / "text_encoder", **text).eval(),
        AutoencoderKL.from_pretrained(folder / "vae", **how).eval(),
        UNet2DConditionModel.from_pretrained(folder / "unet", **how).eval(),
        prediction=json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["prediction_type"],
    )
    if not (folder / "text_encoder_2").is_dir():
        return parts
    return parts._replace(
        tokenizer_2=CLIPTokenizer.from_pretrained(folder / "tokenizer_2", local_files_only=True),
        text_2=CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2", **text).eval(),
    )
