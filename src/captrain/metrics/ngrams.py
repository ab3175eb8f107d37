"""Words and n-grams as numbers in flat arrays, so that whole sets of captions are counted at once.

An n-gram is the number of its first n-1 words together with the number of its last word, packed into 64 bits; its own
number is the place of that key in a sorted array. Nothing is a Python object per n-gram.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

LONGEST = 4
"""BLEU and CIDEr look at runs of one to four words."""
BITS = 31
"""A pair of numbers is `first << BITS | second`."""
SECOND = (1 << BITS) - 1

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Words:
    """Captions one after another: the number of each word (W), and how many words each caption has (C)."""

    numbers: Numbers
    lengths: Numbers


@dataclass(frozen=True)
class Counts:
    """How often each n-gram of one length stands in each caption: rows sorted by caption, then n-gram, none twice."""

    captions: Numbers
    ngrams: Numbers
    counts: Numbers


class NgramTable:
    """The words and n-grams of a corpus, each with a number. Single words are their own n-grams of length one."""

    def __init__(self, words: dict[str, int], keys: list[Numbers]) -> None:
        """`keys`: for each length from two to four, the sorted keys (number of the first words << BITS | last word)."""
        self.words = words
        self.keys = keys

    def size(self, length: int) -> int:
        """How many n-grams of this length there are."""
        return len(self.words) if length == 1 else len(self.keys[length - 2])

    def count(self, lines: Sequence[str]) -> tuple[Numbers, list[Counts]]:
        """Words in each line, and n-gram counts of each length; unknown n-grams get numbers from `size` on."""
        words = _number_words(lines, self.words)
        return words.lengths, _count(words, [_known_or_new(keys) for keys in self.keys])


def build_table(lines: Sequence[str], base: NgramTable | None = None) -> tuple[NgramTable, list[Numbers], list[Counts]]:
    """A table of all n-grams of `base` and the lines (tokens between white space).

    Returns the table, for each length the new number of each of the base's n-grams, and the counts of the lines.
    """
    base = base or NgramTable({}, [np.zeros(0, np.int64)] * (LONGEST - 1))
    table = NgramTable(dict(base.words), [])
    words = _number_words(lines, table.words, grow=True)
    moved = [np.arange(len(base.words))]

    def numbers(length: int, keys: Numbers) -> Numbers:
        old = base.keys[length - 2]
        old = moved[-1][old >> BITS] << BITS | old & SECOND
        unique, places = np.unique(np.concatenate([old, keys]), return_inverse=True)
        table.keys.append(unique)
        moved.append(places[: len(old)])
        return places[len(old) :]

    counts = _count(words, [lambda keys, length=length: numbers(length, keys) for length in range(2, LONGEST + 1)])
    return table, moved, counts
