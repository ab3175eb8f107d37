"""Captions of stored images, tokenised when a batch asks for them: a training on a large store begins at once."""

from __future__ import annotations

import numpy as np

from captrain.data.caption_text import CaptionText
from captrain.data.mix import Mixture
from captrain.features.stored import StoredImages
from captrain.models.captioner import Captioner
from captrain.training.rows import AS_WRITTEN, TokenizedCaptions

MOST_AT_ONCE = 100_000  # images whose captions are tokenised before the first step


class StoredCaptions(TokenizedCaptions):
    """The captions of stored images as token ids. `cut` is not known before they were all read; it counts as none."""

    def __init__(
        self, captioner: Captioner, images: StoredImages, max_tokens: int, text: CaptionText = AS_WRITTEN
    ) -> None:
        self.captioner, self.samples, self.max_tokens, self.text = captioner, images.samples, max_tokens, text
        self.cut = 0
        self.images = images
        self.repeats = np.ones(len(images), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def total(self) -> int:
        """How many captions."""
        return self.images.captions()

    @property
    def lengths(self) -> None:
        """Not known before they were all read."""
        return None

    def __getitem__(self, sample: int) -> list[list[int]]:
        return self.captioner.tokenize(self.text.clean(self.samples[sample].captions), self.max_tokens)[0]


class BlockMixture(Mixture):
    """A mixture whose epochs go through a store a few shards at a time: for stores that are larger than the memory."""

    def __init__(self, mixture: Mixture, blocks: np.ndarray) -> None:
        """`blocks` holds for each image the number of its shard (images,)."""
        self.mixture, self.blocks, self.seed = mixture, blocks, mixture.seed

    def __len__(self) -> int:
        return len(self.mixture)

    def order(self, epoch: int) -> np.ndarray:
        """The rows of that epoch of the mixture, gathered by shards."""
        return by_blocks(self.mixture.order(epoch), self.blocks, self.seed, epoch)


def by_blocks(order: np.ndarray, blocks: np.ndarray, seed: int, epoch: int, at_once: int = 16) -> np.ndarray:
    """A shuffled order of images, gathered so that only `at_once` blocks are read from at a time.

    Args:
        order: positions of images, shuffled (rows,). blocks: for each image the number of its block (images,).

    Returns:
        The same positions (rows,). Blocks come in an order drawn by seed and epoch, so many at a time; the images of these
        come in the order that they have in `order`.

    >>> by_blocks(np.array([3, 0, 2, 1]), np.array([0, 0, 1, 1]), seed=0, epoch=0, at_once=1).tolist()
    [3, 2, 0, 1]
    """
    count = int(blocks.max(initial=-1)) + 1
    turn = np.random.default_rng([seed, epoch, count]).permutation(count) // at_once
    return order[np.argsort(turn[blocks[order]], kind="stable")]
