"""Counts of word n-grams, which BLEU and CIDEr are made of, and the types that metrics share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

LONGEST = 4
"""Both metrics look at runs of one to four words."""

Ngram = tuple[str, ...]
Tokens = Sequence[str]
Candidates = Mapping[str, Tokens]
"""Image id to the tokens of its caption."""
References = Mapping[str, Sequence[Tokens]]
"""Image id to the tokens of each of its references."""
MetricScores = tuple[dict[str, float], dict[str, dict[str, float]]]
"""Scores of the set by name, and image id to scores by name."""


def count_ngrams(tokens: Tokens) -> dict[Ngram, int]:
    """How often each run of one to four tokens occurs; shorter runs come first, each length in reading order.

    >>> count_ngrams(["a", "dog", "a"])
    {('a',): 2, ('dog',): 1, ('a', 'dog'): 1, ('dog', 'a'): 1, ('a', 'dog', 'a'): 1}
    """
    counts: dict[Ngram, int] = {}
    for length in range(1, LONGEST + 1):
        for ngram in zip(*(tokens[start:] for start in range(length)), strict=False):
            counts[ngram] = counts.get(ngram, 0) + 1
    return counts
