"""LoRA files in every spelling: merged, they are what diffusers makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import safe_open

from sau_scan.checkpoint.adapters.layouts import ldm_names
from sau_scan.checkpoint.adapters.lora import delta
from sau_scan.errors import DamagedFile
from tests.checkpoint.adapters.samples import (
    COMPONENTS,
    CONVOLUTIONS,
    LAYOUTS,
    LINEAR,
    SD1_UNET,
    XL_UNET,
    fused,
    kohya_name,
    make,
    merged_into,
    peft_name,
    read,
    tiny_xl,
    weights,
)
from tests.conftest import tiny_pipeline


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_merging_is_what_diffusers_does(layout: str, dtype: torch.dtype) -> None:
    naming, modules, alpha = LAYOUTS[layout]
    pipeline = tiny_pipeline()
    base = weights(pipeline)
    tensors = make(base, modules, naming, alpha=alpha, dtype=dtype)
    lora = read(tensors, base)
    assert lora.pairs.keys() == {(component, path + ".weight") for component, path in modules}
    merged = base | merged_into(lora, tensors, base)
    expected = fused(pipeline, tensors)
    assert merged.keys() == expected.keys()
    for place, tensor in expected.items():
        assert torch.allclose(merged[place], tensor, atol=1e-5), place
    assert any(not torch.equal(base[place], expected[place]) for place in base), "the LoRA does something"


def test_alpha_from_the_metadata_that_diffusers_writes(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    base = weights(pipeline)
    targets = [path for component, path in LINEAR if component == "unet"]
    special = targets[0]
    config = LoraConfig(r=2, lora_alpha=7, target_modules=targets, alpha_pattern={special: 3}, init_lora_weights=False)
    pipeline.unet.add_adapter(config)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(pipeline.unet),
        unet_lora_adapter_metadata=config.to_dict() | {"target_modules": targets},
    )
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    merged = merged_into(read(tensors, base, metadata=metadata), tensors, base)
    fresh = tiny_pipeline()
    fresh.load_lora_weights(tmp_path)
    fresh.fuse_lora(components=["unet"])
    fresh.unload_lora_weights()
    expected = weights(fresh)
    assert {path for _, path in merged} == {target + ".weight" for target in targets}
    for place, tensor in merged.items():
        assert torch.allclose(tensor, expected[place], atol=1e-5), place
    scales = {pair.scale for pair in read(tensors, base, metadata=metadata).pairs.values()}
    assert scales == {3.5, 1.5}


def test_settings_beside_a_peft_folder() -> None:
    base = weights(tiny_pipeline())
    tensors = {f"base_model.model.{k.removeprefix('unet.')}": v for k, v in make(base, LINEAR[:3], peft_name).items()}
    plain = read(tensors, base)
    assert plain.layout == "PEFT" and plain.pairs.keys() == {(c, p + ".weight") for c, p in LINEAR[:3]}
    assert {p.scale for p in plain.pairs.values()} == {1.0}
    assert {p.scale for p in read(tensors, base, config={"lora_alpha": 6}).pairs.values()} == {2.0}
    (rooted,) = {p.scale for p in read(tensors, base, config={"lora_alpha": 6, "use_rslora": True}).pairs.values()}
    assert rooted == pytest.approx(6 / 3**0.5)
    for broken in ({"lora_alpha": "much"}, {"lora_alpha": float("nan")}, {"alpha_pattern": [1]}):
        with pytest.raises(DamagedFile, match="alpha"):
            read(tensors, base, config=broken)


def test_a_pattern_is_a_name_and_never_run_as_an_expression() -> None:
    base = weights(tiny_pipeline())
    tensors = make(base, LINEAR[:1], peft_name)
    patterns = {r"(\w+)+\w*$!": 1, "attn2.to_k": 6}
    (pair,) = read(tensors, base, config={"alpha_pattern": patterns}).pairs.values()
    assert pair.scale == 2.0


def test_a_convolution_in_three_factors() -> None:
    """``mid`` between ``down`` and ``up``, as LyCORIS trains it: one after the other they are the merged kernel."""
    base = weights(tiny_pipeline())
    module = CONVOLUTIONS[0]
    shape = base[module[0], module[1] + ".weight"].shape
    down, mid, up = torch.randn(2, shape[1], 1, 1), torch.randn(2, 2, 3, 3), torch.randn(shape[0], 2, 1, 1)
    stem = kohya_name(module)[0].removesuffix(".lora_down.weight")
    names = ("lora_down.weight", "lora_mid.weight", "lora_up.weight")
    tensors = {f"{stem}.{name}": t for name, t in zip(names, (down, mid, up), strict=True)}
    (pair,) = read(tensors, base).pairs.values()
    picture = torch.randn(1, shape[1], 9, 9)
    conv = torch.nn.functional.conv2d
    one_by_one = conv(conv(conv(picture, down), mid, padding=1), up)
    assert torch.allclose(conv(picture, delta(pair, tensors), padding=1), one_by_one, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_names_of_the_original_code_on_sdxl(dtype: torch.dtype) -> None:
    """Kohya's SDXL files count blocks in one row, and name two text encoders."""
    pipeline = tiny_xl()
    components = (*COMPONENTS, "text_encoder_2")
    base = weights(pipeline, components)
    stems = {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": (
            "unet",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
        ),
        "lora_unet_input_blocks_5_1_proj_in": ("unet", "down_blocks.1.attentions.1.proj_in"),
        "lora_unet_middle_block_1_transformer_blocks_0_ff_net_2": (
            "unet",
            "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
        ),
        "lora_unet_output_blocks_2_1_transformer_blocks_0_attn1_to_out_0": (
            "unet",
            "up_blocks.0.attentions.2.transformer_blocks.0.attn1.to_out.0",
        ),
        "lora_unet_input_blocks_3_0_op": ("unet", "down_blocks.0.downsamplers.0.conv"),
        "lora_unet_output_blocks_2_2_conv": ("unet", "up_blocks.0.upsamplers.0.conv"),
        "lora_unet_output_blocks_4_0_in_layers_2": ("unet", "up_blocks.1.resnets.1.conv1"),
        "lora_unet_input_blocks_4_0_skip_connection": ("unet", "down_blocks.1.resnets.0.conv_shortcut"),
        "lora_te1_text_model_encoder_layers_0_mlp_fc2": ("text_encoder", "encoder.layers.0.mlp.fc2"),
        "lora_te2_text_model_encoder_layers_1_self_attn_v_proj": (
            "text_encoder_2",
            "encoder.layers.1.self_attn.v_proj",
        ),
        # diffusers knows Kohya's spelling of a text encoder by its out_proj, which every real file has
        "lora_te2_text_model_encoder_layers_1_self_attn_out_proj": (
            "text_encoder_2",
            "encoder.layers.1.self_attn.out_proj",
        ),
    }
    naming = {module: (f"{s}.lora_down.weight", f"{s}.lora_up.weight") for s, module in stems.items()}
    tensors = make(base, list(naming), lambda module: naming[module], alpha=2.0, rank=4, dtype=dtype)
    lora = read(tensors, base)
    assert list(lora.pairs) == [(component, path + ".weight") for component, path in stems.values()]
    assert lora.layout == "Kohya" and lora.components == ("unet", "text_encoder", "text_encoder_2")
    merged = merged_into(lora, tensors, base)
    pipeline.load_lora_weights(dict(tensors))
    pipeline.fuse_lora(components=list(components))
    pipeline.unload_lora_weights()
    for place, tensor in weights(pipeline, components).items():
        assert torch.allclose((base | merged)[place], tensor, atol=1e-5), place


@pytest.mark.parametrize("config", [SD1_UNET, XL_UNET], ids=["1.x", "XL"])
def test_original_names_of_all_layers_of_full_size(config: dict[str, Any]) -> None:
    """diffusers' conversion of single files takes every tensor of that name to the layer that it is said to be."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    tensors = unet.state_dict()
    layers = [n.removesuffix(".weight") for n, t in tensors.items() if n.endswith(".weight") and t.ndim > 1]
    names = dict(ldm_names(layers))
    assert names.keys() == set(layers)
    original = {
        f"model.diffusion_model.{ldm}.{kind}": (name, kind)
        for name, ldm in names.items()
        for kind in ("weight", "bias")
    }
    converted = convert_ldm_unet_checkpoint(original, unet.config)
    assert {k: v for k, v in converted.items() if v} == {f"{n}.{k}": (n, k) for n, k in original.values()}


def test_dotted_names_of_the_original_code() -> None:
    """As ComfyUI saves them; diffusers does not read them."""
    base = weights(tiny_pipeline())
    module = LINEAR[0]
    tensors = make(base, [module], peft_name)
    dotted = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"
    renamed = {name.replace(".".join(module), dotted): t for name, t in tensors.items()}
    assert renamed.keys() != tensors.keys()
    lora, expected = read(renamed, base), read(tensors, base)
    assert lora.pairs.keys() == expected.pairs.keys()
