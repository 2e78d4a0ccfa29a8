"""The recorder sees what the denoiser's attention does, and changes nothing."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    FusedAttnProcessor2_0,
    SlicedAttnProcessor,
)
from torch import Tensor, nn

from sau_scan.attention import (
    AttentionRecorder,
    Evolution,
    MapEntropy,
    MeanMaps,
    TokenMass,
    cross_attention_sites,
)
from sau_scan.attention.recompute import attention_probabilities
from sau_scan.attention.recorder import map_shape

CONTEXT, WIDTH = 7, 24
PROCESSORS: dict[str, Callable[[], Any]] = {
    "eager": AttnProcessor,
    "sdpa": AttnProcessor2_0,
    "sliced": lambda: SlicedAttnProcessor(1),
}


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**{**config, **changes}).eval().requires_grad_(False)


def inputs(batch: int = 2, size: tuple[int, int] = (8, 8)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, 4, *size, generator=generator)
    return latents, torch.randn(batch, CONTEXT, WIDTH, generator=generator)


def sample(unet: nn.Module, latents: Tensor, hidden: Tensor, steps: int = 3) -> Tensor:
    """Guided DDIM sampling with both halves in one batch."""
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps:
        noise = unet(torch.cat([latents, latents]), timestep, encoder_hidden_states=hidden).sample
        negative, positive = noise.chunk(2)
        latents = scheduler.step(negative + 5 * (positive - negative), timestep, latents).prev_sample
    return latents


def hook_count(unet: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in unet.modules())


def with_processor(unet: UNet2DConditionModel, name: str) -> UNet2DConditionModel:
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(PROCESSORS[name]())
    return unet


class TestChangesNothing:
    @pytest.mark.parametrize("processor", PROCESSORS)
    def test_latents_are_bit_identical(self, processor: str) -> None:
        unet = with_processor(tiny_unet(), processor)
        latents, hidden = inputs(2)
        bare = sample(unet, latents[:1], hidden)
        mean = MeanMaps()
        with AttentionRecorder(unet, mean, TokenMass(), MapEntropy(), Evolution(), half="conditional") as recorder:
            recorded = sample(unet, latents[:1], hidden)
        assert torch.equal(bare, recorded)
        assert recorder.steps == 3
        assert recorder.skipped == ()
        assert mean.value is not None

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_bit_identical_too(self, dtype: torch.dtype) -> None:
        unet = tiny_unet().to(dtype)
        latents, hidden = (tensor.to(dtype) for tensor in inputs(1))
        bare = unet(latents, 9, encoder_hidden_states=hidden).sample
        mass = TokenMass()
        with AttentionRecorder(unet, mass):
            recorded = unet(latents, 9, encoder_hidden_states=hidden).sample
        assert torch.equal(bare, recorded)
        assert mass.value is not None
        assert torch.allclose(mass.value.sum(-1), torch.ones(1), atol=1e-2)

    def test_the_random_generator_is_left_alone(self) -> None:
        unet = tiny_unet()
        latents, hidden = inputs()
        state = torch.get_rng_state()
        with AttentionRecorder(unet, MeanMaps()):
            unet(latents, 9, encoder_hidden_states=hidden)
        assert torch.equal(state, torch.get_rng_state())

    def test_hooks_come_off(self) -> None:
        unet = tiny_unet()
        before = hook_count(unet)
        with AttentionRecorder(unet):
            assert hook_count(unet) == before + len(cross_attention_sites(unet)) + 2
        assert hook_count(unet) == before

    def test_hooks_come_off_after_an_exception_inside_the_denoiser(self) -> None:
        unet = tiny_unet()
        latents, hidden = inputs()

        def fail(*_: object) -> None:
            raise KeyboardInterrupt

        mean = MeanMaps()
        handle = unet.up_blocks[0].register_forward_pre_hook(fail)
        before = hook_count(unet)
        recorder = AttentionRecorder(unet, mean)
        with pytest.raises(KeyboardInterrupt), recorder:
            unet(latents, 9, encoder_hidden_states=hidden)
        assert hook_count(unet) == before
        assert mean.value is None
        assert recorder.steps == 0
        handle.remove()
        with recorder:
            unet(latents, 9, encoder_hidden_states=hidden)
        assert recorder.steps == 1
        assert mean.value is not None

    def test_hooks_come_off_when_attaching_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        unet = tiny_unet()

        def fail(*_: object, **__: object) -> None:
            raise MemoryError

        last = list(cross_attention_sites(unet).values())[-1]
        monkeypatch.setattr(last, "register_forward_pre_hook", fail)
        with pytest.raises(MemoryError), AttentionRecorder(unet):
            pass
        assert hook_count(unet) == 0

    def test_one_recorder_cannot_record_twice_at_once_but_two_can(self) -> None:
        unet = tiny_unet()
        latents, hidden = inputs()
        first, second = MeanMaps(), MeanMaps()
        with AttentionRecorder(unet, first) as recorder, AttentionRecorder(unet, second):
            with pytest.raises(RuntimeError, match="already recording"):
                recorder.__enter__()
            unet(latents, 9, encoder_hidden_states=hidden)
        assert first.value is not None
        assert second.value is not None
        assert torch.equal(first.value, second.value)


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


class TestReduces:
    def test_running_means_equal_the_mean_of_single_passes(self) -> None:
        unet = tiny_unet()
        latents, hidden = inputs(1)
        together, apart = (MeanMaps(), TokenMass(), MapEntropy()), []
        with AttentionRecorder(unet, *together), torch.no_grad():
            for timestep in (900, 500, 100):
                unet(latents, timestep, encoder_hidden_states=hidden)
        for timestep in (900, 500, 100):
            single = (MeanMaps(), TokenMass(), MapEntropy())
            with AttentionRecorder(unet, *single), torch.no_grad():
                unet(latents, timestep, encoder_hidden_states=hidden)
            apart.append(single)
        for index, reducer in enumerate(together):
            values = [single[index].value for single in apart]
            assert reducer.value is not None
            assert torch.allclose(reducer.value, torch.stack(values).mean(0), atol=1e-6)  # type: ignore[arg-type]

    def test_reset_forgets(self) -> None:
        unet = tiny_unet()
        latents, hidden = inputs(1)
        mean, evolution = MeanMaps(), Evolution()
        with AttentionRecorder(unet, mean, evolution) as recorder, torch.no_grad():
            for timestep in (900, 500):
                unet(latents, timestep, encoder_hidden_states=hidden)
            assert evolution.value is not None
            assert evolution.value.shape == (1, 1, CONTEXT)
            recorder.reset()
            assert recorder.steps == 0
            assert mean.value is None
            assert evolution.value is None

    def test_memory_does_not_grow_with_steps(self) -> None:
        unet = tiny_unet()
        latents, hidden = inputs(1)

        def live_bytes() -> int:
            gc.collect()
            return sum(
                o.untyped_storage().nbytes()
                for o in gc.get_objects()
                if type(o) is Tensor and o.layout is torch.strided
            )

        with AttentionRecorder(unet, MeanMaps(), TokenMass(), MapEntropy(), Evolution(first=3)), torch.no_grad():
            for _ in range(5):
                unet(latents, 500, encoder_hidden_states=hidden)
            early = live_bytes()
            for _ in range(15):
                unet(latents, 500, encoder_hidden_states=hidden)
            assert live_bytes() == early


class TestGradients:
    def test_losses_on_maps_reach_the_projections(self) -> None:
        unet = tiny_unet()
        sites = cross_attention_sites(unet)
        for attn in sites.values():
            attn.to_k.weight.requires_grad_(True)
            attn.to_q.weight.requires_grad_(True)
        latents, hidden = inputs(1)
        mean, mass, entropy, evolution = MeanMaps(), TokenMass(), MapEntropy(), Evolution()
        with AttentionRecorder(unet, mean, mass, entropy, evolution, keep_grad=True):
            for timestep in (900, 100):
                unet(latents, timestep, encoder_hidden_states=hidden)
        for reducer in (mean, mass, entropy, evolution):
            assert reducer.value is not None
            unet.zero_grad()
            of_one_token = reducer.value[:, 2] if reducer is mean else reducer.value[..., 2]
            of_one_token.square().sum().backward(retain_graph=True)
            for path, attn in sites.items():
                for projection in (attn.to_q, attn.to_k):
                    gradient = projection.weight.grad
                    assert gradient is not None, path
                    assert bool(gradient.isfinite().all()), path
                    assert float(gradient.abs().sum()) > 0, path

    def test_without_keep_grad_nothing_holds_a_graph(self) -> None:
        unet = tiny_unet().requires_grad_(True)
        latents, hidden = inputs(1)
        mean = MeanMaps()
        with AttentionRecorder(unet, mean):
            unet(latents, 9, encoder_hidden_states=hidden)
        assert mean.value is not None
        assert not mean.value.requires_grad


class TestSkips:
    def test_an_unknown_processor_is_skipped_and_said_so(self) -> None:
        class Foreign(AttnProcessor2_0):
            """A subclass may compute anything."""

        unet = tiny_unet()
        sites = cross_attention_sites(unet)
        path, attn = next(iter(sites.items()))
        attn.set_processor(Foreign())
        latents, hidden = inputs(1)
        mean = MeanMaps()
        with AttentionRecorder(unet, mean) as recorder, torch.no_grad():
            unet(latents, 9, encoder_hidden_states=hidden)
        (skipped,) = recorder.skipped
        assert path in skipped.what
        assert "Foreign" in skipped.reason
        assert mean.value is not None

    def test_fused_projections_are_skipped(self) -> None:
        unet = tiny_unet()
        for attn in cross_attention_sites(unet).values():
            attn.fuse_projections()
            attn.set_processor(FusedAttnProcessor2_0())
        latents, hidden = inputs(1)
        mean = MeanMaps()
        with AttentionRecorder(unet, mean) as recorder, torch.no_grad():
            unet(latents, 9, encoder_hidden_states=hidden)
        assert len(recorder.skipped) == len(cross_attention_sites(unet))
        assert mean.value is None
        assert recorder.steps == 0

    def test_a_processor_exchanged_while_recording_is_noticed(self) -> None:
        unet = tiny_unet()
        latents, hidden = inputs(1)
        with AttentionRecorder(unet, MeanMaps()) as recorder, torch.no_grad():
            unet(latents, 9, encoder_hidden_states=hidden)
            for attn in cross_attention_sites(unet).values():
                attn.fuse_projections()
                attn.set_processor(FusedAttnProcessor2_0())
            unet(latents, 9, encoder_hidden_states=hidden)
        assert recorder.steps == 1
        assert len(recorder.skipped) == len(cross_attention_sites(unet))

    def test_added_projections_are_skipped(self) -> None:
        unet = tiny_unet(
            down_block_types=("SimpleCrossAttnDownBlock2D",) * 2,
            up_block_types=("SimpleCrossAttnUpBlock2D",) * 2,
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        )
        latents, hidden = inputs(1)
        with AttentionRecorder(unet, MeanMaps()) as recorder, torch.no_grad():
            unet(latents, 9, encoder_hidden_states=hidden)
        assert recorder.skipped
        assert recorder.steps == 0


def test_sites_are_the_cross_attention_modules_by_path() -> None:
    unet = tiny_unet()
    sites = cross_attention_sites(unet)
    assert sites
    assert all(path.endswith("attn2") for path in sites)
    assert all(unet.get_submodule(path) is attn for path, attn in sites.items())
