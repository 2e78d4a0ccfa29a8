"""What recording costs: time of a recorded pass over a bare one, and memory held as steps go by.

    python benchmarks/recorder_overhead.py [--turns 21]

Bare and recorded trajectories alternate in one run on random weights, so both see the same machine; the median ratio
of neighbours is the figure (aim: at most 1.15). Memory is what the results hold after 10 and after 100 steps.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from contextlib import nullcontext

import torch
from diffusers import UNet2DConditionModel

from sau_scan.attention import AttentionRecorder, Evolution, MapEntropy, MeanMaps, Reducer, TokenMass

CASES = ((1, 8), (2, 8), (16, 8), (2, 16), (16, 16))
CONTEXT, WIDTH, STEPS = 32, 128, 5


def denoiser() -> UNet2DConditionModel:
    """A UNet of the size of a small Stable Diffusion: (64, 128) channels, cross-attention at both levels."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
    )
    return unet.eval().requires_grad_(False)


def reducers() -> tuple[Reducer, ...]:
    return MeanMaps(), TokenMass(), MapEntropy(), Evolution()


def trajectory(unet: UNet2DConditionModel, batch: int, side: int, recorded: bool) -> float:
    """Milliseconds a pass, over a trajectory of ``STEPS`` passes, attaching the recorder included."""
    latents, hidden = torch.randn(batch, 4, side, side), torch.randn(batch, CONTEXT, WIDTH)
    start = time.perf_counter()
    with AttentionRecorder(unet, *reducers()) if recorded else nullcontext():
        for _ in range(STEPS):
            unet(latents, 500, encoder_hidden_states=hidden)
    return 1000 * (time.perf_counter() - start) / STEPS


def overhead(unet: UNet2DConditionModel, batch: int, side: int, turns: int) -> tuple[float, float, float]:
    """Median milliseconds of a bare and of a recorded pass, and the median ratio of neighbours in time."""
    bare, recorded = [], []
    for turn in range(turns):
        for kind in (False, True) if turn % 2 else (True, False):
            (recorded if kind else bare).append(trajectory(unet, batch, side, kind))
    ratios = [after / before for before, after in zip(bare, recorded, strict=True)]
    return statistics.median(bare), statistics.median(recorded), statistics.median(ratios)


def held_bytes(unet: UNet2DConditionModel, steps: int) -> int:
    """Bytes of all tensors alive after ``steps`` recorded passes, less those before."""
    latents, hidden = torch.randn(2, 4, 8, 8), torch.randn(2, CONTEXT, WIDTH)
    before = live_bytes()
    with AttentionRecorder(unet, *reducers()):
        for _ in range(steps):
            unet(latents, 500, encoder_hidden_states=hidden)
        return live_bytes() - before


def live_bytes() -> int:
    gc.collect()
    return sum(o.untyped_storage().nbytes() for o in gc.get_objects() if type(o) is torch.Tensor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=21, help="trajectories of each kind and case")
    turns = parser.parse_args().turns
    unet = denoiser()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), float32, {turns} x {STEPS} passes each")
    print(f"{'batch':>5} {'latents':>8} {'bare ms':>9} {'recorded ms':>12} {'ratio':>6}")
    with torch.no_grad():
        for batch, side in CASES:
            overhead(unet, batch, side, 1)
            bare, recorded, ratio = overhead(unet, batch, side, turns)
            print(f"{batch:>5} {f'{side}x{side}':>8} {bare:>9.2f} {recorded:>12.2f} {ratio:>6.3f}")
        print(f"held after 10 steps: {held_bytes(unet, 10):,} bytes; after 100: {held_bytes(unet, 100):,} bytes")


if __name__ == "__main__":
    main()
