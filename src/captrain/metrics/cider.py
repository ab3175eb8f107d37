"""CIDEr-D (Vedantam et al., 2015) with the conventions of pycocoevalcap 1.2, where it is called CIDEr."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from captrain.metrics.ngrams import LONGEST, Candidates, MetricScores, Ngram, References, Tokens, count_ngrams

_SIGMA = 6.0  # how forgiving the penalty on a different length is, in words
_SCALE = 10.0


@dataclass(frozen=True)
class _Vector:
    """A caption as rarity-weighted n-gram counts, with its norm for each n-gram length and its number of bigrams."""

    weights: dict[Ngram, float]
    norms: list[float]
    bigrams: int


class CiderScorer:
    """References weighed once, to score any number of candidates.

    How rare an n-gram is, is counted over the references' images: a score depends on the whole set, and is 0 when the
    set is a single image.

    >>> scorer = CiderScorer({"dog": [["a", "dog", "runs", "fast"]], "cat": [["a", "cat", "sits", "still"]]})
    >>> mean, per_image = scorer.score({"dog": ["a", "dog", "runs", "fast"], "cat": ["a", "dog"]})
    >>> round(mean, 6), round(per_image["dog"], 6), round(per_image["cat"], 6)
    (5.0, 10.0, 0.0)
    """

    def __init__(self, references: References) -> None:
        """`references`: image id to the tokens of each of its captions, one or more."""
        counted = {id: [count_ngrams(caption) for caption in captions] for id, captions in references.items()}
        images = Counter(ngram for captions in counted.values() for ngram in set().union(*captions))
        self._log_images = math.log(len(counted)) if counted else 0.0
        self._rarity = {ngram: self._log_images - math.log(count) for ngram, count in images.items()}
        self._references = {id: [self._vector(counts) for counts in captions] for id, captions in counted.items()}

    def score(self, candidates: Candidates) -> tuple[float, dict[str, float]]:
        """The mean over images, and each image's score, in [0, 10]."""
        per_image = {id: self._image_score(id, candidate) for id, candidate in candidates.items()}
        mean = math.fsum(per_image.values()) / len(per_image) if per_image else 0.0
        return mean, per_image

    def _image_score(self, id: str, candidate: Tokens) -> float:
        vector = self._vector(count_ngrams(candidate))
        references = self._references[id]
        likeness = sum(_likeness(vector, reference) for reference in references)
        return _SCALE * likeness / LONGEST / len(references)

    def _vector(self, counts: dict[Ngram, int]) -> _Vector:
        rarity, never_seen = self._rarity, self._log_images
        weights = {ngram: count * rarity.get(ngram, never_seen) for ngram, count in counts.items()}
        squares = [0.0] * LONGEST
        bigrams = 0
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight * weight
            if len(ngram) == 2:  # the reference measures length in bigrams, not in words
                bigrams += counts[ngram]
        return _Vector(weights, [math.sqrt(square) for square in squares], bigrams)


def _likeness(candidate: _Vector, reference: _Vector) -> float:
    """Cosine for each n-gram length, summed, where repeating a word does not pay, times the length penalty."""
    dots = [0.0] * LONGEST
    for ngram in candidate.weights.keys() & reference.weights.keys():
        weight = reference.weights[ngram]
        dots[len(ngram) - 1] += min(candidate.weights[ngram], weight) * weight
    cosines = [
        dot / (norm * reference_norm)
        for dot, norm, reference_norm in zip(dots, candidate.norms, reference.norms, strict=True)
        if norm and reference_norm
    ]
    difference = candidate.bigrams - reference.bigrams
    return math.fsum(cosines) * math.exp(-(difference**2) / (2 * _SIGMA**2))


def score_cider(candidates: Candidates, references: References) -> MetricScores:
    """The named score of the set and of each image, from tokens."""
    mean, per_image = CiderScorer(references).score(candidates)
    return {"cider": mean}, {id: {"cider": value} for id, value in per_image.items()}
