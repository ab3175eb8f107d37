"""BLEU-1 to BLEU-4 (Papineni et al., 2002) with the conventions of pycocoevalcap 1.2, which papers report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from captrain.metrics.ngrams import LONGEST, Candidates, MetricScores, Ngram, References, Tokens, count_ngrams

# Keep a score of nothing at (almost) zero and a division by nothing possible: the values of the reference.
_TINY = 1e-15
_SMALL = 1e-9


@dataclass(frozen=True)
class _Counted:
    """One image's references: their lengths, and each n-gram's highest count in any of them."""

    lengths: tuple[int, ...]
    highest: dict[Ngram, int]


@dataclass
class _Tally:
    """What BLEU adds up: n-grams of each length written and right, and the lengths of candidate and reference."""

    written: list[int]
    right: list[int]
    candidate_length: int = 0
    reference_length: int = 0


class BleuScorer:
    """References counted once, to score any number of candidates.

    >>> scorer = BleuScorer({"dog": [["a", "dog", "runs", "fast"], ["one", "dog", "runs"]]})
    >>> corpus, per_image = scorer.score({"dog": ["a", "dog", "runs"]})
    >>> [round(value, 4) for value in corpus]
    [1.0, 1.0, 1.0, 0.0316]
    """

    def __init__(self, references: References) -> None:
        """`references`: image id to the tokens of each of its captions, one or more."""
        self._references = {id: _count_references(captions) for id, captions in references.items()}

    def score(self, candidates: Candidates) -> tuple[list[float], dict[str, list[float]]]:
        """BLEU-1..4 of the whole corpus, and of each image; every value lies in [0, 1].

        The corpus value is not the mean of the images': counts are added up first, as the paper says.
        The reference length is that of the closest reference, the shorter one of two.
        """
        total = _Tally([0] * LONGEST, [0] * LONGEST)
        per_image = {}
        for id, candidate in candidates.items():
            tally = _compare(candidate, self._references[id])
            per_image[id] = _bleu(tally)
            _add(total, tally)
        return _bleu(total), per_image


def _count_references(captions: Sequence[Tokens]) -> _Counted:
    highest: dict[Ngram, int] = {}
    for caption in captions:
        for ngram, count in count_ngrams(caption).items():
            if count > highest.get(ngram, 0):
                highest[ngram] = count
    return _Counted(tuple(len(caption) for caption in captions), highest)


def _compare(candidate: Tokens, references: _Counted) -> _Tally:
    length = len(candidate)
    right = [0] * LONGEST
    for ngram, count in count_ngrams(candidate).items():
        right[len(ngram) - 1] += min(count, references.highest.get(ngram, 0))
    written = [max(0, length - shorter) for shorter in range(LONGEST)]
    closest = min(references.lengths, key=lambda reference: (abs(reference - length), reference))
    return _Tally(written, right, length, closest)


def _add(total: _Tally, tally: _Tally) -> None:
    total.written = [sum(pair) for pair in zip(total.written, tally.written, strict=True)]
    total.right = [sum(pair) for pair in zip(total.right, tally.right, strict=True)]
    total.candidate_length += tally.candidate_length
    total.reference_length += tally.reference_length


def _bleu(tally: _Tally) -> list[float]:
    ratio = (tally.candidate_length + _TINY) / (tally.reference_length + _SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    values, product = [], 1.0
    for order, (right, written) in enumerate(zip(tally.right, tally.written, strict=True), start=1):
        product *= (right + _TINY) / (written + _SMALL)
        values.append(product ** (1 / order) * brevity)
    return values


def score_bleu(candidates: Candidates, references: References) -> MetricScores:
    """Named BLEU scores of the set and of each image, from tokens."""
    corpus, per_image = BleuScorer(references).score(candidates)
    return _named(corpus), {id: _named(values) for id, values in per_image.items()}


def _named(values: list[float]) -> dict[str, float]:
    return {f"bleu_{order}": value for order, value in enumerate(values, start=1)}
