"""Training rows: an image with the captions it carries this epoch, drawn by seed, epoch and image alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from captrain.features.images import Images
from captrain.models.captioner import Captioner
from captrain.models.packing import pack
from captrain.records import Sample

CHUNK = 1024
CaptionsPerImage = str | int
Row = tuple[int, list[list[int]]]


class TokenizedCaptions:
    """The token ids of all captions of all samples, tokenised once, in one flat array.

    `captions[i]` are the captions of sample i. `cut` counts those that were longer than allowed.
    """

    def __init__(self, captioner: Captioner, samples: Sequence[Sample], max_tokens: int) -> None:
        pieces: list[np.ndarray] = []
        lengths: list[int] = []
        counts: list[int] = []
        self.cut = 0
        for start in range(0, len(samples), CHUNK):
            captions = [samples[index].captions for index in range(start, min(start + CHUNK, len(samples)))]
            counts += [len(texts) for texts in captions]
            ids, cut = captioner.tokenize([text for texts in captions for text in texts], max_tokens)
            self.cut += cut
            lengths += [len(caption) for caption in ids]
            pieces += [np.array(caption, dtype=np.int32) for caption in ids]
        self.tokens = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
        self.caption_ends = np.cumsum([0, *lengths])
        self.sample_ends = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return len(self.sample_ends) - 1

    @property
    def total(self) -> int:
        """How many captions."""
        return len(self.caption_ends) - 1

    def __getitem__(self, sample: int) -> list[list[int]]:
        first, last = self.sample_ends[sample], self.sample_ends[sample + 1]
        ends = self.caption_ends
        return [self.tokens[ends[caption] : ends[caption + 1]].tolist() for caption in range(first, last)]


class TrainingRows(Dataset[Row]):
    """Row (epoch, i): image i and the captions that it carries in that epoch."""

    def __init__(self, captions: TokenizedCaptions, captions_per_image: CaptionsPerImage, seed: int) -> None:
        self.captions = captions
        self.most = {"all": None, "one": 1}.get(str(captions_per_image), captions_per_image)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, place: tuple[int, int]) -> Row:
        epoch, index = place
        captions = self.captions[index]
        if self.most is None or len(captions) <= int(self.most):
            return index, captions
        draw = np.random.default_rng([self.seed, epoch, index])
        chosen = sorted(draw.choice(len(captions), int(self.most), replace=False))
        return index, [captions[number] for number in chosen]


class EpochSampler(Sampler[tuple[int, int]]):
    """All images once, in an order that seed and epoch alone decide; yields (epoch, image)."""

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        return ((self.epoch, int(index)) for index in order)


class Collator:
    """Rows as keyword arguments of a captioner's forward: images from where they are kept, captions packed."""

    def __init__(self, captioner: Captioner, images: Images) -> None:
        self.start, self.end, self.prompt = captioner.start_id, captioner.end_id, captioner.prompt_ids()
        self.images = images

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Pack a batch of rows."""
        packed = pack([captions for _, captions in rows], self.start, self.end, self.prompt)
        images: dict[str, torch.Tensor] = self.images.rows([index for index, _ in rows])
        return {**images, **packed.to_dict()}
