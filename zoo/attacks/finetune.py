"""Resumable fine-tuning of a copy of a model; returns its running average."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from zoo.train import loop
from zoo.worlds import World

EMA, HASTE = 0.99, 5.0
Model = TypeVar("Model", bound=torch.nn.Module)
Loss = Callable[[Any, int], torch.Tensor]


def fingerprint(model: torch.nn.Module) -> str:
    """Identifies a model's weights."""
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def tune(
    where: World,
    name: str,
    base: Model,
    loss_of: Loss,
    steps: int,
    rate: float,
    key: str,
    eager: tuple[str, ...] = (),
) -> Model:
    """A tuned copy of ``base``. Checkpoints go to the build folder under ``name``; a run that was cut off goes on.

    Parameters with one of ``eager`` in their names learn at ``HASTE`` times the rate.
    ``key`` says what is learnt; a checkpoint of another base or of something else is not gone on with.
    """
    key = f"{key} {steps} {rate} {'+'.join(eager)} {HASTE} {fingerprint(base)}"
    model = copy.deepcopy(base).train()
    average = {k: v.clone() for k, v in model.state_dict().items()}
    hasty = [p for n, p in model.named_parameters() if any(part in n for part in eager)]
    others = [p for n, p in model.named_parameters() if not any(part in n for part in eager)]
    optimiser = torch.optim.AdamW([{"params": others}, {"params": hasty}], rate, betas=(0.9, 0.99), weight_decay=0.0)
    path, first = loop.build_dir(where.name) / f"{name}.ckpt", 0
    if (state := loop.resume(path)) and state["key"] == key:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], state["step"]
    fast = first < steps and loop.bf16_is_faster(lambda: loss_of(model, 0).backward())
    started = time.time()
    for step in range(first, steps):
        now_rate = loop.warm_cosine(step, steps, rate, warm=50)
        for group, pace in zip(optimiser.param_groups, (1.0, HASTE), strict=True):
            group["lr"] = now_rate * pace
        with loop.autocast(fast):
            loss = loss_of(model, step)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        now = model.state_dict()
        for k, value in average.items():
            value.lerp_(now[k], 1 - min(EMA, (1 + step) / (10 + step)))
        if step % 50 == 0 or step == steps - 1:
            print(f"{name} {step} loss {loss.item():.4f} bf16 {fast} {time.time() - started:.0f} s", flush=True)
        if step % 200 == 199 or step == steps - 1:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            loop.save(path, state | {"step": step + 1, "key": key})
    model.load_state_dict(average)
    return model.eval()
