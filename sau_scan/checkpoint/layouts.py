"""Where a component's parameters lie in the files of an input: by folder, or under another layout's names.

Conversions of single files are diffusers' own, run over :class:`~sau_scan.checkpoint.views.Place` objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diffusers.loaders import single_file_utils

from sau_scan.checkpoint.forms import UNET_PREFIX
from sau_scan.checkpoint.naming import canonical
from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.checkpoint.views import Place, TensorRef
from sau_scan.checkpoint.weights import weight_file
from sau_scan.errors import DamagedFile

Places = dict[str, Place]
DIFFUSERS: Any = single_file_utils  # untyped
# In single files: the prefixes under which each component's tensors lie.
PREFIXES: Mapping[str, tuple[str, ...]] = {
    "unet": (UNET_PREFIX,),
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
    "text_encoder_2": ("conditioner.embedders.1.",),
}
# By which names each layout of a component is known; a file has one layout.
LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "unet": ("down_blocks.", "input_blocks."),
    "vae": (),
    "text_encoder": ("embeddings.token_embedding.weight", "transformer.resblocks."),
}


def provides(checkpoint: Checkpoint, component: str) -> bool:
    """Whether the input itself, rather than its base, holds the weights of ``component``."""
    if checkpoint.form is Form.FOLDER:
        return True
    if checkpoint.form is Form.SINGLE:
        prefixes = PREFIXES.get(component, ())
        return any(name.startswith(prefixes) for name in weight_file(checkpoint, checkpoint.file).entries)
    if checkpoint.form is Form.DENOISER:
        return component == "unet"
    return checkpoint.form is Form.TEXT_ENCODER and component == encoder_meant(checkpoint)


def encoder_meant(checkpoint: Checkpoint) -> str:
    """Which of the base's text encoders a bare one replaces: the one of its width."""
    entries = weight_file(checkpoint, checkpoint.file).entries
    width = next(e.shape[-1] for name, e in entries.items() if name.endswith("token_embedding.weight"))
    for component in ("text_encoder_2", "text_encoder"):
        if checkpoint.holds(f"{component}/config.json"):
            config = checkpoint.json(f"{component}/config.json")
            if config.get("hidden_size") == width:
                return component
    return "text_encoder"


def places_in_file(checkpoint: Checkpoint, component: str, config: Mapping[str, Any], module: Any) -> Places:
    """Canonical parameter -> its place in the one file of ``checkpoint``.

    ``config``: of the component; ``module``: built from it. Raises DamagedFile for a file that holds a parameter twice,
    and whatever a conversion raises on hostile names.
    """
    entries = weight_file(checkpoint, checkpoint.file).entries
    stored = {name: Place(TensorRef(checkpoint.file, name), entry.shape) for name, entry in entries.items()}
    own = _own(stored, component, checkpoint.form)
    _require_one_layout(checkpoint, component, own)

    def converted(items: Mapping[str, Place]) -> Places:
        convert = _CONVERSIONS[component.removesuffix("_2")]
        return {canonical(name): place for name, place in convert(dict(items), config, module).items()}

    found = converted(own)
    # Conversions let the last of two names win that become one; from the other end, that is another one.
    turned = converted(dict(reversed(own.items())))
    for key in found.keys() | turned.keys():
        if found.get(key) != turned.get(key):
            raise _twice(checkpoint, component, sorted(p.ref.name for p in (found.get(key), turned.get(key)) if p))
    return found


def _require_one_layout(checkpoint: Checkpoint, component: str, own: Mapping[str, Place]) -> None:
    """Raises DamagedFile where two programs would find the component in two places."""
    prefixes = PREFIXES[component] if checkpoint.form is Form.SINGLE else ()
    for found in (
        [next((n for n in own if n.startswith(prefix)), "") for prefix in prefixes],
        [next((n for n in own if mark in n), "") for mark in LAYOUTS[component.removesuffix("_2")]],
    ):
        names = [name for name in found if name]
        if len(names) > 1:
            raise _twice(checkpoint, component, names)


def _twice(checkpoint: Checkpoint, component: str, names: list[str]) -> DamagedFile:
    return DamagedFile(
        f"{checkpoint.show(checkpoint.file)} holds the {component} twice, or parts of it: "
        f"{' and '.join(ascii(name)[:120] for name in names)}.",
        hint="Which is meant depends on who reads it. Get the file from its source again.",
    )


def _as_places(converted: dict[str, Any]) -> Mapping[str, Place]:
    """Without the names that a conversion found nothing for."""
    return {name: place for name, place in converted.items() if isinstance(place, Place)}


def _own(stored: Mapping[str, Place], component: str, form: Form) -> dict[str, Place]:
    """Those tensors of a single file that are ``component``'s, and all of a bare one."""
    if form is not Form.SINGLE:
        return dict(stored)
    return {name: place for name, place in stored.items() if name.startswith(PREFIXES[component])}


def _unet(stored: dict[str, Place], config: Mapping[str, Any], module: Any) -> Mapping[str, Place]:
    bare = {name.removeprefix(UNET_PREFIX).removeprefix("unet."): place for name, place in stored.items()}
    if any(name.startswith("down_blocks.") for name in bare):
        return bare
    return _as_places(
        DIFFUSERS.convert_ldm_unet_checkpoint({UNET_PREFIX + name: place for name, place in bare.items()}, dict(config))
    )


def _vae(stored: dict[str, Place], config: Mapping[str, Any], module: Any) -> Mapping[str, Place]:
    return _as_places(DIFFUSERS.convert_ldm_vae_checkpoint(stored, dict(config)))


def _encoder(stored: dict[str, Place], config: Mapping[str, Any], module: Any) -> Mapping[str, Place]:
    for prefix in ("cond_stage_model.model.", "conditioner.embedders.1.model.", "conditioner.embedders.0.model.", ""):
        if any(name.startswith(prefix + "transformer.resblocks.") for name in stored):
            layers = int(config["num_hidden_layers"])
            kept = {name: place for name, place in stored.items() if _resblock(name, prefix) < layers}
            return _as_places(DIFFUSERS.convert_open_clip_checkpoint(module, kept, prefix=prefix))
    if any(name.startswith(PREFIXES["text_encoder"]) for name in stored):
        return _as_places(DIFFUSERS.convert_ldm_clip_checkpoint(stored))
    return {name.removeprefix("text_encoder."): place for name, place in stored.items()}


def _resblock(name: str, prefix: str) -> int:
    """The layer that an OpenCLIP name belongs to. Stable Diffusion 2 leaves out the last, and files still hold it."""
    inner = name.removeprefix(prefix + "transformer.resblocks.")
    number = inner.split(".")[0]
    return int(number) if inner != name and number.isdigit() else -1


_CONVERSIONS: Mapping[str, Callable[[dict[str, Place], Mapping[str, Any], Any], Mapping[str, Place]]] = {
    "unet": _unet,
    "vae": _vae,
    "text_encoder": _encoder,
}
