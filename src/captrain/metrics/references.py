"""References counted once: which n-grams stand in which image's references, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from captrain.metrics.ngrams import BITS, Counts, NgramTable, Numbers


@dataclass(frozen=True)
class Postings:
    """For n-grams of one length: the references that hold each n-gram of each image.

    `keys` (image << BITS | n-gram) are sorted; those of one key stand at `starts[k]` to `starts[k + 1]` of `references`
    and `counts`; `highest` is the highest of its counts.
    """

    keys: Numbers
    starts: Numbers
    highest: Numbers
    references: Numbers
    counts: Numbers


@dataclass(frozen=True)
class Found:
    """Those n-grams of candidates that stand in their image's references: rows of the candidates' counts, and keys."""

    rows: Numbers
    keys: Numbers


class References:
    """The references of all images, one image's after another's.

    `image_of`: the image of each reference. `first`, `number`: where an image's references begin, and how many they
    are. `lengths`: words in each.
    """

    def __init__(self, per_image: Sequence[int], lines: Sequence[str], base: NgramTable | None = None) -> None:
        """`per_image`: how many references each image has; `lines`: their tokens; `base`: n-grams to know besides."""
        self.number = np.array(per_image, np.int64)
        self.first = np.cumsum(self.number) - self.number
        self.image_of = np.repeat(np.arange(len(self.number)), self.number)
        self.table, self.moved, self.lengths, self.counts = (base or NgramTable.empty()).grown(lines)
        self.postings = [_post(counts, self.image_of) for counts in self.counts]

    def images_with(self) -> list[Numbers]:
        """For each length, in how many images' references each n-gram of the table stands."""
        return [
            np.bincount(postings.keys & ((1 << BITS) - 1), minlength=size)
            for postings, size in zip(self.postings, self.table.sizes(), strict=True)
        ]

    def find(self, images: Numbers, counts: Sequence[Counts]) -> list[Found]:
        """For each length, what candidates share with their image's references (`images`: the image of each)."""
        return [_find(images, of_length, postings) for of_length, postings in zip(counts, self.postings, strict=True)]


def _post(counts: Counts, image_of: Numbers) -> Postings:
    keys = image_of[counts.captions] << BITS | counts.ngrams
    order = np.argsort(keys, kind="stable")
    keys, references, numbers = keys[order], counts.captions[order], counts.counts[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    highest = np.maximum.reduceat(numbers, first) if len(first) else numbers
    return Postings(keys[first], np.append(first, len(keys)), highest, references, numbers)


def _find(images: Numbers, counts: Counts, postings: Postings) -> Found:
    if not len(postings.keys):
        return Found(np.zeros(0, np.int64), np.zeros(0, np.int64))
    keys = images[counts.captions] << BITS | counts.ngrams
    places = np.minimum(np.searchsorted(postings.keys, keys), len(postings.keys) - 1)
    rows = np.flatnonzero(postings.keys[places] == keys)
    return Found(rows, places[rows])
