"""The recorder sees what the denoiser's attention does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from sau_scan.attention import AttentionRecorder, MeanMaps, TokenMass, cross_attention_sites
from sau_scan.attention.recompute import attention_probabilities
from sau_scan.attention.recorder import map_shape
from tests.attention.denoisers import CONTEXT, PROCESSORS, WIDTH, hook_count, inputs, tiny_unet


class TestSeesTheTruth:
    """Recomputed probabilities, applied to the module's values, give what the module itself returns."""

    SETTINGS: tuple[dict[str, Any], ...] = (
        {},
        {"norm_num_groups": 2},
        {"cross_attention_norm": "layer_norm"},
        {"cross_attention_norm": "group_norm", "cross_attention_norm_num_groups": 3},
        {"upcast_attention": True, "upcast_softmax": True},
        {"scale_qk": False},
        {"qk_norm": "layer_norm"},
        {"bias": True},
    )

    @pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
    @pytest.mark.parametrize("processor", PROCESSORS)
    @pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(s) or "plain")
    def test_probabilities(self, settings: dict[str, Any], processor: str, masked: bool) -> None:
        torch.manual_seed(0)
        attn = Attention(16, WIDTH, heads=2, dim_head=8, processor=PROCESSORS[processor](), **settings).eval()
        for parameter in attn.parameters():
            nn.init.normal_(parameter, std=0.4)
        hidden, context = torch.randn(3, 12, 16), torch.randn(3, CONTEXT, WIDTH)
        mask = torch.zeros(3, 1, CONTEXT)
        mask[0, :, 4:] = -10_000.0
        given = mask if masked else None
        with torch.no_grad():
            expected = attn(hidden, encoder_hidden_states=context, attention_mask=given)
            probabilities = attention_probabilities(attn, hidden, context, given)
            normed = attn.norm_encoder_hidden_states(context) if attn.norm_cross is not None else context
            values = attn.to_v(normed).unflatten(-1, (2, 8)).transpose(1, 2)
            ours = attn.to_out[0]((probabilities @ values).transpose(1, 2).flatten(2))
        assert torch.allclose(ours, expected, atol=1e-5)
        assert torch.allclose(probabilities.sum(-1), torch.ones(3, 2, 12))
        assert bool(probabilities[0, ..., 4:].max() < 1e-6) is masked

    def test_mean_map_is_the_mean_over_heads_and_layers(self) -> None:
        unet = tiny_unet()
        latents, hidden = inputs(2)
        seen: list[Tensor] = []

        def spy(attn: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            assert isinstance(attn, Attention)
            maps = attention_probabilities(attn, args[0], kwargs["encoder_hidden_states"]).mean(1)
            side = int(maps.shape[1] ** 0.5)
            grid = maps.transpose(1, 2).unflatten(-1, (side, side))
            seen.append(grid.repeat_interleave(8 // side, -1).repeat_interleave(8 // side, -2))

        for attn in cross_attention_sites(unet).values():
            attn.register_forward_pre_hook(spy, with_kwargs=True)
        mean = MeanMaps()
        with AttentionRecorder(unet, mean), torch.no_grad():
            unet(latents, 9, encoder_hidden_states=hidden)
        assert len(seen) == len(cross_attention_sites(unet)) > 1
        assert mean.value is not None
        assert torch.allclose(mean.value, torch.stack(seen).mean(0), atol=1e-6)

    def test_mask_of_the_prompt_is_respected(self) -> None:
        unet = tiny_unet()
        latents, hidden = inputs(2)
        mask = torch.ones(2, CONTEXT)
        mask[:, 5:] = 0
        mass = TokenMass()
        with AttentionRecorder(unet, mass), torch.no_grad():
            unet(latents, 9, encoder_hidden_states=hidden, encoder_attention_mask=mask)
        assert mass.value is not None
        assert float(mass.value[:, 5:].max()) < 1e-6 < float(mass.value[:, :5].min())

    def test_halves_of_a_guided_batch(self) -> None:
        unet = tiny_unet()
        latents, hidden = inputs(4)
        results = {}
        for half in ("all", "unconditional", "conditional"):
            mean = MeanMaps()
            with AttentionRecorder(unet, mean, half=half), torch.no_grad():  # type: ignore[arg-type]
                unet(latents, 9, encoder_hidden_states=hidden)
            assert mean.value is not None
            results[half] = mean.value
        assert torch.allclose(results["all"], torch.cat([results["unconditional"], results["conditional"]]), atol=1e-6)
        assert not torch.allclose(results["unconditional"], results["conditional"], atol=1e-4)

    def test_an_odd_batch_has_no_halves(self) -> None:
        unet = tiny_unet()
        latents, hidden = inputs(3)
        with pytest.raises(ValueError, match="no two halves"), AttentionRecorder(unet, half="conditional"):
            unet(latents, 9, encoder_hidden_states=hidden)
        assert hook_count(unet) == 0

    @pytest.mark.parametrize("size", [(8, 8), (16, 8), (12, 20)])
    def test_latents_of_other_sizes(self, size: tuple[int, int]) -> None:
        unet = tiny_unet()
        latents, hidden = inputs(1, size)
        mean = MeanMaps()
        with AttentionRecorder(unet, mean) as recorder, torch.no_grad():
            unet(latents, 9, encoder_hidden_states=hidden)
        assert recorder.skipped == ()
        assert mean.value is not None
        assert mean.value.shape == (1, CONTEXT, *size)

    def test_map_shape(self) -> None:
        assert map_shape(64, (8, 8)) == (8, 8)
        assert map_shape(15, (9, 5)) == (5, 3)
        assert map_shape(128, (16, 8)) == (16, 8)
        assert map_shape(7, (8, 8)) is None
        assert map_shape(16, None) == (4, 4)
        assert map_shape(8, None) is None
