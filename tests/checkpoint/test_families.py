"""Every family against its own diffusers pipeline on the same weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.packing import pack, unpack
from sau_scan.errors import CheckpointError, DamagedFile, NotACheckpoint
from tests.tiny_models import FAMILIES, save, tiny_pixart

PROMPTS = ["a photo of the red cat", "dog and house of the blue star, and a red dog"]
TITLES = {"sd3 without T5": "sd3"}
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = save(family, tmp_path_factory.mktemp("families") / family.replace(" ", "-"))
        return made[family]

    return get


@cache
def shared(folder: Path) -> DiffusionModel:
    """For tests that change nothing."""
    return load(folder)


def load(folder: Path) -> DiffusionModel:
    return load_model(open_checkpoint(folder))


@cache
def reference(folder: Path) -> Any:
    without = {"text_encoder_3": None, "tokenizer_3": None} if "without" in folder.name else {}
    pipeline = DiffusionPipeline.from_pretrained(folder, **without)
    if "FlowMatch" not in type(pipeline.scheduler).__name__:
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def options_of(model: DiffusionModel) -> dict[str, Any]:
    """What the pipeline is told so that it does not rewrite prompts or sizes, or pad further than the model."""
    if model.family.id.startswith("pixart"):
        return {"use_resolution_binning": False, "clean_caption": False, "max_sequence_length": model.context_length}
    if model.family.id == "sd3":
        return {"max_sequence_length": model.context_lengths[2] if model.text_encoder_3 is not None else 256}
    if model.family.id == "flux":
        return {"max_sequence_length": model.context_length, "height": 64, "width": 64}
    return {}


def drawn(model: DiffusionModel, pipeline: Any, latents: torch.Tensor, guidance: float, output: str) -> torch.Tensor:
    flux, options = model.family.id == "flux", options_of(model)
    start = latents
    if flux:
        batch, channels, height, width = latents.shape
        start = pipeline._pack_latents(latents, batch, channels, height, width)
    images = pipeline(
        PROMPTS, latents=start, num_inference_steps=4, guidance_scale=guidance, output_type=output, **options
    ).images
    return pipeline._unpack_latents(images, 64, 64, 8) if flux and output == "latent" else images


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_samples_as_diffusers_does(family: str, guidance: float, folder_of: Callable[[str], Path]) -> None:
    folder = folder_of(family)
    model, pipeline = shared(folder), reference(folder)
    assert model.family.id == TITLES.get(family, family)
    latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(1))
    hidden = model.encode(model.token_ids(PROMPTS)).hidden
    got = model.sample(hidden, model.unconditional(), latents, steps=4, guidance=guidance)
    want = drawn(model, pipeline, latents, guidance, "latent")
    assert (got - want).abs().max() < 1e-4 * want.abs().max()
    pictures = drawn(model, pipeline, latents, guidance, "pt")
    assert (model.decode(got) - pictures).abs().max() < 1e-4


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux", "pixart"])
def test_texts_are_read_as_diffusers_does(family: str, folder_of: Callable[[str], Path]) -> None:
    folder = folder_of(family)
    model, pipeline = shared(folder), reference(folder)
    tokens, more = unpack(model.encode(model.token_ids(PROMPTS)).hidden, model.conditioning.packed(model))
    length = {} if family == "sdxl" else {"max_sequence_length": model.context_length}
    others = {"prompt_2": None, "prompt_3": None} if family == "sd3" else {}
    want = pipeline.encode_prompt(PROMPTS, **others, **length)
    whole = {"sdxl": 2, "sd3": 2, "flux": 1, "pixart": 1}[family]
    assert torch.allclose(tokens, want[0], atol=1e-5)
    assert torch.allclose(more[0], want[whole].to(tokens), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_predicted_is_the_noise(family: str, folder_of: Callable[[str], Path]) -> None:
    """The clean latent that the sampler sees in the raw output is the one that the noise implies."""
    model = shared(folder_of(family))
    latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(2))
    hidden = model.encode(model.token_ids(PROMPTS)).hidden
    sampler = model.schedule.sampler(5, 16, model.device)
    time = sampler.timesteps[1]
    _, raw = model._raw(latents, time, hidden, 3.5)
    noise = model.predict_noise(latents, time, hidden)
    signal, amount = model.schedule.shares(time)
    clean = (latents - amount * noise) / signal
    assert torch.allclose(model.noised(clean, noise, time), latents, atol=1e-5)
    if "flow" in type(sampler).__name__.lower():
        wanted = latents - sampler.sigmas[1] * raw  # the end of the straight line
    else:
        wanted = sampler.step(raw, time, latents).pred_original_sample
    assert torch.allclose(clean, wanted, atol=1e-3 * float(wanted.abs().max()))


def test_pixart_for_large_pictures_is_told_their_size(tmp_path: Path) -> None:
    pipeline = tiny_pixart(sample_size=128, num_layers=1)
    assert pipeline.transformer.use_additional_conditions
    pipeline.save_pretrained(tmp_path / "large")
    model, pipeline = load(tmp_path / "large"), reference(tmp_path / "large")
    latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(1))
    hidden = model.encode(model.token_ids(PROMPTS)).hidden
    got = model.sample(hidden, hidden, latents, steps=2, guidance=1.0)
    options = {"num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "latent", **options_of(model)}
    want = pipeline(PROMPTS, latents=latents, **options).images
    assert (got - want).abs().max() < 1e-4 * want.abs().max()


def test_the_rows_behind_the_tokens() -> None:
    tokens, whole, mask = torch.randn(2, 5, 4), torch.randn(2, 6), torch.ones(2, 5)
    packed = pack(tokens, [whole, mask])
    assert packed.shape == (2, 5 + 2 + 2, 4)
    assert torch.equal(packed[:, :5], tokens)
    back, (first, second) = unpack(packed, [6, 5])
    assert torch.equal(back, tokens) and torch.equal(first, whole) and torch.equal(second, mask)
    assert packed[:, 6, 2:].abs().max() == packed[:, 8, 1:].abs().max() == 0


def test_no_negative_prompt_is_nothing_at_all_for_sdxl(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = folder_of("sdxl")
    assert shared(folder).unconditional().abs().max() == 0
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    edit(other / "model_index.json", force_zeros_for_empty_prompt=False)
    model = load(other)
    assert torch.equal(model.unconditional(), model.encode(model.token_ids([""])).hidden)


@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2"])
def test_what_moves_either_encoder_moves_the_pooled_output(component: str, folder_of: Callable[[str], Path]) -> None:
    model = load(folder_of("sdxl"))
    ids = model.token_ids(PROMPTS)
    before = model.encode(ids).pooled
    norm = model.encoders[component].state_dict()
    name = next(n for n in norm if n.endswith("layers.0.mlp.fc2.weight"))
    norm[name].mul_(3.0)
    after = model.encode(ids).pooled
    width = model.text_encoder.config.hidden_size
    moved = (after - before).norm(dim=0)
    assert bool((moved[:width] > 1e-4).any()) == (component == "text_encoder")
    assert bool((moved[width:] > 1e-4).any()) == (component == "text_encoder_2")


def test_ids_of_both_tokenizers_tell_prompts_apart(folder_of: Callable[[str], Path]) -> None:
    model = shared(folder_of("sdxl"))
    ids = model.token_ids(PROMPTS)
    assert ids.shape == (2, 2 * model.context_length)
    assert ids[0, model.context_length - 1] == model.tokenizer.eos_token_id and ids[0, -1] == 0
    short = model.token_ids(["cat"], length=6)
    assert short.shape == (1, 12)
    whole = model.encode(model.token_ids(["cat"]))
    assert torch.allclose(model.encode(short).pooled, whole.pooled, atol=1e-5)
    assert torch.allclose(model.tokens_of(model.encode(short).hidden), whole.hidden[:, :6], atol=1e-5)
    assert model.readings(["cat", "cat ", "dog"])[:2] == [model.readings(["cat"])[0]] * 2


def test_half_precision_leaves_a_vae_that_overflows_as_it_is(folder_of: Callable[[str], Path]) -> None:
    model = load_model(open_checkpoint(folder_of("sdxl")), dtype="float16")
    assert model.vae.dtype == torch.float32 and model.unet.dtype == torch.float16
    assert torch.isfinite(model.decode(torch.randn(1, *model.latent_shape))).all()


@pytest.mark.parametrize("family", ["sdxl", "flux", "pixart"])
def test_every_parameter_has_its_place_on_disk(family: str, folder_of: Callable[[str], Path]) -> None:
    model = shared(folder_of(family))
    for component in (*model.encoders, model.family.denoiser, "vae"):
        for name, _ in model.module(component).named_parameters():
            assert model.disk_tensor(component, name).file.startswith(component + "/")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("family", "file", "changes", "kind"),
    [
        ("sdxl", "unet/config.json", {"addition_embed_type": None}, CheckpointError),
        ("sdxl", "unet/config.json", {"addition_embed_type": "image"}, CheckpointError),
        ("sdxl", "unet/config.json", {"addition_time_embed_dim": 4}, DamagedFile),
        ("sdxl", "unet/config.json", {"transformer_layers_per_block": [[10**9]]}, DamagedFile),
        ("sdxl", "text_encoder_2/config.json", {"projection_dim": 48}, DamagedFile),
        ("sdxl", "text_encoder_2/config.json", {"max_position_embeddings": 8}, DamagedFile),
        ("sdxl", "model_index.json", {"text_encoder_2": ["transformers", "T5EncoderModel"]}, NotACheckpoint),
        ("sdxl", "model_index.json", {"tokenizer_2": [None, None]}, NotACheckpoint),
        ("sd3", "transformer/config.json", {"num_layers": 10**9}, DamagedFile),
        ("sd3", "transformer/config.json", {"pos_embed_max_size": 10**9}, DamagedFile),
        ("sd3", "transformer/config.json", {"sample_size": 10**9}, DamagedFile),
        ("sd3", "transformer/config.json", {"joint_attention_dim": 96}, DamagedFile),
        ("sd3", "transformer/config.json", {"in_channels": 16}, CheckpointError),
        ("sd3", "text_encoder_3/config.json", {"num_layers": 10**9}, DamagedFile),
        ("sd3", "text_encoder_3/config.json", {"feed_forward_proj": "exec"}, DamagedFile),
        ("sd3", "text_encoder_3/config.json", {"relative_attention_num_buckets": 10**12}, DamagedFile),
        ("sd3", "scheduler/scheduler_config.json", {"shift": "x"}, DamagedFile),
        ("sd3", "scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}, DamagedFile),
        ("sd3", "scheduler/scheduler_config.json", {"invert_sigmas": True}, DamagedFile),
        ("flux", "transformer/config.json", {"num_single_layers": 10**9}, DamagedFile),
        ("flux", "transformer/config.json", {"axes_dims_rope": [4, 6]}, DamagedFile),
        ("flux", "transformer/config.json", {"axes_dims_rope": [10**9, 6, 6]}, DamagedFile),
        ("flux", "vae/config.json", {"sample_size": 10**9}, DamagedFile),
        ("flux", "scheduler/scheduler_config.json", {"max_image_seq_len": 256}, DamagedFile),
        ("pixart", "transformer/config.json", {"sample_size": 10**6}, DamagedFile),
        ("pixart", "transformer/config.json", {"patch_size": 0}, DamagedFile),
        ("pixart", "transformer/config.json", {"caption_channels": 48}, DamagedFile),
        ("pixart", "transformer/config.json", {"norm_type": "x"}, DamagedFile),
        ("pixart", "tokenizer/tokenizer_config.json", {"padding_side": "left"}, DamagedFile),
    ],
)
def test_configurations_that_do_not_fit(
    family: str,
    file: str,
    changes: dict[str, Any],
    kind: type[CheckpointError],
    tmp_path: Path,
    folder_of: Callable[[str], Path],
) -> None:
    folder = Path(shutil.copytree(folder_of(family), tmp_path / "copy"))
    edit(folder / file, **changes)
    with pytest.raises(kind) as caught:
        load(folder)
    assert caught.value.hint and str(caught.value).isprintable()
