"""Families of checkpoints: which components they have and of which classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sau_scan.checkpoint.source import Checkpoint
from sau_scan.errors import NotACheckpoint, UnsafeFile
from sau_scan.findings import escape

SCHEDULERS = frozenset(
    {
        "DDIMScheduler",
        "DDPMScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
        "UniPCMultistepScheduler",
    }
)
# transformers and diffusers have each spelled the tokenizer's class in more than one way.
TOKENIZERS = frozenset({"CLIPTokenizer", "CLIPTokenizerFast"})


@dataclass(frozen=True)
class Family:
    """``components``: those that are loaded, component -> (library, admitted classes).

    ``bystanders``: components that a folder may have and that do not take part in turning a prompt into a picture.
    """

    id: str
    title: str
    pipeline: str
    components: Mapping[str, tuple[str, frozenset[str]]]
    bystanders: Mapping[str, frozenset[str]]


SD1 = Family(
    id="sd1",
    title="Stable Diffusion 1.x",
    pipeline="StableDiffusionPipeline",
    components={
        "tokenizer": ("transformers", TOKENIZERS),
        "text_encoder": ("transformers", frozenset({"CLIPTextModel"})),
        "unet": ("diffusers", frozenset({"UNet2DConditionModel"})),
        "vae": ("diffusers", frozenset({"AutoencoderKL"})),
        "scheduler": ("diffusers", SCHEDULERS),
    },
    bystanders={
        "safety_checker": frozenset({"StableDiffusionSafetyChecker"}),
        "feature_extractor": frozenset({"CLIPImageProcessor", "CLIPFeatureExtractor"}),
        "image_encoder": frozenset({"CLIPVisionModelWithProjection"}),
    },
)
FAMILIES: tuple[Family, ...] = (SD1,)


def identify(checkpoint: Checkpoint) -> Family:
    """The family of a checkpoint, every class in its index being admitted.

    Raises NotACheckpoint for an unknown pipeline or a missing component, UnsafeFile for a foreign class.
    """
    named = checkpoint.index.get("_class_name")
    family = next((family for family in FAMILIES if family.pipeline == named), None)
    if family is None:
        known = ", ".join(family.pipeline for family in FAMILIES)
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
    for component in family.components:
        entry = checkpoint.index.get(component)
        if not isinstance(entry, list) or entry == [None, None]:
            raise NotACheckpoint(
                f"{checkpoint.show('model_index.json')} has no {component}.",
                hint="Download the checkpoint again, with all of its components.",
            )
    return family


def foreign_classes(checkpoint: Checkpoint, family: Family) -> dict[str, str]:
    """Component -> what the index names for it, escaped, where that is outside the family's table."""
    return {
        component: ascii(value)
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
