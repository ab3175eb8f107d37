"""How far scores may be trusted: intervals of one system, and whether one system is better than another.

Both resample images, and keep what each image adds to a score: for BLEU its counts (the corpus score is computed from the
sums of each resample), for all other metrics its own score (the corpus score is the mean). So nothing is scored twice, and a
thousand resamples are a few products of matrices.

CIDEr weighs words by how few images mention them. These document frequencies stay those of the full set of references:
a resample changes which images count, not what a rare word is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LONGEST = 4
"""BLEU looks at runs of one to four words."""
RESAMPLES = 1000
LEVEL = 0.95
"""Of intervals; a p-value under 1 - LEVEL counts as a difference."""
_CELLS = 4_000_000
"""Weights held in memory at a time (resamples x images)."""

# As in the reference implementation: a score of nothing is (almost) zero, a division by nothing is possible.
_TINY = 1e-15
_SMALL = 1e-9

Array = np.ndarray
Tokens = Sequence[str]


@dataclass(frozen=True)
class Statistics:
    """What each of n images adds to the scores of a system.

    `bleu` (n, 10): n-grams right for lengths 1 to 4, n-grams written, length of the caption, length of the reference.
    None where BLEU was not asked for. `means`: metric to (n,) scores; the corpus score is their mean.
    """

    images: int
    bleu: Array | None
    means: dict[str, Array]

    def columns(self) -> Array:
        """Everything side by side, (n, columns); no column where nothing but METEOR was asked for, which is no sum."""
        parts = [np.zeros((self.images, 0))] if self.bleu is None else [self.bleu]
        return np.column_stack([*parts, *self.means.values()])

    def names(self) -> list[str]:
        """The metrics, in the order in which `scores` gives them."""
        bleu = [] if self.bleu is None else [f"bleu_{order}" for order in range(1, LONGEST + 1)]
        return [*bleu, *self.means]

    def scores(self, sums: Array) -> Array:
        """Corpus scores (resamples, metrics) from sums of `columns` over images (resamples, columns)."""
        if self.bleu is None:
            return sums / self.images
        width = self.bleu.shape[1]
        return np.concatenate([corpus_bleu(sums[:, :width]), sums[:, width:] / self.images], axis=1)


@dataclass(frozen=True, slots=True)
class Difference:
    """First minus second system in one metric: the difference, its interval, and how likely chance alone gives as much."""

    metric: str
    difference: float
    interval: tuple[float, float]
    p: float

    @property
    def significant(self) -> bool:
        """Whether one of the two systems is better, at the usual level."""
        return self.p < 1 - LEVEL


def bleu_counts(candidates: Mapping[str, Tokens], references: Mapping[str, Sequence[Tokens]]) -> Array:
    """The counts of `Statistics.bleu`, one row an image, in the order of `candidates`.

    >>> bleu_counts({"1": ["a", "dog"]}, {"1": [["a", "dog", "runs"]]})[0].astype(int).tolist()
    [2, 1, 0, 0, 2, 1, 0, 0, 2, 3]
    """
    counts = np.zeros((len(candidates), 2 * LONGEST + 2))
    for row, (id, tokens) in zip(counts, candidates.items(), strict=True):
        length = len(tokens)
        for order in range(1, LONGEST + 1):
            row[order - 1] = _right(tokens, references[id], order)
            row[LONGEST + order - 1] = max(0, length - order + 1)
        lengths = [len(reference) for reference in references[id]]
        row[-2:] = length, min(lengths, key=lambda other: (abs(other - length), other))
    return counts


def _right(tokens: Tokens, references: Sequence[Tokens], order: int) -> int:
    """How many n-grams of a caption stand in a reference, each counted as often as in any one of them at most."""
    written = _ngrams(tokens, order)
    highest: Counter[Tokens] = Counter()
    for reference in references:
        highest |= _ngrams(reference, order)
    return (written & highest).total()


def _ngrams(tokens: Tokens, order: int) -> Counter[Tokens]:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def corpus_bleu(sums: Array) -> Array:
    """BLEU-1 to 4 (rows, 4) from summed counts (rows, 10), as `BleuScorer` computes them.

    >>> corpus_bleu(np.array([[4.0, 3, 2, 1, 4, 3, 2, 1, 4, 4]])).round(4).tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    """
    right, written = sums[:, :LONGEST], sums[:, LONGEST : 2 * LONGEST]
    ratio = (sums[:, -2] + _TINY) / (sums[:, -1] + _SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    precisions = (right + _TINY) / (written + _SMALL)
    return np.cumprod(precisions, axis=1) ** (1 / np.arange(1, LONGEST + 1)) * brevity[:, None]


def intervals(statistics: Statistics, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % interval of each score: percentiles of the scores of resampled images, with repetition (Efron 1979).

    The draws depend on the seed and the number of images alone. Of a single image there is nothing to draw: the
    interval is its score.
    """
    scores = statistics.scores(_summed(statistics.columns(), _drawn(statistics.images, resamples, seed)))
    low, high = _percentiles(scores)
    return {name: (float(low[index]), float(high[index])) for index, name in enumerate(statistics.names())}


def system_differences(
    first: Statistics, second: Statistics, resamples: int = RESAMPLES, seed: int = 0
) -> list[Difference]:
    """Every metric of two systems on the same images in the same order, first minus second.

    The interval comes from a paired bootstrap: both systems are scored on the same drawn images (Koehn 2004). The
    p-value comes from approximate randomisation: how often the captions of the two systems, exchanged for each image
    with a chance of one half, differ as much in score as the systems do (Riezler and Maxwell 2005). It is two-sided,
    and not corrected for the number of comparisons.
    """
    ours, theirs = first.columns(), second.columns()
    drawn = np.concatenate([ours, theirs], axis=1)
    sums = _summed(drawn, _drawn(first.images, resamples, seed))
    spread = first.scores(sums[:, : ours.shape[1]]) - second.scores(sums[:, ours.shape[1] :])
    low, high = _percentiles(spread)
    our_sums, their_sums = ours.sum(axis=0, keepdims=True), theirs.sum(axis=0, keepdims=True)
    observed = (first.scores(our_sums) - second.scores(their_sums))[0]
    exchanged = _summed(theirs - ours, _coins(first.images, resamples, seed))
    by_chance = first.scores(our_sums + exchanged) - second.scores(their_sums - exchanged)
    reached = (np.abs(by_chance) >= np.abs(observed) - 1e-12).sum(axis=0)
    p = (reached + 1) / (resamples + 1)
    return [
        Difference(name, float(observed[index]), (float(low[index]), float(high[index])), float(p[index]))
        for index, name in enumerate(first.names())
    ]


def _summed(columns: Array, weights: Iterable[Array]) -> Array:
    """Weighted sums over images (resamples, columns), some resamples at a time."""
    return np.concatenate([some @ columns for some in weights])


def _drawn(images: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each resample has drawn each image, (some resamples, images) at a time."""
    generator = np.random.default_rng(seed)
    for rows in _portions(images, resamples):
        chosen = generator.integers(images, size=(rows, images)) + images * np.arange(rows)[:, None]
        yield np.bincount(chosen.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def _coins(images: int, resamples: int, seed: int) -> Iterator[Array]:
    """One where a resample exchanges the two captions of an image, zero elsewhere."""
    generator = np.random.default_rng(seed)
    for rows in _portions(images, resamples):
        yield generator.integers(2, size=(rows, images)).astype(np.float64)


def _portions(images: int, resamples: int) -> list[int]:
    """How many resamples to make at a time, so that memory stays small.

    >>> _portions(2_000_000, 5)
    [2, 2, 1]
    """
    most = max(1, _CELLS // max(1, images))
    return [min(most, resamples - start) for start in range(0, resamples, most)]


def _percentiles(scores: Array) -> tuple[Array, Array]:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(scores, [tail, 100 - tail], axis=0)
    return low, high
