"""BLEU, ROUGE-L and CIDEr-D, with the conventions of pycocoevalcap 1.2, which papers report.

- BLEU-1 to BLEU-4 (Papineni et al., 2002).
- ROUGE-L (Lin, 2004): beta 1.2, the best precision and the best recall.
- CIDEr-D (Vedantam et al., 2015), which pycocoevalcap calls CIDEr.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from captrain.metrics.ngrams import LONGEST, Counts, FoundNgrams, Numbers, Postings, References

# Keep an empty score at (almost) zero and avoid dividing by zero: the values of the reference implementation.
_TINY = 1e-15
_SMALL = 1e-9


@dataclass(frozen=True)
class Tally:
    """What BLEU adds up. `written`, `right`: n-grams of each length (LONGEST, candidates); lengths in words."""

    written: Numbers
    right: Numbers
    candidate: Numbers
    reference: Numbers

    def total(self) -> Tally:
        """The sums over all candidates, as one."""
        sums = (part.sum(-1, keepdims=True) for part in (self.written, self.right, self.candidate, self.reference))
        return Tally(*sums)


def tally(
    images: Numbers, lengths: Numbers, counts: Sequence[Counts], found: Sequence[FoundNgrams], references: References
) -> Tally:
    """N-grams written and right of each candidate. The reference length is the closest one, the shorter one of two."""
    right = np.zeros((LONGEST, len(lengths)), np.int64)
    for order, (of_length, shared, postings) in enumerate(zip(counts, found, references.postings, strict=True)):
        clipped = np.minimum(of_length.counts[shared.rows], postings.highest[shared.keys])
        right[order] = np.bincount(of_length.captions[shared.rows], clipped, minlength=len(lengths))
    written = np.maximum(0, lengths - np.arange(LONGEST)[:, None])
    return Tally(written, right, lengths, _closest(images, lengths, references))


def bleu(tally: Tally) -> npt.NDArray[np.float64]:
    """BLEU-1..4 of each candidate, (LONGEST, candidates), each in [0, 1].

    The value of a set is that of `tally.total()` and not the mean of the candidates': counts are added up first.
    """
    precisions = np.cumprod((tally.right + _TINY) / (tally.written + _SMALL), axis=0)
    ratio = (tally.candidate + _TINY) / (tally.reference + _SMALL)
    brevity = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    return precisions ** (1 / np.arange(1, LONGEST + 1)[:, None]) * brevity


def _closest(images: Numbers, lengths: Numbers, references: References) -> Numbers:
    """The length of the reference that comes closest to each candidate's."""
    number = references.number[images]
    candidate = np.repeat(np.arange(len(images)), number)
    ends = np.cumsum(number)
    reference = np.arange(ends[-1] if len(ends) else 0) + np.repeat(references.first[images] - ends + number, number)
    length = references.lengths[reference]
    # Compared as one number: the difference first, then the length.
    span = int(references.lengths.max(initial=0)) + 1
    ranked = np.abs(length - lengths[candidate]) * span + length
    return np.minimum.reduceat(ranked, ends - number) % span if len(ends) else lengths


BETA = 1.2


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """The score of a line of tokens against one or more lines, in [0, 1].

    Precision and recall may come from different references, as in the reference implementation. As there, a line
    without tokens counts as one empty token, which only another such line shares.

    >>> round(rouge_l("a dog runs", ["a brown dog runs fast", "one dog"]), 4)
    0.7176
    """
    words = candidate.split(" ")
    places = _places(words)
    precision = recall = 0.0
    for reference in references:
        others = reference.split(" ")
        common = _longest_common(places, len(words), others)
        precision = max(precision, common / len(words))
        recall = max(recall, common / len(others))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _places(words: Sequence[str]) -> dict[str, int]:
    """Each word with its places as bits of a number, the first word's the lowest.

    >>> _places(["a", "dog", "a"])
    {'a': 5, 'dog': 2}
    """
    places: dict[str, int] = {}
    bit = 1
    for word in words:
        places[word] = places.get(word, 0) | bit
        bit <<= 1
    return places


def _longest_common(places: dict[str, int], length: int, others: Sequence[str]) -> int:
    """Words in the longest common subsequence, one row of the usual table at a time, its steps kept as bits (Hyyrö, 2004).

    >>> _longest_common(_places("a b c d".split()), 4, "b x d c".split())
    2
    """
    every = (1 << length) - 1
    row = every
    for word in others:
        if word in places:
            matches = row & places[word]
            row = (row + matches | row - matches) & every
    return length - row.bit_count()


_SIGMA = 6.0  # how forgiving the penalty on a different length is, in words
_SCALE = 10.0

Values = npt.NDArray[np.float64]


class Cider:
    """References weighed once: n-grams count by how rare they are, for the references and for any candidates."""

    def __init__(self, references: References, images_with: Sequence[Numbers], images: int) -> None:
        """`images_with`: for each length, in how many of a corpus's `images` each n-gram of the table occurs."""
        self._references = references
        never_seen = np.log(images) if images else 0.0
        # One more value, at the end, for all n-grams that are not in the table.
        self._rarity = [np.append(never_seen - np.log(np.maximum(1, seen)), never_seen) for seen in images_with]
        self._norms = self._norms_of(references.counts, len(references.lengths))
        self._bigrams = np.maximum(0, references.lengths - 1)

    def score(
        self, images: Numbers, lengths: Numbers, counts: Sequence[Counts], found: Sequence[FoundNgrams]
    ) -> Values:
        """The score of each candidate, in [0, 10]."""
        references = self._references
        number = references.number[images]
        # Every candidate makes a pair with each reference of its image.
        first_pair = np.cumsum(number) - number
        candidate = np.repeat(np.arange(len(images)), number)
        shift = first_pair - references.first[images]  # from a reference's place to its pair's
        reference = np.arange(len(candidate)) - shift[candidate]
        norms = self._norms_of(counts, len(images))
        cosines = np.zeros(len(candidate))
        for order, (of_length, shared) in enumerate(zip(counts, found, strict=True)):
            dots = self._dots(order, of_length, shared, shift, len(candidate))
            norm = norms[order][candidate] * self._norms[order][reference]
            cosines += np.divide(dots, norm, out=np.zeros(len(norm)), where=norm > 0)
        # The reference implementation measures length in bigrams, not in words.
        difference = np.maximum(0, lengths - 1)[candidate] - self._bigrams[reference]
        likeness = cosines * np.exp(-(difference**2) / (2 * _SIGMA**2))
        return _SCALE / LONGEST * np.bincount(candidate, likeness, minlength=len(images)) / number

    def _dots(self, order: int, counts: Counts, shared: FoundNgrams, shift: Numbers, pairs: int) -> Values:
        """Products of weights for n-grams of one length, added up for each pair; repeating a word does not pay."""
        postings: Postings = self._references.postings[order]
        start, end = postings.starts[shared.keys], postings.starts[shared.keys + 1]
        rows = np.repeat(shared.rows, end - start)
        ends = np.cumsum(end - start)
        places = np.arange(len(rows)) + np.repeat(end - ends, end - start)
        in_reference = postings.counts[places]
        clipped = np.minimum(counts.counts[rows], in_reference)
        weight = self._rarity[order][counts.ngrams[rows]] ** 2
        pair = postings.references[places] + shift[counts.captions[rows]]
        return np.bincount(pair, clipped * in_reference * weight, minlength=pairs).astype(np.float64)

    def _norms_of(self, counts: Sequence[Counts], captions: int) -> list[Values]:
        """The length of each caption's vector of weights, for each n-gram length."""
        norms = []
        for of_length, rarity in zip(counts, self._rarity, strict=True):
            weights = of_length.counts * rarity[np.minimum(of_length.ngrams, len(rarity) - 1)]
            norms.append(np.sqrt(np.bincount(of_length.captions, weights**2, minlength=captions)))
        return norms
