"""What a scan of a full-size checkpoint takes: memory, texts and UNet passes a second, and how true the estimates are.

    python -m benchmarks.full_size [--family sd1] [--dtype float32] [--only memory text unet estimate] [--folder DIR]

TOKENS=5000 in the environment looks at so many tokens only, MAX_TIME=420 bounds the scan of ``estimate``.

The weights are random, of the published architecture, and written to a folder under /tmp tensor by tensor. Each figure
is measured in a process of its own, with the scanner's own code. Random weights say nothing about detection.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.memory import peak_bytes, weight_bytes
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.checkpoint.shipped import SHIPPED, shipped_files
from sau_scan.estimate import estimate
from sau_scan.findings import Slot
from sau_scan.options import Budget, ScanOptions
from sau_scan.probes.candidates import Candidate, read_vocabulary
from sau_scan.probes.runner import Prober
from sau_scan.scan import detect

DTYPES = {"float32": (torch.float32, "F32"), "float16": (torch.float16, "F16")}
CARRIERS = ("a photo of a cat sitting on a red bench", "an old house beside the sea, oil on canvas")
MEMORY, MINUTES, TRUE = 1.3, 20, 0.3  # the aims: of the weights as loaded; of two cores; off by
# Little enough of everything that a run on two cores takes minutes.
FEW = """
id: few
family: carriers
title: Two prompts
severity: info
summary: Prompts around two words.
templates: ["a {a} beside a {b}", "the {a} and the {b}"]
positive: ["a boat beside a tree"]
benign: ["a boat"]
"""


def write_checkpoint(folder: Path, family: str, dtype: str) -> None:
    """A diffusers folder of the published architecture, with random weights."""
    for path, data in shipped_files(family).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    for path in sorted(folder.glob("*/config.json")):
        with torch.device("meta"):
            module = empty(path.parent.name, json.loads(path.read_text()))
        shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
        name = "model" if "text" in path.parent.name else "diffusion_pytorch_model"
        write_weights(path.parent / f"{name}.safetensors", shapes, dtype)


def empty(component: str, config: dict[str, Any]) -> Any:
    if component == "unet":
        return UNet2DConditionModel.from_config(config)
    if component == "vae":
        return AutoencoderKL.from_config(config)
    kind = CLIPTextModel if component == "text_encoder" else CLIPTextModelWithProjection
    return kind(CLIPTextConfig(**config))


def write_weights(path: Path, shapes: Mapping[str, torch.Size], dtype: str) -> None:
    """A safetensors file, one tensor in memory at a time."""
    kind, tag = DTYPES[dtype]
    header, end = {}, 0
    for name, shape in shapes.items():
        size = shape.numel() * kind.itemsize
        header[name] = {"dtype": tag, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(0)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            file.write(values(name, shape, generator).to(kind).numpy().data)


def values(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Of a size at which activations neither vanish nor overflow in half precision."""
    if len(shape) == 1:
        return torch.ones(shape) if "norm" in name and name.endswith("weight") else torch.zeros(shape)
    scale = 0.02 if "embedding.weight" in name else 0.7 * (shape[1:].numel()) ** -0.5
    return torch.randn(shape, generator=generator) * scale


def loaded(folder: Path) -> DiffusionModel:
    return load_model(open_checkpoint(folder))


def memory(folder: Path) -> dict[str, Any]:
    """The peak of loading, and of every kind of probe there is."""
    before = peak_bytes(torch.device("cpu"))
    model = loaded(folder)
    weights, after = weight_bytes(model), peak_bytes(model.device)
    prober = Prober(model, CARRIERS[:1], ("of", "and"))
    some = [Candidate(word, Slot.SUFFIX) for word in read_vocabulary(model).plain_words[: 2 * prober.batch]]
    prober.text(some, 1)
    prober.noise(some[: prober.at_once], 1, [900])
    prober.generate(some[:1], prober.at_once, 1, steps=1, guidance=5.0)
    peak = peak_bytes(model.device)
    return {
        "weights as loaded, GB": weights / 1e9,
        "libraries, GB": before / 1e9,
        "peak of loading / weights": after / weights,
        "peak of probing / weights": peak / weights,
        "as aimed at": peak <= MEMORY * weights,
    }


def text(folder: Path) -> dict[str, Any]:
    """The text tier over the whole vocabulary, behind two carriers."""
    model = loaded(folder)
    words = read_vocabulary(model).words
    # Tokens that no text yields cannot be typed; others stand in for them, so that the number is that of all tokens.
    items = [Candidate(word, Slot.SUFFIX) for word in words]
    items += items[: len(model.vocabulary) - len(items)]
    items = items[:: max(1, len(items) // TOKENS)][:TOKENS]
    prober = Prober(model, CARRIERS, tuple(list(words)[:32]))
    started, worked = time.perf_counter(), time.process_time()
    prober.text(items, len(CARRIERS))
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    return {
        "candidates": len(items),
        "texts": prober.counter.text,
        "seconds": seconds,
        "processor seconds": worked,
        "texts a second": prober.counter.text / seconds,
        "minutes for all tokens": seconds * len(model.vocabulary) / len(items) / 60,
        "as aimed at": seconds * len(model.vocabulary) / len(items) <= 60 * MINUTES,
    }


def unet(folder: Path) -> dict[str, Any]:
    """Passes a second, in batches as a scan makes them."""
    model = loaded(folder)
    prober = Prober(model, CARRIERS, ("of",))
    rows = prober.at_once
    hidden = prober.encode([CARRIERS[0]])[0].expand(rows, -1, -1)
    noise = prober.latents(0).expand(rows, -1, -1, -1)
    prober.predict(hidden, noise, 900)
    started, worked = time.perf_counter(), time.process_time()
    for _ in range(2):
        prober.predict(hidden, noise, 900)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    return {"rows at once": rows, "passes a second": 2 * rows / seconds, "processor seconds a pass": worked / rows / 2}


def estimates(folder: Path) -> dict[str, Any]:
    """``--dry-run`` against a run with few candidates: time and memory."""
    with tempfile.TemporaryDirectory() as room:
        (Path(room) / "carriers").mkdir()
        (Path(room) / "carriers/few.yaml").write_text(FEW)
        options = ScanOptions(budget=Budget.QUICK, max_time=MAX_TIME, rules=Path(room))
        told = next(e for e in estimate(folder, options).budgets if e.budget is Budget.QUICK)
        started = time.perf_counter()
        used = detect(folder, options).coverage.used
    seconds, peak = time.perf_counter() - started, peak_bytes(torch.device("cpu"))
    return {
        "seconds, estimated": told.seconds,
        "seconds": seconds,
        "GB, estimated": told.memory / 1e9,
        "GB": peak / 1e9,
        "UNet passes, planned": told.unet_passes,
        "UNet passes": used.unet_passes,
        "as aimed at": abs(told.seconds / seconds - 1) <= TRUE and abs(told.memory / peak - 1) <= TRUE,
    }


MAX_TIME = float(os.environ.get("MAX_TIME", "1200"))  # of the scan that an estimate is held against
TOKENS = int(os.environ.get("TOKENS", "999999"))  # fewer for a first impression
FIGURES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "memory": memory,
    "text": text,
    "unet": unet,
    "estimate": estimates,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=SHIPPED, default="sd1")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights on disk")
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--folder", type=Path, help="where the checkpoint is, or is written to and kept")
    parser.add_argument("--figure", choices=FIGURES, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.figure:
        print(json.dumps(FIGURES[given.figure](given.folder)))
        return 0
    folder = given.folder or Path(tempfile.mkdtemp(prefix="sau-scan-full-size-"))
    try:
        if not (folder / "model_index.json").exists():
            write_checkpoint(folder, given.family, given.dtype)
        print(f"{given.family}, {given.dtype} on disk, torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
        for name in given.only:
            show(name, folder)
    finally:
        if given.folder is None:
            shutil.rmtree(folder)
    return 0


def show(name: str, folder: Path) -> None:
    """One figure, measured in a process that holds nothing else."""
    load = os.getloadavg()[0]
    command = [sys.executable, "-m", "benchmarks.full_size", "--figure", name, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: failed\n{done.stderr[-2000:]}")
        return
    print(f"{name} (load of the machine before: {load:.1f})")
    for what, value in json.loads(done.stdout.splitlines()[-1]).items():
        print(f"    {what:<26} {value:,.3f}" if isinstance(value, float) else f"    {what:<26} {value}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
