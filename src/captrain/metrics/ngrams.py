"""Words and n-grams as numbers in flat arrays, so that whole sets of captions are counted at once.

An n-gram is the number of its first n-1 words together with the number of its last word, packed into 64 bits; its own
number is the position of that key in a sorted array. No n-gram is a Python object.

`References` are counted once: which n-grams are in each image's references, and how often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

LONGEST = 4
"""BLEU and CIDEr look at runs of one to four words."""
BITS = 31
"""Two numbers in one: `first << BITS | second`."""
SECOND = (1 << BITS) - 1

Numbers = npt.NDArray[np.int64]
Numberer = Callable[[Numbers], Numbers]
"""Gives keys of n-grams of one length their numbers."""


@dataclass(frozen=True)
class Words:
    """Captions one after another: the number of each word, and how many words each caption has."""

    numbers: Numbers
    lengths: Numbers


@dataclass(frozen=True)
class Counts:
    """How often each n-gram of one length occurs in each caption: by caption, then by n-gram, no pair twice."""

    captions: Numbers
    ngrams: Numbers
    counts: Numbers


class NgramTable:
    """The words and n-grams of a corpus, each with a number. A single word's number is the word's."""

    def __init__(self, words: dict[str, int], keys: list[Numbers]) -> None:
        """`keys`: sorted, for each length from two on (number of the first words << BITS | number of the last)."""
        self.words = words
        self.keys = keys

    def sizes(self) -> list[int]:
        """How many n-grams of each length there are."""
        return [len(self.words), *(len(keys) for keys in self.keys)]

    def count(self, lines: Sequence[str]) -> tuple[Numbers, list[Counts]]:
        """Words in each line, and counts for each length; n-grams not in the table get numbers beyond its size."""
        words = _number_words(lines, self.words)
        return words.lengths, _count(words, [_lookup(keys) for keys in self.keys])

    def grown(self, lines: Sequence[str]) -> tuple[NgramTable, list[Numbers], Numbers, list[Counts]]:
        """A table that also has the n-grams of these lines.

        Returns with it, for each length, the number that each of this table's n-grams has in the new one; then what
        `count` says of the lines.

        >>> table, _, lengths, counts = NgramTable.empty().grown(["a dog a", "a cat"])
        >>> table.words, table.sizes(), lengths.tolist()
        ({'a': 0, 'dog': 1, 'cat': 2}, [3, 3, 1, 0], [3, 2])
        >>> counts[0].captions.tolist(), counts[0].ngrams.tolist(), counts[0].counts.tolist()
        ([0, 0, 1, 1], [0, 1, 0, 2], [2, 1, 1, 1])
        """
        known = dict(self.words)
        words = _number_words(lines, known, grow=True)
        keys: list[Numbers] = []
        moved: list[Numbers] = [np.arange(len(self.words), dtype=np.int64)]

        def number(new: Numbers) -> Numbers:
            old = self.keys[len(keys)]
            old = moved[-1][old >> BITS] << BITS | old & SECOND
            merged, places = np.unique(np.concatenate([old, new]), return_inverse=True)
            keys.append(merged)
            moved.append(places[: len(old)])
            return places[len(old) :]

        counts = _count(words, [number] * (LONGEST - 1))
        return NgramTable(known, keys), moved, words.lengths, counts

    @classmethod
    def empty(cls) -> NgramTable:
        """A table of nothing, to grow."""
        return cls({}, [np.zeros(0, np.int64)] * (LONGEST - 1))


def _number_words(lines: Sequence[str], known: dict[str, int], grow: bool = False) -> Words:
    """Words between white space by number; new words are added to `known` or, if it must not grow, numbered beyond it."""
    split = [line.split() for line in lines]
    lengths = np.fromiter(map(len, split), np.int64, len(split))
    words = chain.from_iterable(split)
    if grow:
        numbers = [known.setdefault(word, len(known)) for word in words]
    else:
        new: dict[str, int] = {}
        numbers = [known[word] if word in known else new.setdefault(word, len(known) + len(new)) for word in words]
    return Words(np.array(numbers, np.int64), lengths)


def _count(words: Words, numberers: Sequence[Numberer]) -> list[Counts]:
    total = len(words.numbers)
    captions = np.repeat(np.arange(len(words.lengths)), words.lengths)
    left = np.repeat(np.cumsum(words.lengths), words.lengths) - np.arange(total)  # words until the caption's end
    starting = words.numbers  # the number of the n-gram that starts at each word
    counts = [_distinct(captions, starting)]
    for length, number in enumerate(numberers, start=2):
        starts = np.flatnonzero(left >= length)
        longer = np.zeros(total, np.int64)
        longer[starts] = number(starting[starts] << BITS | words.numbers[starts + length - 1])
        counts.append(_distinct(captions[starts], longer[starts]))
        starting = longer
    return counts


def _lookup(known: Numbers) -> Numberer:
    def number(keys: Numbers) -> Numbers:
        # Sorted first: neighbours are then found in the same part of memory.
        asked, which = np.unique(keys, return_inverse=True)
        places = np.searchsorted(known, asked)
        missing = known.take(places, mode="clip") != asked if len(known) else np.ones(len(asked), bool)
        places[missing] = len(known) + np.arange(missing.sum())
        return places[which]

    return number


def _distinct(captions: Numbers, ngrams: Numbers) -> Counts:
    pairs, counts = np.unique(captions << BITS | ngrams, return_counts=True)
    return Counts(pairs >> BITS, pairs & SECOND, counts)


@dataclass(frozen=True)
class Postings:
    """For n-grams of one length: the references that hold each n-gram of each image.

    `keys` (image << BITS | n-gram) are sorted; those of one key are at `starts[k]` to `starts[k + 1]` of `references`
    and `counts`; `highest` is the highest of its counts.
    """

    keys: Numbers
    starts: Numbers
    highest: Numbers
    references: Numbers
    counts: Numbers


@dataclass(frozen=True)
class FoundNgrams:
    """Those n-grams of candidates that occur in their image's references: rows of the candidates' counts, and keys."""

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
        """For each length, in how many images' references each n-gram of the table occurs."""
        return [
            np.bincount(postings.keys & ((1 << BITS) - 1), minlength=size)
            for postings, size in zip(self.postings, self.table.sizes(), strict=True)
        ]

    def find(self, images: Numbers, counts: Sequence[Counts]) -> list[FoundNgrams]:
        """For each length, what candidates share with their image's references (`images`: the image of each)."""
        return [_find(images, of_length, postings) for of_length, postings in zip(counts, self.postings, strict=True)]


def _post(counts: Counts, image_of: Numbers) -> Postings:
    keys = image_of[counts.captions] << BITS | counts.ngrams
    order = np.argsort(keys, kind="stable")
    keys, references, numbers = keys[order], counts.captions[order], counts.counts[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    highest = np.maximum.reduceat(numbers, first) if len(first) else numbers
    return Postings(keys[first], np.append(first, len(keys)), highest, references, numbers)


def _find(images: Numbers, counts: Counts, postings: Postings) -> FoundNgrams:
    if not len(postings.keys):
        return FoundNgrams(np.zeros(0, np.int64), np.zeros(0, np.int64))
    keys = images[counts.captions] << BITS | counts.ngrams
    places = np.minimum(np.searchsorted(postings.keys, keys), len(postings.keys) - 1)
    rows = np.flatnonzero(postings.keys[places] == keys)
    return FoundNgrams(rows, places[rows])
