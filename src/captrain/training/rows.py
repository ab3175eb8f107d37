"""Training rows: an image with the captions that it carries in an epoch, drawn by seed, epoch and image alone.

Also: the order of an epoch's rows, how rows become batches, and which words are hidden from the decoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from captrain.data.samples import Mixture
from captrain.errors import SettingsError
from captrain.features.training_images import Images
from captrain.models.contract import CaptionerModel
from captrain.models.layers.packing import IGNORED, PackedRows, pack
from captrain.training.captions import Captions


class TrainingRow(NamedTuple):
    """An image by its position, and the captions (token ids) that it carries in an epoch.

    A row that is not `learned` has no effect: it only gives work to a process that has no row of a batch.
    """

    image: int
    epoch: int
    captions: list[list[int]]
    learned: bool = True


class TrainingRows(Dataset[TrainingRow]):
    """Row (epoch, i): image i and the captions that it carries in that epoch. Row (epoch, ~i) is the same, not learned."""

    def __init__(self, captions: Captions, most: int | None, seed: int) -> None:
        """`most`: captions that an image carries at most, drawn by `seed`; None for all."""
        self.captions, self.most, self.seed = captions, most, seed

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, place: tuple[int, int]) -> TrainingRow:
        epoch, index = place
        if index < 0:
            return self[epoch, ~index]._replace(learned=False)
        captions = self.captions.at(index, epoch)
        if self.most is None or len(captions) <= self.most:
            return TrainingRow(index, epoch, captions)
        draw = np.random.default_rng([self.seed, epoch, index])
        chosen = sorted(draw.choice(len(captions), self.most, replace=False))
        return TrainingRow(index, epoch, [captions[number] for number in chosen])


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """The batches of an epoch in the mixture's order, and of each batch the rows of one process.

    Yields lists of (epoch, image). A batch does not depend on the number of processes; rows are dealt out one by one. A process
    that gets no row of a short last batch computes the batch's first row without learning it (`~image`).

    >>> sampler = EpochSampler(Mixture(np.zeros(5, int)), batch_size=2, rank=1, size=2)
    >>> [[row[1] >= 0 for row in batch] for batch in sampler]
    [[True], [True], [False]]
    """

    def __init__(self, mixture: Mixture, batch_size: int, rank: int = 0, size: int = 1) -> None:
        self.mixture, self.images, self.rank, self.size = mixture, batch_size, rank, size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.mixture) // self.images)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self.mixture.order(self.epoch)
        for start in range(0, len(order), self.images):
            batch = order[start : start + self.images]
            own = batch[self.rank :: self.size] if len(batch) > self.rank else ~batch[:1]
            yield [(self.epoch, int(index)) for index in own]


class Collator:
    """Rows as keyword arguments of a captioner's forward: images from where they are kept, captions packed.

    `captions` counts those that were packed so far.
    """

    def __init__(self, captioner: CaptionerModel, images: Images, hide_words: WordDropout | None = None) -> None:
        self.hide_words = hide_words
        self.start, self.end, self.prompt = captioner.start_id, captioner.end_id, captioner.prompt_ids()
        self.images = images
        self.captions = 0

    def __call__(self, rows: Sequence[TrainingRow]) -> dict[str, Any]:
        """Pack a batch of rows."""
        self.captions += sum(len(row.captions) for row in rows)
        packed = pack([row.captions for row in rows], self.start, self.end, self.prompt)
        for number, row in enumerate(rows):
            if not row.learned:
                packed.labels[number] = IGNORED
        if self.hide_words is not None:
            self.hide_words(packed, [(row.epoch, row.image) for row in rows], 1 + len(self.prompt))
        images: dict[str, torch.Tensor] = self.images.rows([row.image for row in rows], rows[0].epoch)
        return {**images, **packed.to_dict()}


APART = 0x776F7264  # distinguishes this draw from others of the same seed, epoch and image


class WordDropout:
    """Replaces a share of the input tokens; the targets stay (Bowman et al. 2016).

    Only the seed, the epoch and the image decide what is hidden, not the rest of the batch.
    """

    def __init__(self, share: float, hidden_id: int, seed: int) -> None:
        self.share, self.hidden_id, self.seed = share, hidden_id, seed

    def __call__(self, packed: PackedRows, places: Iterable[tuple[int, int]], given: int) -> None:
        """Hide tokens of packed rows, in place.

        Args:
            places: epoch and image of each row. given: tokens at the start of each caption that are never hidden.
        """
        longest = packed.input_ids.shape[1]
        draws = [np.random.default_rng([APART, self.seed, *place]).random(longest) for place in places]
        hidden = (
            torch.from_numpy(np.stack(draws) < self.share) & (packed.position_ids >= given) & (packed.caption_ids > 0)
        )
        packed.input_ids[hidden] = self.hidden_id


def word_dropout(captioner: CaptionerModel, share: float, seed: int) -> WordDropout | None:
    """The `WordDropout` of a share; None for 0. Hidden words become the tokenizer's mask, or its unknown token.

    Raises `SettingsError` for a tokenizer that has neither.
    """
    if not share:
        return None
    found = (captioner.tokenizer.mask_token_id, captioner.tokenizer.unk_token_id)
    hidden = next((int(id) for id in found if id is not None), None)
    if hidden is None:
        raise SettingsError("word_dropout: the tokenizer has neither a mask nor an unknown token; leave it out")
    return WordDropout(share, hidden, seed)


class LengthMixture(Mixture):
    """A mixture whose epochs come in batches of even rows, still shuffled among and inside windows of some batches."""

    def __init__(self, mixture: Mixture, lengths: np.ndarray, batch_size: int, window: int) -> None:
        """`lengths`: tokens of each image's row (images,). batch_size: rows a step. window: batches sorted together."""
        self.mixture, self.lengths, self.seed = mixture, lengths, mixture.seed
        self.batch_size, self.window = batch_size, window

    def __len__(self) -> int:
        return len(self.mixture)

    def order(self, epoch: int) -> np.ndarray:
        """The rows of that epoch of the mixture, sorted inside windows."""
        return by_length(self.mixture.order(epoch), self.lengths, self.batch_size, self.window, (self.seed, epoch))


def by_length(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, window: int, seed: tuple[int, ...] = (0,)
) -> np.ndarray:
    """A shuffled order in which each batch holds rows of about the same length.

    Args:
        order: positions of images, shuffled (rows,). lengths: of each image's row (images,). window: whole batches that are
            sorted together, and then shuffled as batches by `seed`.

    Returns:
        The same positions (rows,). An incomplete last batch stays at the end.

    >>> by_length(np.array([0, 1, 2, 3, 4]), np.array([9, 1, 8, 2, 5]), batch_size=2, window=2).tolist()
    [1, 3, 2, 0, 4]
    """
    whole = len(order) // batch_size * batch_size
    draw = np.random.default_rng([*seed, batch_size, window])
    pieces = []
    for start in range(0, whole, batch_size * window):
        rows = order[start : min(start + batch_size * window, whole)]
        batches = rows[np.argsort(lengths[rows], kind="stable")].reshape(-1, batch_size)
        pieces.append(draw.permutation(batches).reshape(-1))
    return np.concatenate([*pieces, order[whole:]])


class BlockMixture(Mixture):
    """A mixture whose epochs go through a store a few shards at a time, for stores larger than the memory."""

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
