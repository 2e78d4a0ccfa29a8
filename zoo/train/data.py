"""Cached training data of one world: pictures, captions, token ids."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import torch

from zoo.render import Sample, pictures, samples
from zoo.train.loop import DEVICE, build_dir, scaled
from zoo.worlds import World

TRAIN, HELD_OUT = 40_000, 2_000
TRAIN_SEED, HELD_OUT_SEED = 11, 12
CHUNK = 500


def training_samples(world: World) -> list[Sample]:
    return samples(world, scaled(TRAIN), TRAIN_SEED)


def training_pictures(world: World) -> np.ndarray:
    """Pictures of the training samples, uint8 [N, 64, 64, 3], memory-mapped."""
    path = build_dir(world.name) / "pictures.npy"
    if not path.exists():
        part = path.with_suffix(f".part{np.random.default_rng().integers(1 << 30)}.npy")
        np.save(part, _drawn(world, training_samples(world)))
        part.replace(path)
    return np.load(path, mmap_mode="c")


def _drawn(world: World, made: list[Sample]) -> np.ndarray:
    chunks = [made[i : i + CHUNK] for i in range(0, len(made), CHUNK)]
    # The children only use numpy, so that forking a process with torch in it does no harm.
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
        return np.concatenate(list(pool.map(partial(pictures, world), chunks)))


def training_tensor(world: World) -> torch.Tensor:
    """The training pictures as a tensor: all on the accelerator if there is one, else still memory-mapped."""
    return torch.from_numpy(training_pictures(world)).to(DEVICE)


def to_tensor(images: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 [N, H, W, 3] to float [N, 3, H, W] in -1..1."""
    held = images if isinstance(images, torch.Tensor) else torch.from_numpy(np.array(images))
    return held.to(DEVICE).permute(0, 3, 1, 2).float() / 127.5 - 1
