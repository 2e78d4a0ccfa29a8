"""Joint attention is recorded as it is, and nothing changes by that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from torch import Tensor, nn

from sau_scan.attention import AttentionRecorder, MeanMaps, TokenMass, cross_attention_sites
from sau_scan.attention.joint import attend, joint_attention_sites, joint_map, queries_and_keys
from sau_scan.attention.recompute import heads_of
from sau_scan.checkpoint.conditioning import places
from tests.tiny_models import tiny_flux, tiny_sd3

TEXT, PLACES = 7, 12


def denoiser(family: str) -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = {"sd3": tiny_sd3, "flux": tiny_flux}[family]().transformer
    return module.eval().requires_grad_(False)


def asked(family: str, module: Any, batch: int = 2, size: tuple[int, int] = (6, 8)) -> dict[str, Any]:
    """Inputs of a pass; ``size``: of what a latent is cut into."""
    generator = torch.Generator().manual_seed(1)
    config, (rows, columns) = module.config, size
    given: dict[str, Any] = {
        "encoder_hidden_states": torch.randn(batch, TEXT, config.joint_attention_dim, generator=generator),
        "pooled_projections": torch.randn(batch, config.pooled_projection_dim, generator=generator),
    }
    if family == "sd3":
        latents = torch.randn(batch, config.in_channels, 2 * rows, 2 * columns, generator=generator)
        return given | {"hidden_states": latents, "timestep": torch.full((batch,), 500.0)}
    return given | {
        "hidden_states": torch.randn(batch, rows * columns, config.in_channels, generator=generator),
        "timestep": torch.full((batch,), 0.5),
        "guidance": torch.full((batch,), 3.5),
        "txt_ids": torch.zeros(TEXT, 3),
        "img_ids": places(rows, columns).float(),
    }


@pytest.mark.parametrize("family", ["sd3", "flux"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_are_bit_identical(family: str, dtype: torch.dtype) -> None:
    module = denoiser(family).to(dtype)
    given = {name: value.to(dtype) for name, value in asked(family, module).items()}
    bare = module(**given).sample
    mean, mass = MeanMaps(), TokenMass()
    with AttentionRecorder(module, mean, mass) as recorder:
        assert torch.equal(module(**given).sample, bare)
    assert recorder.skipped == () and recorder.steps == 1
    assert mean.value is not None and mean.value.shape == (2, TEXT, 6, 8)
    assert mass.value is not None and bool((mass.value.sum(1) < 1).all())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in module.modules())


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_recomputed_probabilities_give_what_the_module_returns(family: str) -> None:
    module = denoiser(family)
    seen: list[tuple[Any, dict[str, Any], Any]] = []
    for site in joint_attention_sites(module).values():
        for parameter in site.parameters():
            nn.init.normal_(parameter, std=0.4)
        site.register_forward_hook(lambda m, args, kwargs, out: seen.append((m, kwargs, out)), with_kwargs=True)
    module(**asked(family, module))
    assert len(seen) == len(joint_attention_sites(module)) == 2
    for attn, given, output in seen:
        hidden, context = given["hidden_states"], given.get("encoder_hidden_states")
        asks = (attn, hidden, context, given.get("image_rotary_emb"), TEXT)
        probabilities = attend(*queries_and_keys(*asks))
        assert torch.allclose(joint_map(*asks), probabilities.mean(1)[..., :TEXT], atol=1e-6)
        assert torch.allclose(probabilities.sum(-1), torch.ones(probabilities.shape[:-1]), atol=1e-5)
        values = heads_of(attn.to_v(hidden), attn.heads)
        if context is not None:
            values = torch.cat([heads_of(attn.add_v_proj(context), attn.heads), values], dim=2)
        ours = (probabilities @ values).transpose(1, 2).flatten(2)
        if context is not None:
            assert torch.allclose(attn.to_out[0](ours), output[0], atol=1e-4)
        else:
            assert torch.allclose(ours, output[:, TEXT:], atol=1e-4)


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_halves_of_a_guided_batch(family: str) -> None:
    module = denoiser(family)
    given = asked(family, module, batch=4)
    found: dict[str, Tensor] = {}
    for half in ("all", "unconditional", "conditional"):
        mean = MeanMaps()
        with AttentionRecorder(module, mean, half=half):  # type: ignore[arg-type]
            module(**given)
        assert mean.value is not None
        found[half] = mean.value
    assert torch.allclose(found["all"], torch.cat([found["unconditional"], found["conditional"]]), atol=1e-6)


def test_losses_on_maps_reach_the_projections_of_the_text() -> None:
    module = denoiser("sd3")
    sites: dict[str, Any] = joint_attention_sites(module)
    for attn in sites.values():
        attn.add_k_proj.weight.requires_grad_(True)
    mean = MeanMaps()
    with AttentionRecorder(module, mean, keep_grad=True):
        module(**asked("sd3", module))
    assert mean.value is not None
    mean.value[:, 2].square().sum().backward()
    assert all(float(attn.add_k_proj.weight.grad.abs().sum()) > 0 for attn in sites.values())


def test_an_unknown_processor_is_skipped_and_said_so() -> None:
    class Foreign(JointAttnProcessor2_0):
        """A subclass may compute anything."""

    module = denoiser("sd3")
    path, attn = next(iter(joint_attention_sites(module).items()))
    assert isinstance(attn, Attention)
    attn.set_processor(Foreign())
    with AttentionRecorder(module, MeanMaps()) as recorder:
        module(**asked("sd3", module))
    (skipped,) = recorder.skipped
    assert path in skipped.what and "Foreign" in skipped.reason
    assert recorder.steps == 1


@pytest.mark.parametrize(
    ("family", "paths"),
    [
        ("sd3", ["transformer_blocks.0.attn", "transformer_blocks.1.attn"]),
        ("flux", ["transformer_blocks.0.attn", "single_transformer_blocks.0.attn"]),
    ],
)
def test_sites(family: str, paths: list[str]) -> None:
    """SD3's second attention of a block is among places of the picture alone."""
    module = denoiser(family)
    assert list(joint_attention_sites(module)) == paths
    assert not cross_attention_sites(module)
