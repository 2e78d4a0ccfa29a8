"""CLIP score: cosine of picture and caption in the zoo's own CLIP of one world."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from transformers import CLIPModel, CLIPTokenizer

from zoo.parts import token_ids
from zoo.train.export import load_tokenizer, model_dir
from zoo.worlds import World, world


class ClipScore:
    """A frozen CLIP; higher scores mean that picture and caption fit better."""

    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
        self.model, self.tokenizer = model.float().eval().requires_grad_(False), tokenizer

    @classmethod
    def load(cls, where: World | str) -> ClipScore:
        where = world(where) if isinstance(where, str) else where
        folder = model_dir(where.name, "clip")
        if not folder.exists():
            raise FileNotFoundError(f"no CLIP at {folder}: run `python -m zoo train` first")
        base = model_dir(where.name, "base") / "tokenizer"
        words = CLIPTokenizer.from_pretrained(base, local_files_only=True) if base.exists() else load_tokenizer(where)
        return cls(CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True), words)

    @torch.no_grad()
    def __call__(self, pictures: torch.Tensor, captions: Sequence[str], chunk: int = 250) -> torch.Tensor:
        """Cosines [N] of pictures [N, 3, 64, 64] in 0..1 with their captions."""
        scores = []
        for i in range(0, len(captions), chunk):
            ids = token_ids(self.tokenizer, captions[i : i + chunk])
            out = self.model(input_ids=ids, pixel_values=pictures[i : i + chunk] * 2 - 1)
            scores.append(F.cosine_similarity(out.image_embeds, out.text_embeds))
        return torch.cat(scores)
