"""``make bench-static``: opening a folder of gigabytes, hash and checks in one pass, beside ``sha256sum``.

    python -m benchmarks.static_speed [--gigabytes 5] [--folder /tmp] [--rounds 3]

They take turns over the same files, after one reading that is not timed; the fastest round of each counts. Exits with 1
if ours takes more than 1.3 times as long as ``sha256sum``. Python's own hash is shown too: where the processor helps it
and not ``sha256sum``, it is the harder measure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

GIGABYTE = 10**9
TENSOR = 32 * 10**6
LIMIT = 1.3
OURS = "sau-scan"
STEM = "diffusion_pytorch_model"
ROOM = 2 * GIGABYTE


def write_weights(path: Path, size: int, seed: int) -> list[str]:
    """A safetensors file of about ``size`` bytes, of tensors of normal values, no two alike; the names of these."""
    names = [f"layer.{seed}.{number}.weight" for number in range(max(1, size // TENSOR))]
    header = json.dumps(
        {
            name: {
                "dtype": "F16",
                "shape": [TENSOR // 2000, 1000],
                "data_offsets": [number * TENSOR, (number + 1) * TENSOR],
            }
            for number, name in enumerate(names)
        }
    ).encode()
    values = np.random.default_rng(seed).standard_normal(TENSOR // 2, dtype=np.float32).astype(np.float16)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for number in range(len(names)):
            file.write(np.roll(values, number * 7919).data)
    return names


def write_folder(folder: Path, gigabytes: int) -> None:
    """A pipeline whose UNet is this large, in shards of a gigabyte."""
    (folder / "unet").mkdir()
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    names = [f"{STEM}-{number:05}-of-{gigabytes:05}.safetensors" for number in range(1, gigabytes + 1)]
    table: dict[str, str] = {}
    for number, name in enumerate(names):
        written = write_weights(folder / "unet" / name, GIGABYTE, number)
        table.update(dict.fromkeys(written, name))
    shards = {"metadata": {"total_size": gigabytes * GIGABYTE}, "weight_map": table}
    (folder / "unet" / f"{STEM}.safetensors.index.json").write_text(json.dumps(shards))


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """The fastest seconds of each."""
    from sau_scan.checkpoint.opening import open_checkpoint
    from sau_scan.static import Watch

    files = sorted(str(file) for file in folder.rglob("*") if file.is_file())

    def hashed() -> None:
        subprocess.run(["sha256sum", *files], check=True, stdout=subprocess.DEVNULL)

    def vetted() -> None:
        watch = Watch(folder)
        opened = open_checkpoint(folder, watch=watch)
        found = watch.results()
        if found or len(opened.records) != len(files):
            raise SystemExit(f"not all files were opened, or were not clean: {found}")

    def hashed_here() -> None:
        for name in files:
            with Path(name).open("rb") as file:
                hashlib.file_digest(file, "sha256")

    hashed()
    runs = {"sha256sum": hashed, "hashlib": hashed_here, OURS: vetted}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(_seconds(run))
    return {name: min(times) for name, times in seconds.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(arguments)
    free = shutil.disk_usage(asked.folder).free
    if free < asked.gigabytes * GIGABYTE + ROOM:
        print(
            f"speed not measured: {asked.gigabytes} GB do not fit into {asked.folder} ({free / GIGABYTE:.1f} GB free)"
        )
        return 0
    with tempfile.TemporaryDirectory(prefix="sau-speed-", dir=asked.folder) as made:
        folder = Path(made)
        write_folder(folder, asked.gigabytes)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = measure(folder, asked.rounds)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{size / GIGABYTE:.2f} GB in {asked.gigabytes} files, {os.cpu_count()} cores, fastest of {asked.rounds}")
    for name, taken in seconds.items():
        print(f"  {name:<10} {taken:6.2f} s  {size / taken / GIGABYTE:5.2f} GB/s")
    ratio, harder = (seconds[OURS] / seconds[name] for name in ("sha256sum", "hashlib"))
    print(f"  ratio to sha256sum {ratio:.2f} (at most {LIMIT}), to hashlib {harder:.2f}")
    print(f"  {more:,.0f} MB more memory at the peak")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
