"""What every stage needs: where files go, which arithmetic is fast here, checkpoints, learning rates."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

BUILD = Path(__file__).parents[1] / "build"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.set_float32_matmul_precision("high")  # tf32 where there is such a thing


def scaled(count: int) -> int:
    """``count`` steps or pictures, or the share of them that ``ZOO_SHARE`` asks for (to try the whole way quickly)."""
    return max(2, round(count * float(os.environ.get("ZOO_SHARE", "1"))))


def build_dir(world: str) -> Path:
    """The git-ignored working folder of one world."""
    path = BUILD / world
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def autocast(enabled: bool) -> Iterator[None]:
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=enabled):
        yield


def bf16_is_faster(step: Callable[[], object]) -> bool:
    """Whether ``step`` takes less time under bf16 autocast; some processors only emulate it."""
    seconds = []
    for enabled in (False, True):
        with autocast(enabled):
            step()
            started = _clock()
            for _ in range(3):
                step()
            seconds.append(_clock() - started)
    return seconds[1] < seconds[0]


def _clock() -> float:
    """Processor time, which other programs do not stretch; of an accelerator, when its work is done."""
    if DEVICE.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a training checkpoint atomically."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def resume(path: Path) -> dict[str, Any] | None:
    """The last training checkpoint, if there is one (tensors and plain values only)."""
    return torch.load(path, map_location=DEVICE, weights_only=True) if path.exists() else None


def warm_cosine(step: int, total: int, peak: float, warm: int = 100, floor: float = 0.03) -> float:
    """Linear warm-up, then cosine decay to ``floor * peak``."""
    if step < warm:
        return peak * (step + 1) / warm
    progress = min(1.0, (step - warm) / max(1, total - warm))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate
