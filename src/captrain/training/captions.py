"""Captions of stored images, tokenised when a batch asks for them: a training on a large store begins at once.

Whether tokenizer and decoder hold the captions that are to be learned: looked at before anything is computed.

From settings to how training data is changed and mixed: views of pictures, words of captions, shares of data sets.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from captrain.data.augment import Augmentation
from captrain.data.caption_text import CaptionText
from captrain.data.mix import Mixture
from captrain.errors import DataError, SettingsError
from captrain.features.stored_images import StoredImages
from captrain.models.captioner import CaptionerModel
from captrain.models.decoding import Room
from captrain.models.vocabulary import RoundTrip, round_trip, spread_captions
from captrain.records import Sample
from captrain.settings.schema import DataSettings, Settings
from captrain.settings.schema.conflicts import asked
from captrain.training.rows import AS_WRITTEN, TokenizedCaptions

MOST_AT_ONCE = 100_000  # images whose captions are tokenised before the first step


class StoredCaptions(TokenizedCaptions):
    """The captions of stored images as token ids. `cut` is not known before they were all read; it counts as none."""

    def __init__(
        self, captioner: CaptionerModel, images: StoredImages, max_tokens: int, text: CaptionText = AS_WRITTEN
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


logger = logging.getLogger(__name__)


def check_words(captioner: CaptionerModel, samples: Sequence[Sample], settings: Settings) -> RoundTrip:
    """Look at how many words of the captions come back from the tokenizer, and tell what does not.

    Some captions are looked at, evenly spread, as they are learned: after what the settings do to their text.

    Raises `DataError` where more are lost than a training can do with, unless the settings accept that; `SettingsError` where
    captions are longer than the decoder's positions, and the settings ask for their whole length.
    """
    captions = caption_text(settings.data).clean(tuple(spread_captions(samples)))
    _check_lengths(captioner, captions, settings)
    found = round_trip(captioner.tokenizer, captions)
    if found.is_refused and not settings.data.accept_lost_words:
        joined = settings.model.encoder is not None
        cure = "--tokenizer word-pieces, or a folder or hub id" if joined else "--model, or --encoder with --tokenizer"
        raise DataError(
            f"the tokenizer does not keep {found.told}. The model could never write them. Choose a model whose tokenizer "
            f"knows them ({cure}), or go on with --accept-lost-words"
        )
    if found.lost:
        logger.warning("the tokenizer does not keep %s", found.told)
    if found.case:
        logger.info("captions lose their capitals: %s from the tokenizer", found.case_told)
    return found


def _check_lengths(captioner: CaptionerModel, captions: list[str], settings: Settings) -> None:
    """Hold a limit of tokens that was asked for against the decoder's positions. Where no caption needs more it does no harm."""
    room, asked_for = Room.of(captioner), settings.data.max_tokens
    if not asked(settings.data, "max_tokens") or asked_for <= room.most or not captions:
        return
    ids = captioner.tokenizer(captions, add_special_tokens=False, verbose=False)["input_ids"]
    longest = 1 + max(len(caption) for caption in ids)
    if longest > room.most:
        raise SettingsError(
            f"max_tokens: found {asked_for}, and captions of up to {longest} tokens, but {room.told}; expected at most "
            f"{room.most}, which cuts longer captions and counts them"
        )
    logger.warning("max_tokens: found %d, but %s: there is room for %d", asked_for, room.told, room.most)


def augmentation(data: DataSettings) -> Augmentation | None:
    """How training pictures are varied; None where they are not."""
    asked = Augmentation(crop_scale=data.crop_scale, flip=data.flip, randaugment=data.randaugment)
    return asked if asked.is_random else None


def caption_text(data: DataSettings) -> CaptionText:
    """What is done to the words of captions."""
    return CaptionText(
        lower_case=data.lower_case,
        strip_punctuation=data.strip_punctuation,
        max_words=data.max_words,
        prefix=data.prefix,
        suffix=data.suffix,
        replace=tuple(_pair(pair) for pair in data.replace),
        remove_words=data.remove_words,
        shuffle_tags=data.shuffle_tags,
        keep_tags=data.keep_tags,
        drop_tags=data.drop_tags,
        drop_captions=data.drop_captions,
    )


def source_ratios(data: DataSettings) -> list[float] | None:
    """The ratios of several data sets; None where all their images are shown once an epoch."""
    ratios = [source.ratio for source in data.sources if source.ratio is not None]
    return ratios or None


def _pair(text: str) -> tuple[str, str]:
    """`old=new` as a pair.

    >>> _pair("dog=hound")
    ('dog', 'hound')
    """
    old, _, new = text.partition("=")
    return old, new
