"""Captions as token ids: tokenised once, or when a batch asks for them.

Also checks, before anything is computed, that tokenizer and decoder can hold the captions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from captrain.data.augment import generator
from captrain.data.caption_text import CaptionText
from captrain.data.samples import key_of
from captrain.errors import DataError, SettingsError
from captrain.features.stored_images import StoredImages
from captrain.models.contract import CaptionerModel
from captrain.models.vocabulary import RoundTrip, round_trip
from captrain.records import Sample

logger = logging.getLogger(__name__)

AS_WRITTEN = CaptionText()
CHUNK = 1024  # samples whose captions are tokenised at a time
MOST_AT_ONCE = 100_000  # images whose captions are tokenised before the first step


class Captions(Protocol):
    """The captions of samples as token ids, as an epoch shows them."""

    def __len__(self) -> int: ...

    def at(self, sample: int, epoch: int) -> list[list[int]]: ...


class TokenizedCaptions:
    """The token ids of all captions of all samples, tokenised once, in one flat array.

    `captions[i]` are the captions of sample i, `repeats[i]` how often an epoch shows it. `cut` counts the captions that were
    longer than allowed.
    """

    are_kept = True

    def __init__(
        self, captioner: CaptionerModel, samples: Sequence[Sample], max_tokens: int, text: CaptionText = AS_WRITTEN
    ) -> None:
        self.max_tokens, self.text = max_tokens, text
        pieces: list[np.ndarray] = []
        lengths: list[int] = []
        counts: list[int] = []
        repeats: list[int] = []
        self.cut = 0
        for start in range(0, len(samples), CHUNK):
            chunk = [samples[index] for index in range(start, min(start + CHUNK, len(samples)))]
            repeats += [sample.repeats for sample in chunk]
            captions = [text.clean(sample.captions) for sample in chunk]
            counts += [len(texts) for texts in captions]
            ids, cut = captioner.tokenize([text for texts in captions for text in texts], max_tokens)
            self.cut += cut
            lengths += [len(caption) for caption in ids]
            pieces += [np.array(caption, dtype=np.int32) for caption in ids]
        self.tokens = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
        self.caption_ends = np.cumsum([0, *lengths])
        self.sample_ends = np.cumsum([0, *counts])
        self.repeats = np.array(repeats, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.sample_ends) - 1

    @property
    def total(self) -> int:
        """How many captions."""
        return len(self.caption_ends) - 1

    @property
    def lengths(self) -> np.ndarray | None:
        """The number of tokens in each sample's row, with one start token for each caption (samples,)."""
        tokens = self.caption_ends + np.arange(len(self.caption_ends))
        return np.diff(tokens[self.sample_ends])

    def __getitem__(self, sample: int) -> list[list[int]]:
        first, last = self.sample_ends[sample], self.sample_ends[sample + 1]
        ends = self.caption_ends
        return [self.tokens[ends[caption] : ends[caption + 1]].tolist() for caption in range(first, last)]

    def at(self, sample: int, epoch: int) -> list[list[int]]:
        """The same in every epoch."""
        return self[sample]


class VariedCaptions:
    """Captions whose words change from epoch to epoch, such as shuffled tags.

    A caption that an epoch does not change keeps its ids; only changed captions are tokenised.
    """

    def __init__(
        self, captions: TokenizedCaptions, captioner: CaptionerModel, samples: Sequence[Sample], seed: int
    ) -> None:
        """`captions` are in the order of the samples."""
        self.captions, self.captioner, self.samples, self.seed = captions, captioner, samples, seed

    def __len__(self) -> int:
        return len(self.captions)

    def at(self, sample: int, epoch: int) -> list[list[int]]:
        """The captions of an epoch, decided by the seed, the epoch and the sample's id."""
        found, text = self.samples[sample], self.captions.text
        random = generator(self.seed, epoch, key_of(found.id), "caption")
        clean = text.clean(found.captions)
        varied = text.vary(clean, random)
        changed = [index for index, (before, now) in enumerate(zip(clean, varied, strict=True)) if before != now]
        if len(changed) == len(varied) or not self.captions.are_kept:
            return self.captioner.tokenize(varied, self.captions.max_tokens)[0]
        ids = self.captions[sample]
        new, _ = self.captioner.tokenize([varied[index] for index in changed], self.captions.max_tokens)
        for index, tokens in zip(changed, new, strict=True):
            ids[index] = tokens
        return ids


class StoredCaptions(TokenizedCaptions):
    """The captions of stored images as token ids. `cut` is not known before all of them were read, and stays 0."""

    are_kept = False

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
        """None: it is not known before all captions were read."""
        return None

    def __getitem__(self, sample: int) -> list[list[int]]:
        return self.captioner.tokenize(self.text.clean(self.samples[sample].captions), self.max_tokens)[0]


def check_words(
    captioner: CaptionerModel, captions: Sequence[str], *, accept_lost: bool = False, is_joined: bool = False
) -> RoundTrip:
    """Report how many words of the captions the tokenizer keeps, and which it loses.

    Args:
        captions: some of the captions, as they are learned. accept_lost: go on whatever is lost.
        is_joined: whether the captioner is joined from an encoder and a decoder, so that it can have another tokenizer.

    Raises `DataError` where too many are lost to train on.
    """
    found = round_trip(captioner.tokenizer, captions)
    if found.is_refused and not accept_lost:
        cure = (
            "--tokenizer word-pieces, or a folder or hub id" if is_joined else "--model, or --encoder with --tokenizer"
        )
        raise DataError(
            f"the tokenizer does not keep {found.told}. The model could never write them. Choose a model whose tokenizer "
            f"knows them ({cure}), or go on with --accept-lost-words"
        )
    if found.lost:
        logger.warning("the tokenizer does not keep %s", found.told)
    if found.case:
        logger.info("captions lose their capitals: %s from the tokenizer", found.case_told)
    return found


def check_longest(captioner: CaptionerModel, captions: Sequence[str], max_tokens: int) -> None:
    """Compare the requested limit of tokens with the decoder's positions; log it if there is less room.

    Raises `SettingsError` if a caption needs more positions than there are.
    """
    room = captioner.room()
    if max_tokens <= room.most or not captions:
        return
    ids = captioner.tokenizer(list(captions), add_special_tokens=False, verbose=False)["input_ids"]
    longest = 1 + max(len(caption) for caption in ids)
    if longest > room.most:
        raise SettingsError(
            f"max_tokens: found {max_tokens}, and captions of up to {longest} tokens, but {room.told}; expected at most "
            f"{room.most}, which cuts longer captions and counts them"
        )
    logger.warning("max_tokens: found %d, but %s: there is room for %d", max_tokens, room.told, room.most)
