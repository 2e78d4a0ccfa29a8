"""Families of checkpoints: which components they have, of which classes, and where the text enters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sau_scan.checkpoint.exported import is_exported
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.errors import NotACheckpoint, UnsafeFile
from sau_scan.findings import escape

# All have the noise schedule that their betas say; steps are always DDIM's here.
SCHEDULERS = frozenset(
    {
        "DDIMInverseScheduler",
        "DDIMParallelScheduler",
        "DDIMScheduler",
        "DDPMParallelScheduler",
        "DDPMScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepInverseScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSDEScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LCMScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
        "SASolverScheduler",
        "TCDScheduler",
        "UniPCMultistepScheduler",
    }
)
FLOWS = frozenset({"FlowMatchEulerDiscreteScheduler"})
# transformers and diffusers have each spelled the tokenizers' classes in more than one way.
CLIP_TOKENIZERS = frozenset({"CLIPTokenizer", "CLIPTokenizerFast"})
T5_TOKENIZERS = frozenset({"T5Tokenizer", "T5TokenizerFast"})
Classes = tuple[str, frozenset[str]]


def _of(library: str, *names: str) -> Classes:
    return library, frozenset(names)


_CLIP, _T5 = ("transformers", CLIP_TOKENIZERS), ("transformers", T5_TOKENIZERS)
_TEXT = _of("transformers", "CLIPTextModel")
_PROJECTED = _of("transformers", "CLIPTextModelWithProjection")
_T5_TEXT = _of("transformers", "T5EncoderModel")
_UNET = _of("diffusers", "UNet2DConditionModel")
_VAE = _of("diffusers", "AutoencoderKL")
_NOISE, _FLOW = ("diffusers", SCHEDULERS), ("diffusers", FLOWS)
_EXTRACTORS = frozenset({"CLIPImageProcessor", "CLIPFeatureExtractor", "SiglipImageProcessor"})


@dataclass(frozen=True)
class Family:
    """``components``: those that are loaded, component -> (library, admitted classes).

    ``bystanders``: components that a folder may have and that do not take part in turning a prompt into a picture.
    ``optional``: components that the pipeline does without where the index names none.
    ``denoiser``: the component that predicts noise. ``encoders``: (tokenizer, text encoder); the first one's tokens are
    the rows of the text output, in order. ``t5_length``: tokens to which the pipeline pads prompts for T5, at most.
    ``repairable``: repairs know where the text enters. Only there do the keys and values of all cross-attention read
    the text output itself, which analyses of the weights rest on.
    ``folds_case``: the pipeline itself writes prompts in small letters, before any tokenizer.
    """

    id: str
    title: str
    pipeline: str
    components: Mapping[str, Classes]
    bystanders: Mapping[str, frozenset[str]]
    optional: frozenset[str] = frozenset()
    denoiser: str = "unet"
    encoders: tuple[tuple[str, str], ...] = (("tokenizer", "text_encoder"),)
    t5_length: int = 0
    repairable: bool = True
    folds_case: bool = False

    @property
    def weighted(self) -> tuple[str, ...]:
        """Components with weights."""
        return (*(encoder for _, encoder in self.encoders), self.denoiser, "vae")


SD1 = Family(
    id="sd1",
    title="Stable Diffusion 1.x",
    pipeline="StableDiffusionPipeline",
    components={"tokenizer": _CLIP, "text_encoder": _TEXT, "unet": _UNET, "vae": _VAE, "scheduler": _NOISE},
    bystanders={
        "safety_checker": frozenset({"StableDiffusionSafetyChecker"}),
        "feature_extractor": _EXTRACTORS,
        "image_encoder": frozenset({"CLIPVisionModelWithProjection"}),
    },
)
SD2 = replace(SD1, id="sd2", title="Stable Diffusion 2.x")
SDXL = Family(
    id="sdxl",
    title="Stable Diffusion XL",
    pipeline="StableDiffusionXLPipeline",
    components={
        "tokenizer": _CLIP,
        "tokenizer_2": _CLIP,
        "text_encoder": _TEXT,
        "text_encoder_2": _PROJECTED,
        "unet": _UNET,
        "vae": _VAE,
        "scheduler": _NOISE,
    },
    bystanders={
        "feature_extractor": _EXTRACTORS,
        "image_encoder": frozenset({"CLIPVisionModelWithProjection"}),
    },
    encoders=(("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")),
)
SD3 = Family(
    id="sd3",
    title="Stable Diffusion 3.x",
    pipeline="StableDiffusion3Pipeline",
    components={
        "tokenizer": _CLIP,
        "tokenizer_2": _CLIP,
        "tokenizer_3": _T5,
        "text_encoder": _PROJECTED,
        "text_encoder_2": _PROJECTED,
        "text_encoder_3": _T5_TEXT,
        "transformer": _of("diffusers", "SD3Transformer2DModel"),
        "vae": _VAE,
        "scheduler": _FLOW,
    },
    bystanders={"feature_extractor": _EXTRACTORS, "image_encoder": frozenset({"SiglipVisionModel"})},
    optional=frozenset({"tokenizer_3", "text_encoder_3"}),
    denoiser="transformer",
    encoders=(
        ("tokenizer", "text_encoder"),
        ("tokenizer_2", "text_encoder_2"),
        ("tokenizer_3", "text_encoder_3"),
    ),
    t5_length=256,
    repairable=False,
)
FLUX = Family(
    id="flux",
    title="FLUX.1",
    pipeline="FluxPipeline",
    components={
        "tokenizer": _CLIP,
        "tokenizer_2": _T5,
        "text_encoder": _TEXT,
        "text_encoder_2": _T5_TEXT,
        "transformer": _of("diffusers", "FluxTransformer2DModel"),
        "vae": _VAE,
        "scheduler": _FLOW,
    },
    bystanders={
        "feature_extractor": _EXTRACTORS,
        "image_encoder": frozenset({"CLIPVisionModelWithProjection"}),
    },
    denoiser="transformer",
    # CLIP gives one vector for the whole prompt; the tokens that are attended to are T5's.
    encoders=(("tokenizer_2", "text_encoder_2"), ("tokenizer", "text_encoder")),
    t5_length=512,
    repairable=False,
)
PIXART = Family(
    id="pixart",
    title="PixArt-alpha",
    pipeline="PixArtAlphaPipeline",
    components={
        "tokenizer": _T5,
        "text_encoder": _T5_TEXT,
        "transformer": _of("diffusers", "PixArtTransformer2DModel", "Transformer2DModel"),
        "vae": _VAE,
        "scheduler": _NOISE,
    },
    bystanders={},
    denoiser="transformer",
    t5_length=120,
    repairable=False,
    folds_case=True,
)
PIXART_SIGMA = replace(PIXART, id="pixart-sigma", title="PixArt-Sigma", pipeline="PixArtSigmaPipeline", t5_length=300)
FAMILIES: tuple[Family, ...] = (SD1, SD2, SDXL, SD3, FLUX, PIXART, PIXART_SIGMA)


def identify(checkpoint: Checkpoint) -> Family:
    """The family of a checkpoint, every class in its index being admitted.

    Raises NotACheckpoint for a pipeline or class that is not supported, or a missing component; UnsafeFile for a class
    that is not the libraries' own.
    """
    named = checkpoint.index.get("_class_name")
    family = next((family for family in FAMILIES if family.pipeline == named), None)
    if family is None:
        known = ", ".join(dict.fromkeys(family.pipeline for family in FAMILIES))
        raise NotACheckpoint(
            f"{checkpoint.show('model_index.json')} names the pipeline {named!a}, which is not supported.",
            hint=f"Supported pipelines: {known}.",
        )
    foreign = foreign_classes(checkpoint, family)
    if foreign:
        component, shown = next(iter(foreign.items()))
        raise UnsafeFile(
            f"{checkpoint.show('model_index.json')} asks for {shown} as {escape(component)}, which is not loaded.",
            hint="Loading it could run foreign code. Get the checkpoint from its original source, or ask its author.",
        )
    _require_supported(checkpoint, family)
    for component in family.components:
        if component in absent(checkpoint, family):
            continue
        entry = checkpoint.index.get(component)
        if not isinstance(entry, list) or entry == [None, None]:
            raise NotACheckpoint(
                f"{checkpoint.show('model_index.json')} has no {component}.",
                hint="Download the checkpoint again, with all of its components.",
            )
    return SD2 if family is SD1 and _is_second(checkpoint) else family


def _require_supported(checkpoint: Checkpoint, family: Family) -> None:
    """Raises NotACheckpoint for a class of the libraries that the family's table does not have."""
    for component, (library, name) in _outside(checkpoint, family).items():
        _, admitted = family.components.get(component, ("", family.bystanders.get(component, frozenset())))
        known = sorted(admitted)
        raise NotACheckpoint(
            f"{checkpoint.show('model_index.json')} names {library}.{name} as {escape(component)}, "
            f"which is not supported with {family.pipeline}.",
            hint=f"Supported are {', '.join(known)}." if known else "It is no component of that pipeline.",
        )


def absent(checkpoint: Checkpoint, family: Family) -> frozenset[str]:
    """Optional components of the family that the checkpoint does without."""
    return frozenset(c for c in family.optional if checkpoint.index.get(c) in (None, [None, None]))


def _is_second(checkpoint: Checkpoint) -> bool:
    """Both generations have one pipeline; the second's UNet projects linearly, and reads the wider OpenCLIP."""
    if not checkpoint.holds("unet/config.json"):
        return False
    config = checkpoint.json("unet/config.json")
    return config.get("use_linear_projection") is True or config.get("cross_attention_dim") == 1024


def foreign_classes(checkpoint: Checkpoint, family: Family) -> dict[str, str]:
    """Component -> what the index names for it, escaped, where that is neither in the family's table nor a class of
    diffusers or transformers."""
    return {
        component: ascii(value) for component, value in _outside(checkpoint, family).items() if not is_exported(value)
    }


def _outside(checkpoint: Checkpoint, family: Family) -> dict[str, Any]:
    return {
        component: value
        for component, value in checkpoint.index.items()
        if not component.startswith("_") and isinstance(value, (list, dict)) and not _admitted(component, value, family)
    }


def _admitted(component: str, value: object, family: Family) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    library, name = value
    if library is None and name is None:
        return True
    if not (isinstance(library, str) and isinstance(name, str)):
        return False
    if component in family.components:
        wanted_library, classes = family.components[component]
        return library == wanted_library and name in classes
    wanted = family.bystanders.get(component, frozenset())
    return library in {"transformers", "stable_diffusion"} and name in wanted
