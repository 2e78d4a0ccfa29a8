"""Leads of a LoRA: words whose keys and values it changes most, told by the file and its base without a probe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from sau_scan.analysers.adapters import is_text_projection, rank_texts
from sau_scan.checkpoint.components import load_component
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.naming import canonical
from sau_scan.checkpoint.source import Checkpoint, Form
from sau_scan.findings import Component, Slot
from sau_scan.probes.candidates import Candidate, Vocabulary
from sau_scan.probes.runner import Prober
from sau_scan.tiers.leads import Lead, evidence

MOST = 2  # places in the generate tier: an honest style has favourite words, too
CHUNK = 256
CHANCE = 0.05  # that the best of all words stands out as much by chance


@torch.no_grad()
def adapter_leads(prober: Prober, slot: Slot, vocabulary: Vocabulary) -> tuple[Lead, ...]:
    """The words that a LoRA changes most, strongest first; none for other inputs."""
    model = prober.model
    checkpoint = model.checkpoint
    if checkpoint.form is not Form.LORA or checkpoint.base is None or not model.family.repairable:
        return ()
    words = vocabulary.plain_words
    pairs = list(_projections(model, checkpoint.base))
    if not words or not pairs:
        return ()
    after = _states(prober, model, words)
    plain = _unadapted(model, checkpoint.base)
    before = after if plain is model else _states(prober, plain, words)
    return tuple(
        Lead(
            Candidate(found.text, slot, source="adapter"),
            "adapter-change",
            Component.CROSS_ATTENTION,
            found.z,
            found.p_value,
            evidence=(evidence("change of keys and values by the LoRA", found.ratio, p=found.p_value),),
            line=-math.inf if found.p_value * len(words) < CHANCE else math.inf,
        )
        for found in rank_texts(words, before, after, pairs, most=MOST)
    )


def _projections(model: DiffusionModel, base: Checkpoint) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights of keys and values without and with the adapter."""
    plain = {canonical(name): value for name, value in load_component(base, "unet", {}).state_dict().items()}
    for name, value in model.unet.state_dict().items():
        if is_text_projection(("unet", canonical(name))):
            yield plain[canonical(name)].float(), value.float().cpu()


def _unadapted(model: DiffusionModel, base: Checkpoint) -> DiffusionModel:
    """``model`` with the base's own text encoders, or itself where the adapter leaves them alone."""
    changed = {component for component, _ in model.disk} & model.encoders.keys()
    if not changed:
        return model
    return replace(model, **{name: load_component(base, name, {}).to(model.device, model.dtype) for name in changed})


def _states(prober: Prober, model: DiffusionModel, words: tuple[str, ...]) -> Tensor:
    """Outputs [N, 2, D] at the last token of each word and at the end of the text."""
    parts = []
    for start in range(0, len(words), CHUNK):
        ids = model.token_ids(words[start : start + CHUNK])
        hidden = model.tokens_of(model.encode(ids).hidden).float().cpu()
        own = ids[:, : model.context_length].cpu()
        ends = (own == model.tokenizer.eos_token_id).int().argmax(dim=1)
        rows = torch.arange(len(own))
        parts.append(torch.stack([hidden[rows, ends - 1], hidden[rows, ends]], dim=1))
        prober.counter.text += len(own)
    return torch.cat(parts)
