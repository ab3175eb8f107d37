"""Self-critical training (Rennie et al. 2017): of the captions a captioner writes, those CIDEr-D likes better become likelier.

The captions are the beams of a search, as in Cornia et al. 2020, and the baseline of one is the mean reward of the others.
It fits the seam: all beams of an image share its features, and ride in one packed row to be learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from captrain.metrics.cider import CiderScorer
from captrain.metrics.tokenizer import tokenize_lines
from captrain.models.captioner import Captioner
from captrain.models.decoding import Decoding
from captrain.models.packing import IGNORED
from captrain.records import Sample

END = "</s>"
"""Stands for the end of a caption as a word of its own: without it, breaking off in mid-sentence would pay."""


class Reward:
    """Rewards captions written for training images by CIDEr-D against the images' own.

    Args:
        samples: the training images; a batch names them by position. draws: captions written an image.
    """

    def __init__(self, samples: Sequence[Sample], draws: int, max_new_tokens: int, length_penalty: float = 1.0) -> None:
        self.draws = draws
        self.decoding = Decoding(beams=draws, max_new_tokens=max_new_tokens, length_penalty=length_penalty)
        texts = [list(samples[position].captions) for position in range(len(samples))]
        words = iter(tokenize_lines([text for captions in texts for text in captions]))
        references = {str(at): [[*next(words), END] for _ in captions] for at, captions in enumerate(texts)}
        self.scorer = CiderScorer(references)

    @torch.no_grad()
    def draw(self, captioner: Captioner, features: Tensor, positions: Sequence[int]) -> dict[str, Tensor]:
        """Captions as a packed batch with a weight for every token: how much better than the others its caption was.

        Args:
            features: (I, N, D) of the images at `positions`.
        """
        drawn = captioner.write_several(features, self.draws, self.decoding)
        rewards = self._rewards(captioner, drawn, positions)
        others = (rewards.sum(1, keepdim=True) - rewards) / max(self.draws - 1, 1)
        advantages = (rewards - others).to(features.device)
        rows = captioner.pack(drawn).to(features.device)
        labels = rows.labels
        for row, captions in enumerate(drawn):
            for number, caption in enumerate(captions, start=1):
                if (
                    len(caption) >= self.decoding.max_new_tokens
                ):  # cut off by the limit: its end was not the captioner's choice
                    last = int((rows.caption_ids[row] == number).nonzero()[-1])
                    labels[row, last] = IGNORED
        numbers = (rows.caption_ids - 1).clamp(min=0)
        return {**replace(rows, labels=labels).to_dict(), "weights": advantages.gather(1, numbers)}

    def _rewards(self, captioner: Captioner, drawn: list[list[list[int]]], positions: Sequence[int]) -> Tensor:
        """CIDEr-D of each caption, (I, draws)."""
        flat = [caption for captions in drawn for caption in captions]
        texts = captioner.tokenizer.batch_decode(flat, skip_special_tokens=True)
        ended = [len(caption) < self.decoding.max_new_tokens for caption in flat]
        words = [[*tokens, END] if end else tokens for tokens, end in zip(tokenize_lines(texts), ended, strict=True)]
        columns = []
        for draw in range(self.draws):
            candidates = {str(at): words[row * self.draws + draw] for row, at in enumerate(positions)}
            scores = self.scorer.score(candidates)[1]
            columns.append([scores[str(at)] for at in positions])
        return torch.tensor(columns).T
