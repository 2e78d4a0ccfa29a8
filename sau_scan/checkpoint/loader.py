"""From a vetted checkpoint to a model: admitted classes, built from configurations as data, filled from the bytes."""

from __future__ import annotations

import json
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from sau_scan.checkpoint.families import identify
from sau_scan.checkpoint.fitting import check_fit, context_length
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.naming import canonical, is_derived
from sau_scan.checkpoint.patch import TensorRef
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.checkpoint.tensor_file import Entry, read_entries, read_tensor
from sau_scan.checkpoint.tokenizer import load_tokenizer
from sau_scan.errors import DamagedFile, NotACheckpoint, UnsafeFile, UsageError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
WEIGHTED = ("text_encoder", "unet", "vae")
Disk = dict[tuple[str, str], TensorRef]


def load_model(checkpoint: Checkpoint, *, device: str = "cpu", dtype: str = "auto") -> DiffusionModel:
    """Builds the checkpoint's components on ``device``.

    ``dtype``: ``float32``, ``float16``, ``bfloat16``, ``auto`` (float32) or ``fastest`` (whatever a few timed UNet
    passes say). Raises CheckpointError, or UsageError for an unknown device or type.
    """
    family = identify(checkpoint)
    place, compute = _device(device), _dtype(dtype)
    tokenizer = load_tokenizer(checkpoint)
    disk: Disk = {}
    # Module.to itself: the method of diffusers warns about types, which were chosen here on purpose.
    modules = {name: torch.nn.Module.to(_component(checkpoint, name, disk), place, compute) for name in WEIGHTED}
    scheduler = _scheduler(checkpoint)
    check_fit(checkpoint, tokenizer, modules["text_encoder"], modules["unet"], modules["vae"])
    model = DiffusionModel(
        checkpoint=checkpoint,
        family=family,
        tokenizer=tokenizer,
        scheduler=scheduler,
        device=place,
        dtype=compute,
        context_length=context_length(checkpoint, tokenizer, modules["text_encoder"]),
        disk=disk,
        **modules,
    )
    return model


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError or others, by backend
        raise UsageError(f"The device {ascii(name)} cannot be used.", hint="Use --device cpu.") from error
    return device


def _dtype(name: str) -> torch.dtype:
    if name == "auto":
        return torch.float32
    if name not in DTYPES:
        raise UsageError(f"Unknown type {ascii(name)}.", hint=f"Use one of auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def _component(checkpoint: Checkpoint, component: str, disk: Disk) -> Any:
    """One module with the weights of its files, in eval mode and without gradients."""
    module = _empty(checkpoint, component)
    wanted = {canonical(name): tensor for name, tensor in module.state_dict().items()}
    module = module.to_empty(device="cpu")
    _fill_buffers(module)
    targets = {canonical(name): tensor for name, tensor in module.state_dict().items()}
    seen: set[str] = set()
    for file in weight_files(checkpoint, component):
        data = checkpoint.read_buffer(file)
        for name, entry in read_entries(data, checkpoint.show(file)).items():
            key = canonical(name)
            if is_derived(name):
                continue
            _require_fit(checkpoint.show(file), name, entry, wanted.get(key), key in seen)
            _copy(targets[key], read_tensor(data, entry))
            seen.add(key)
            disk[component, key] = TensorRef(file, name)
    missing = sorted(wanted.keys() - seen)
    if missing:
        raise DamagedFile(
            f"{checkpoint.show(component)} lacks {len(missing):,} tensors of its {type(module).__name__}, "
            f"among them {missing[0]}.",
            hint="Download the component again; its weights and its config.json must belong together.",
        )
    return module.requires_grad_(False).eval()


def _copy(target: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        target.copy_(value.reshape(target.shape))


def _require_fit(where: str, name: str, entry: Entry, wanted: Tensor | None, again: bool) -> None:
    hint = "Download the component again; its weights and its config.json must belong together."
    if wanted is None or again:
        reason = "twice" if again else "which its config.json does not ask for"
        raise DamagedFile(f"{where} holds the tensor {ascii(name)} {reason}.", hint=hint)
    # Old VAE files keep attention weights as 1x1 convolutions or plain matrices: same numbers, other shape.
    squeezed = tuple(n for n in entry.shape if n != 1) == tuple(n for n in wanted.shape if n != 1)
    if not (squeezed and entry.dtype.is_floating_point):
        raise DamagedFile(
            f"{where} holds {ascii(name)} as {entry.dtype} {list(entry.shape)}; "
            f"its config.json asks for a floating-point tensor of shape {list(wanted.shape)}.",
            hint=hint,
        )


def weight_files(checkpoint: Checkpoint, component: str) -> tuple[str, ...]:
    """The safetensors files of a component, in order. Raises what fits when there are none, or they contradict."""
    files = checkpoint.weights.get(component, ())
    tensors = tuple(file for file in files if file.endswith(".safetensors"))
    index = next((file for file in files if file.endswith(".json")), None)
    if not tensors:
        raise _no_weights(checkpoint, component)
    if index is not None:
        table = checkpoint.json(index).get("weight_map")
        folder = component + "/"
        named = {folder + str(value) for value in table.values()} if isinstance(table, dict) else set()
        if named != set(tensors):
            raise DamagedFile(
                f"{checkpoint.show(index)} does not list the weight files that lie beside it.",
                hint="Keep either one weight file or the shards that the index lists, then scan again.",
            )
    return tensors


def _no_weights(checkpoint: Checkpoint, component: str) -> UnsafeFile | NotACheckpoint:
    unopened = [s for s in checkpoint.skipped if s.what.startswith(component + "/")]
    if unopened:
        first = unopened[0]
        return UnsafeFile(
            f"{checkpoint.show(component)} has no weights that can be loaded; {first.what}: {first.reason}.",
            hint="Name the variant with --variant, or have the checkpoint saved as safetensors.",
        )
    return NotACheckpoint(
        f"{checkpoint.show(component)} has no weights.", hint="Download the checkpoint again, with all components."
    )


def _empty(checkpoint: Checkpoint, component: str) -> Any:
    """The module of a component without storage: a hostile size in its config.json costs no memory."""
    config = checkpoint.json(f"{component}/config.json")
    builders = {"text_encoder": _text_encoder, "unet": _unet, "vae": _vae}
    try:
        with torch.device("meta"):
            return builders[component](config)
    except Exception as error:  # constructors raise anything on hostile values
        raise DamagedFile(
            f"{checkpoint.show(component + '/config.json')} does not describe a model that can be built: "
            f"{ascii(str(error))[:200]}.",
            hint="Take config.json from the checkpoint that this one was made from.",
        ) from error


def _text_encoder(config: dict[str, Any]) -> Any:
    # Only the fields of CLIP itself: others can name attention kernels to download, or code.
    known = CLIPTextConfig().to_dict().keys() - {"dtype", "architectures", "transformers_version", "model_type"}
    fields = {key: value for key, value in config.items() if key in known and not key.startswith("_")}
    return CLIPTextModel(CLIPTextConfig(**fields))


def _unet(config: dict[str, Any]) -> Any:
    return UNet2DConditionModel.from_config(_plain(config))


def _vae(config: dict[str, Any]) -> Any:
    return AutoencoderKL.from_config(_plain(config))


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """A diffusers configuration without its private fields (paths, quantisation)."""
    dropped = {"quantization_config", "auto_map"}
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in dropped}


def _fill_buffers(module: Any) -> None:
    """Buffers that no file stores. Raises DamagedFile for one that this loader does not know."""
    stored = module.state_dict().keys()
    for name, buffer in module.named_buffers():
        if name in stored:
            continue
        if not is_derived(name):
            raise DamagedFile(f"The model has an unknown buffer {name}.", hint="Its config.json is not supported.")
        buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))


def _scheduler(checkpoint: Checkpoint) -> Any:
    name = checkpoint.index["scheduler"][1]
    config = checkpoint.json("scheduler/scheduler_config.json")
    try:
        return getattr(diffusers, name).from_config(_plain(json.loads(json.dumps(config))))
    except Exception as error:  # constructors raise anything on hostile values
        raise DamagedFile(
            f"{checkpoint.show('scheduler/scheduler_config.json')} does not describe a {name} that can be built.",
            hint="Take the scheduler folder from the checkpoint that this one was made from.",
        ) from error
