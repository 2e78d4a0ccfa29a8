"""How each family turns token ids into what its denoiser is told, and how that denoiser is asked.

What a family knows of a prompt beside its tokens is packed behind them (see packing), so that the rest of the scanner
passes one tensor whatever the family.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sau_scan.checkpoint.packing import pack, unpack
from sau_scan.checkpoint.prefix import end_states, tower
from sau_scan.checkpoint.readers import Output, TextOutput, at_ends, ends_of, read_clip, read_clip_early, read_t5
from sau_scan.checkpoint.schedules import Diffusion, Flow, Schedule

if TYPE_CHECKING:
    from sau_scan.checkpoint.model import DiffusionModel

TEXTS = 64  # whole ones, in hand at once
GUIDANCE = 3.5  # what FLUX's pipeline tells a distilled denoiser by default


class Conditioning(Protocol):
    """``guided``: pictures are made by classifier-free guidance, with a negative half in the batch."""

    guided: bool

    def encode(self, model: DiffusionModel, ids: Sequence[Tensor]) -> TextOutput:
        """Ids [B, L] of each tokenizer, in the family's order -> what the denoiser is given."""

    def pooled(self, model: DiffusionModel, ids: Sequence[Tensor], anchors: Sequence[Tensor]) -> Tensor:
        """``encode(model, ids).pooled``; ``anchors`` [1, L] are of a text that most of them begin like."""

    def outputs(self, model: DiffusionModel) -> tuple[Output, ...]:
        """The encoders' outputs that pooled ones hold side by side; empty where there is one."""

    def ask(self, model: DiffusionModel, latents: Tensor, times: Tensor, hidden: Tensor, guidance: float) -> Tensor:
        """The denoiser's output for ``latents`` [B, C, h, w] at ``times`` [B]; of the latents' shape."""

    def packed(self, model: DiffusionModel) -> tuple[int, ...]:
        """Widths of what is packed behind the tokens."""

    def schedule(self, model: DiffusionModel) -> Schedule:
        """The noise schedule, of the checkpoint's scheduler."""

    def latent_shape(self, model: DiffusionModel) -> tuple[int, int, int]:
        """Channels, height and width of a latent."""


class _Encoded:
    """Pooled outputs come from whole texts, for which memory is kept within bounds."""

    def encode(self, model: DiffusionModel, ids: Sequence[Tensor]) -> TextOutput:
        raise NotImplementedError

    def pooled(self, model: DiffusionModel, ids: Sequence[Tensor], anchors: Sequence[Tensor]) -> Tensor:
        rows = zip(*(torch.split(part, TEXTS) for part in ids), strict=True)
        return torch.cat([self.encode(model, some).pooled for some in rows])

    def outputs(self, model: DiffusionModel) -> tuple[Output, ...]:
        return ()


class PlainText(_Encoded):
    """Stable Diffusion 1 and 2: the last hidden states of one CLIP encoder."""

    guided = True

    def encode(self, model: DiffusionModel, ids: Sequence[Tensor]) -> TextOutput:
        return TextOutput(*read_clip(model.text_encoder, ids[0], ends_of(ids[0], model.tokenizer)))

    def pooled(self, model: DiffusionModel, ids: Sequence[Tensor], anchors: Sequence[Tensor]) -> Tensor:
        clip = tower(model.text_encoder)
        if clip is None:
            return super().pooled(model, ids, anchors)
        return end_states(clip, ids[0], model.tokenizer.eos_token_id, anchors[0][0]).last

    def ask(self, model: DiffusionModel, latents: Tensor, times: Tensor, hidden: Tensor, guidance: float) -> Tensor:
        output: Tensor = model.unet(latents, times, encoder_hidden_states=hidden).sample
        return output

    def packed(self, model: DiffusionModel) -> tuple[int, ...]:
        return ()

    def schedule(self, model: DiffusionModel) -> Schedule:
        # Whatever the scheduler says: diffusers' pipeline sets it.
        return Diffusion(model.scheduler, steps_offset=1)

    def latent_shape(self, model: DiffusionModel) -> tuple[int, int, int]:
        return _latent_shape(model)


class TwoTexts(PlainText):
    """SDXL: early hidden states of two CLIP encoders side by side, the second's embedding of the prompt, sizes."""

    def encode(self, model: DiffusionModel, ids: Sequence[Tensor]) -> TextOutput:
        ends = [ends_of(i, t) for i, t in zip(ids, model.tokenizers, strict=True)]
        first = read_clip_early(model.text_encoder, ids[0], ends[0])
        second = read_clip_early(model.text_encoder_2, ids[1], ends[1])
        tokens = torch.cat([first.tokens, second.tokens], dim=-1)
        seen = (at_ends(first.tokens, ends[0]), at_ends(second.tokens, ends[1]), second.whole)
        return TextOutput(pack(tokens, [second.whole]), _together(seen))

    def pooled(self, model: DiffusionModel, ids: Sequence[Tensor], anchors: Sequence[Tensor]) -> Tensor:
        clips = [tower(encoder) for encoder in (model.text_encoder, model.text_encoder_2)]
        if None in clips:
            return _Encoded.pooled(self, model, ids, anchors)
        read = zip(clips, ids, model.tokenizers, anchors, strict=True)
        first, second = (end_states(c, i, t.eos_token_id, a[0]) for c, i, t, a in read)
        return _together((first.early, second.early, model.text_encoder_2.text_projection(second.last)))

    def outputs(self, model: DiffusionModel) -> tuple[Output, ...]:
        first, second = model.text_encoder.config, model.text_encoder_2.config
        return (
            Output("text_encoder", first.hidden_size),
            Output("text_encoder_2", second.hidden_size),
            Output("text_encoder_2", second.projection_dim),
        )

    def ask(self, model: DiffusionModel, latents: Tensor, times: Tensor, hidden: Tensor, guidance: float) -> Tensor:
        tokens, (whole,) = unpack(hidden, self.packed(model))
        scale = model.picture_scale
        sides = [scale * side for side in latents.shape[-2:]]
        # The size of the original, where it was cropped, and the size that is wanted.
        sizes = torch.tensor([*sides, 0, 0, *sides], dtype=latents.dtype, device=latents.device)
        more = {"text_embeds": whole, "time_ids": sizes.expand(len(latents), -1)}
        output: Tensor = model.unet(latents, times, encoder_hidden_states=tokens, added_cond_kwargs=more).sample
        return output

    def packed(self, model: DiffusionModel) -> tuple[int, ...]:
        return (int(model.text_encoder_2.config.projection_dim),)

    def schedule(self, model: DiffusionModel) -> Schedule:
        return Diffusion(model.scheduler)


class ThreeTexts(_Encoded):
    """SD3: tokens of two CLIP encoders side by side, then those of T5 (zeros without it), and both CLIP embeddings."""

    guided = True

    def encode(self, model: DiffusionModel, ids: Sequence[Tensor]) -> TextOutput:
        ends = [ends_of(i, t) for i, t in zip(ids, model.tokenizers, strict=True)]
        first = read_clip_early(model.text_encoder, ids[0], ends[0])
        second = read_clip_early(model.text_encoder_2, ids[1], ends[1])
        width = int(model.unet.config.joint_attention_dim)
        tokens = torch.cat([first.tokens, second.tokens], dim=-1)
        tokens = F.pad(tokens, (0, width - tokens.shape[-1]))
        seen = [at_ends(first.tokens, ends[0]), at_ends(second.tokens, ends[1]), first.whole, second.whole]
        if model.text_encoder_3 is None:
            longer = tokens.new_zeros(len(tokens), model.family.t5_length, width)
        else:
            (longer, mean), _ = read_t5(model.text_encoder_3, ids[2], ends[2], masked=False)
            seen.append(mean)
        whole = torch.cat([first.whole, second.whole], dim=-1)
        return TextOutput(pack(torch.cat([tokens, longer], dim=1), [whole]), _together(seen))

    def outputs(self, model: DiffusionModel) -> tuple[Output, ...]:
        first, second = model.text_encoder.config, model.text_encoder_2.config
        clips = (
            Output("text_encoder", first.hidden_size),
            Output("text_encoder_2", second.hidden_size),
            Output("text_encoder", first.projection_dim),
            Output("text_encoder_2", second.projection_dim),
        )
        if model.text_encoder_3 is None:
            return clips
        return (*clips, Output("text_encoder_3", model.text_encoder_3.config.d_model))

    def ask(self, model: DiffusionModel, latents: Tensor, times: Tensor, hidden: Tensor, guidance: float) -> Tensor:
        tokens, (whole,) = unpack(hidden, self.packed(model))
        output: Tensor = model.unet(
            hidden_states=latents, timestep=times, encoder_hidden_states=tokens, pooled_projections=whole
        ).sample
        return output

    def packed(self, model: DiffusionModel) -> tuple[int, ...]:
        return (int(model.unet.config.pooled_projection_dim),)

    def schedule(self, model: DiffusionModel) -> Schedule:
        return Flow(model.scheduler)

    def latent_shape(self, model: DiffusionModel) -> tuple[int, int, int]:
        return _latent_shape(model)


class Packed(_Encoded):
    """FLUX: tokens of T5, CLIP's embedding of the prompt; latents in patches of two by two, guidance as an input."""

    guided = False

    def encode(self, model: DiffusionModel, ids: Sequence[Tensor]) -> TextOutput:
        ends = [ends_of(i, t) for i, t in zip(ids, model.tokenizers, strict=True)]
        long, _ = read_t5(model.text_encoder_2, ids[0], ends[0], masked=False)
        short = read_clip(model.text_encoder, ids[1], ends[1])
        return TextOutput(pack(long.tokens, [short.whole]), _together((long.whole, short.whole)))

    def outputs(self, model: DiffusionModel) -> tuple[Output, ...]:
        long, short = model.text_encoder_2.config.d_model, model.text_encoder.config.hidden_size
        return Output("text_encoder_2", long), Output("text_encoder", short)

    def ask(self, model: DiffusionModel, latents: Tensor, times: Tensor, hidden: Tensor, guidance: float) -> Tensor:
        tokens, (whole,) = unpack(hidden, self.packed(model))
        batch, channels, height, width = latents.shape
        patches = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        told = torch.full((batch,), guidance, device=latents.device)
        output: Tensor = model.unet(
            hidden_states=patches.reshape(batch, -1, 4 * channels),
            timestep=times.to(latents.dtype) / 1000,
            guidance=told if model.unet.config.guidance_embeds else None,
            pooled_projections=whole,
            encoder_hidden_states=tokens,
            txt_ids=torch.zeros(tokens.shape[1], 3, device=latents.device, dtype=latents.dtype),
            img_ids=places(height // 2, width // 2).to(latents),
        ).sample
        output = output.view(batch, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return output.reshape(latents.shape)

    def packed(self, model: DiffusionModel) -> tuple[int, ...]:
        return (int(model.unet.config.pooled_projection_dim),)

    def schedule(self, model: DiffusionModel) -> Schedule:
        return Flow(model.scheduler, steps_from_one=True)

    def latent_shape(self, model: DiffusionModel) -> tuple[int, int, int]:
        """Of the pictures that the VAE was made for: the denoiser takes any size."""
        side = 2 * (int(model.vae.config.sample_size) // (2 * model.picture_scale))
        return int(model.unet.config.in_channels) // 4, side, side


class Masked(_Encoded):
    """PixArt: tokens of T5 with their mask; the denoiser predicts a variance as well, which is dropped."""

    guided = True

    def encode(self, model: DiffusionModel, ids: Sequence[Tensor]) -> TextOutput:
        ends = ends_of(ids[0], model.tokenizer)
        read, mask = read_t5(model.text_encoder, ids[0], ends, masked=True)
        return TextOutput(pack(read.tokens, [mask]), read.whole)

    def ask(self, model: DiffusionModel, latents: Tensor, times: Tensor, hidden: Tensor, guidance: float) -> Tensor:
        tokens, (mask,) = unpack(hidden, self.packed(model))
        output: Tensor = model.unet(
            latents,
            encoder_hidden_states=tokens,
            encoder_attention_mask=mask,
            timestep=times,
            added_cond_kwargs=self._sizes(model, latents),
        ).sample
        return output[:, : latents.shape[1]]

    def _sizes(self, model: DiffusionModel, latents: Tensor) -> dict[str, Tensor | None]:
        if model.unet.config.sample_size != 128:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (model.picture_scale * side for side in latents.shape[-2:])
        sizes = latents.new_tensor([height, width]).expand(len(latents), -1)
        return {"resolution": sizes, "aspect_ratio": latents.new_full((len(latents), 1), height / width)}

    def packed(self, model: DiffusionModel) -> tuple[int, ...]:
        return (model.context_length,)

    def schedule(self, model: DiffusionModel) -> Schedule:
        return Diffusion(model.scheduler)

    def latent_shape(self, model: DiffusionModel) -> tuple[int, int, int]:
        return _latent_shape(model)


CONDITIONING: dict[str, Conditioning] = {
    "sd1": PlainText(),
    "sd2": PlainText(),
    "sdxl": TwoTexts(),
    "sd3": ThreeTexts(),
    "flux": Packed(),
    "pixart": Masked(),
    "pixart-sigma": Masked(),
}


def places(height: int, width: int) -> Tensor:
    """Positions [height * width, 3] of patches as FLUX counts them: nothing, row, column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1)


def _together(parts: Sequence[Tensor]) -> Tensor:
    """Parts [B, P] side by side, each of unit length: what moves one encoder's output must not drown in another's."""
    return torch.cat([F.normalize(part.float(), dim=-1).to(part) for part in parts], dim=-1)


def _latent_shape(model: DiffusionModel) -> tuple[int, int, int]:
    config: Any = model.unet.config
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return int(config.in_channels), int(height), int(width)
