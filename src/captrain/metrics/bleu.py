"""BLEU-1 to BLEU-4 (Papineni et al., 2002) with the conventions of pycocoevalcap 1.2, which papers report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from captrain.metrics.ngrams import LONGEST, Counts, Numbers
from captrain.metrics.references import Found, References

# Keep a score of nothing at (almost) zero and a division by nothing possible: the values of the reference.
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
    images: Numbers, lengths: Numbers, counts: Sequence[Counts], found: Sequence[Found], references: References
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
