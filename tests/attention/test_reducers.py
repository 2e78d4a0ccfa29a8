"""What is kept of the maps: means that do not grow, and gradients where they are asked for."""

from __future__ import annotations

import gc

import torch
from torch import Tensor

from sau_scan.attention import AttentionRecorder, Evolution, MapEntropy, MeanMaps, TokenMass, cross_attention_sites
from tests.attention.denoisers import CONTEXT, inputs, tiny_unet


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
