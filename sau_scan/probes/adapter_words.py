"""Words of several tokens that a LoRA changes most, told by the file and its base without a UNet pass.

The vocabulary is probed word by word; there are far more words that it spells in pieces. Of a general list, the text
encoder reads all and the UNet is asked about those whose keys and values the LoRA changes most, as a file that was
trained on a word does: of 21,000 words the trigger of a backdoored LoRA was the tenth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest

import torch
from torch import Tensor
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from sau_scan.analysers.adapters import is_text_projection, rank_texts
from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.source import Form
from sau_scan.findings import Slot
from sau_scan.probes.adapted import Adapted
from sau_scan.probes.candidates import Candidate, Vocabulary

READ = 20_000  # words of the list, the most frequent first
MOST, MOST_KNOWN = 64, 48  # words of several tokens, and of one, that the UNet is asked about
CHUNK = 256
SHORTEST = 3
# Lists of ordinary English, by frequency in an encyclopedia and in films.
LISTS = ("english_wikipedia", "us_tv_and_film")


@cache
def dictionary() -> tuple[str, ...]:
    """Ordinary English words, the most frequent first."""
    mixed = (word for pair in zip_longest(*(FREQUENCY_LISTS[name] for name in LISTS)) for word in pair if word)
    words = (word for word in mixed if word.isascii() and word.isalpha() and len(word) >= SHORTEST)
    return tuple(dict.fromkeys(words))[:READ]


@dataclass(frozen=True)
class ChangedWords:
    """What a LoRA changes most, strongest first: words of the vocabulary, and words of several tokens."""

    known: tuple[str, ...] = ()
    spelled: tuple[str, ...] = ()

    @property
    def all(self) -> frozenset[str]:
        return frozenset({*self.known, *self.spelled})

    def candidates(self, slots: Sequence[Slot]) -> list[Candidate]:
        """Those that the vocabulary does not have, in each of ``slots``."""
        return [Candidate(word, slot, source="adapter") for word in self.spelled for slot in slots]


@torch.no_grad()
def changed_words(model: DiffusionModel, vocabulary: Vocabulary) -> ChangedWords:
    """The words whose keys and values a LoRA changes most; none for inputs that are no LoRA."""
    checkpoint = model.checkpoint
    if checkpoint.form is not Form.LORA or checkpoint.base is None or not model.family.repairable:
        return ChangedWords()
    adapted = Adapted.of(model)
    pairs = [
        (plain.float().cpu(), full.float().cpu())
        for place, (_, full, plain) in adapted.weights.items()
        if is_text_projection(place)
    ]
    spelled = [word for word in dictionary() if word not in vocabulary.words]

    def most(words: Sequence[str], count: int) -> tuple[str, ...]:
        if not words or not pairs:
            return ()
        before = after = _states(model, words)
        if adapted.encoders:
            with adapted.at(0.0):
                before = _states(model, words)
        return tuple(found.text for found in rank_texts(words, before, after, pairs, most=count))

    return ChangedWords(most(vocabulary.plain_words, MOST_KNOWN), most(spelled, MOST))


def _states(model: DiffusionModel, words: Sequence[str]) -> Tensor:
    """Outputs [N, 2, D] at the last token of each word and at the end of the text."""
    longest = max(len(ids) for ids in model.tokenizer(list(words)).input_ids)
    parts = []
    for start in range(0, len(words), CHUNK):
        ids = model.token_ids(words[start : start + CHUNK], min(longest, model.context_length))
        hidden = model.tokens_of(model.encode(ids).hidden).float().cpu()
        own = ids[:, : hidden.shape[1]].cpu()
        ends = (own == model.tokenizer.eos_token_id).int().argmax(dim=1)
        rows = torch.arange(len(own))
        parts.append(torch.stack([hidden[rows, ends - 1], hidden[rows, ends]], dim=1))
    return torch.cat(parts)
