"""ROUGE-L (Lin, 2004) with the conventions of pycocoevalcap 1.2: beta 1.2, the best precision and the best recall."""

from __future__ import annotations

from collections.abc import Sequence

BETA = 1.2


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """The score of a line of tokens against one or more lines, in [0, 1].

    Precision and recall may come from different references, as in the reference implementation. So may this: a line
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
