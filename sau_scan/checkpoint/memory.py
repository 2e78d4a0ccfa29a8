"""How much of a model's work fits into memory at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from sau_scan.checkpoint.model import DiffusionModel

MOST = 128  # rows: more at once is not faster
ROOM, SHARE = 384 * 2**20, 0.1  # bytes that a UNet pass may take on a CPU; if more, this share of the weights
# Values alive at once, in units of what one tensor of the widest level holds: measured on Stable Diffusion 1.5.
ALIVE = 40


def weight_bytes(model: DiffusionModel) -> int:
    """What the weights take as they are loaded."""
    modules = [m for m in vars(model).values() if isinstance(m, torch.nn.Module)]
    return sum(p.numel() * p.element_size() for m in modules for p in m.parameters())


def passes_at_once(model: DiffusionModel) -> int:
    """Rows of a UNet pass that fit into the room there is beside the weights."""
    room = max(ROOM, SHARE * weight_bytes(model))
    if model.device.type == "cuda":
        room = max(room, torch.cuda.mem_get_info(model.device)[0] / 4)
    return int(min(MOST, max(1, room // row_bytes(model))))


def chunk(model: DiffusionModel, most: int, *, guided: bool = False) -> int:
    """``most`` pictures or predictions at once, or as many as there is room for; guided, a picture is two rows."""
    return max(1, min(most, passes_at_once(model) // (2 if guided else 1)))


def row_bytes(model: DiffusionModel) -> int:
    """What one row of a UNet pass takes, about."""
    _, height, width = model.latent_shape
    positions, channels = _widest(model.unet.config)
    return int(ALIVE * height * width * positions * channels * model.dtype.itemsize)


def _widest(config: Any) -> tuple[float, int]:
    """Positions per latent pixel where there are most, and channels there."""
    blocks = config.get("block_out_channels")
    if blocks:
        return 1.0, int(blocks[0])
    patch = int(config.get("patch_size") or 1)
    return 1 / patch**2, int(config.get("num_attention_heads") or 1) * int(config.get("attention_head_dim") or 1)


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has held so far: on the accelerator, or else in main memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        # Not resource.getrusage: what a process was before it became this one counts in there.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        import resource

        scale = 1 if sys.platform == "darwin" else 1024
        return scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
