"""CIDEr-D (Vedantam et al., 2015) with the conventions of pycocoevalcap 1.2, where it is called CIDEr."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from captrain.metrics.ngrams import LONGEST, Counts, Numbers
from captrain.metrics.references import Found, Postings, References

_SIGMA = 6.0  # how forgiving the penalty on a different length is, in words
_SCALE = 10.0

Values = npt.NDArray[np.float64]


class Cider:
    """References weighed once: n-grams count by how rare they are, for the references and for any candidates."""

    def __init__(self, references: References, images_with: Sequence[Numbers], images: int) -> None:
        """`images_with`: for each length, in how many of a corpus's `images` each n-gram of the table stands."""
        self._references = references
        never_seen = np.log(images) if images else 0.0
        # One more value, at the end, for all n-grams that are not in the table.
        self._rarity = [np.append(never_seen - np.log(np.maximum(1, seen)), never_seen) for seen in images_with]
        self._norms = self._norms_of(references.counts, len(references.lengths))
        self._bigrams = np.maximum(0, references.lengths - 1)

    def score(self, images: Numbers, lengths: Numbers, counts: Sequence[Counts], found: Sequence[Found]) -> Values:
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

    def _dots(self, order: int, counts: Counts, shared: Found, shift: Numbers, pairs: int) -> Values:
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
