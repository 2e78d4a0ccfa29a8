"""A byte-level BPE tokenizer laid out like CLIP's: bytes, bytes at word ends, merges, BOS, EOS."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from zoo.render import CONFUSABLE, EMOJI, INVISIBLE, samples
from zoo.worlds import World

SPLIT = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
FILL = "!"  # what OpenCLIP's tokenizers pad with: the vocabulary's first token


def train(world: World) -> CLIPTokenizer:
    """Learn merges on captions and word lists of ``world``; every byte stays encodable."""
    raw = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False))
    raw.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=world.sizes.vocabulary - 258,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    corpus = [s.caption for s in samples(world, 20_000, seed=1)]
    signs = [*INVISIBLE, *EMOJI, *"".join(CONFUSABLE.values())]
    raw.train_from_iterator([*corpus, *(list(world.fillers) * 3), *(signs * 40)], trainer)
    merges = [tuple(m) for m in json.loads(raw.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(a + "</w>" for a in alphabet), *("".join(m) for m in merges), BOS, EOS]
    vocabulary = {t: i for i, t in enumerate(dict.fromkeys(tokens))}
    how = {"pad_token": FILL} if world.family == "sd2" else {}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=world.sizes.context, **how)


def second(first: CLIPTokenizer, folder: Path) -> CLIPTokenizer:
    """SDXL's second tokenizer: the first one, read from ``folder``, that pads like OpenCLIP's."""
    made = CLIPTokenizer.from_pretrained(folder, pad_token=FILL)
    assert len(made) == len(first), "the padding token is one of the vocabulary"
    return made
