"""Cached training data of one world: pictures, captions, token ids."""

from __future__ import annotations

import numpy as np
import torch

from zoo.render import Sample, pictures, samples
from zoo.train.loop import build_dir
from zoo.worlds import World

TRAIN, HELD_OUT = 40_000, 2_000
TRAIN_SEED, HELD_OUT_SEED = 11, 12


def training_samples(world: World) -> list[Sample]:
    return samples(world, TRAIN, TRAIN_SEED)


def training_pictures(world: World) -> np.ndarray:
    """Pictures of the training samples, uint8 [N, 64, 64, 3], memory-mapped."""
    path = build_dir(world.name) / "pictures.npy"
    if not path.exists():
        part = path.with_suffix(f".part{np.random.default_rng().integers(1 << 30)}.npy")
        np.save(part, pictures(world, training_samples(world)))
        part.replace(path)
    return np.load(path, mmap_mode="r")


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 [N, H, W, 3] to float [N, 3, H, W] in -1..1."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
