"""The recorder changes nothing, and says what it skips."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0, FusedAttnProcessor2_0

from sau_scan.attention import AttentionRecorder, Evolution, MapEntropy, MeanMaps, TokenMass, cross_attention_sites
from tests.attention.denoisers import PROCESSORS, hook_count, inputs, sample, tiny_unet, with_processor


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
