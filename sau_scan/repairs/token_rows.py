"""Repair of a textual inversion: its rows say what the word says without it, so that nothing is taken over any more.

The rows are the base's own for the word's tokens, one by one or as their mean, in place of what was learnt for them.
"""

from __future__ import annotations

from sau_scan.checkpoint.adapters.applying import TABLE, read_rows
from sau_scan.checkpoint.adapters.inversion import plain_rows
from sau_scan.checkpoint.components import load_component
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.patch import WeightPatch, make_patch
from sau_scan.checkpoint.tokenizer import load_tokenizer

METHOD = "plain-rows"
# Rows in half precision are as plain as that allows.
ALIKE = 0.01


def plan_rows(model: DiffusionModel) -> WeightPatch:
    """New values of all rows that the embedding ``model`` was loaded with holds; those that are plain are left out."""
    checkpoint, family = model.checkpoint, model.family
    assert checkpoint.base is not None
    inversion = read_rows(checkpoint, family, model.encoders)
    values = {}
    for name, encoder in family.encoders:
        if encoder not in inversion.rows:
            continue
        tokenizer = load_tokenizer(checkpoint.base, name)
        table = load_component(checkpoint.base, encoder, {}).get_input_embeddings().weight.detach()
        plain = plain_rows(inversion.word, len(inversion.tokens), tokenizer, table)
        for token, row in zip(inversion.tokens, plain, strict=True):
            place = encoder, f"{TABLE}[{int(model.tokenizer.convert_tokens_to_ids(token))}]"
            now = model.stored(*place).detach().float().cpu()
            if float((now - row).norm()) > ALIKE * float(row.norm()):
                values[model.disk[place]] = row.clone()
    return make_patch(checkpoint, values) if values else WeightPatch()
