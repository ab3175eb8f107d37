"""Captions without references: how varied they are, and whether the captioner has collapsed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from typing import Any

from captrain.errors import DataError
from captrain.metrics.document_frequencies import check_captions
from captrain.metrics.tokenizer import line_maker

FEWEST = 10
"""With fewer captions than this, nothing is said about how alike they are."""
MOST_ALIKE = 0.2
"""Above this share, one caption is given to too many pictures. (Of 5,000 human captions on COCO the commonest has 0.001.)"""
LEAST_DIFFERENT = 0.1
"""Below this share of different captions, the captioner knows a handful of sentences. (Human captions: 0.99.)"""
MOST_UNFINISHED = 0.2
"""Above this share of captions without an end token, the captioner does not know when to stop, or is cut off."""
MOST_REPETITIVE = 0.1
"""Above this share of captions that repeat three words in a row, decoding loops. (Human captions: 0.003.)"""
LONGEST_RUN = 5
"""A phrase this many times in a row, in any caption, is a loop."""

_LONGEST_PHRASE = 4


@dataclass(frozen=True)
class Diversity:
    """What captions show by themselves. Shares are in [0, 1]; None if the question was not asked."""

    captions: int
    vocabulary: int
    """Different words."""
    mean_length: float
    """Words in a caption."""
    distinct_1: float
    """Different words among all words (Li et al., 2016), and"""
    distinct_2: float
    """different pairs of neighbours among all pairs. Both fall as captions become more: compare equal numbers of them."""
    different: float
    """Different captions among all."""
    commonest: str
    commonest_share: float
    repeated_2: float
    """Share of captions in which two words in a row come up again, and"""
    repeated_3: float
    """three words in a row."""
    longest_run: int
    """How many times in a row a phrase of up to four words is said, at most: 3 for "a dog a dog a dog"."""
    new: float | None = None
    """Share of captions that are not among the training captions."""
    unfinished: float | None = None
    """Share of captions without an end token."""

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object, without what was not asked."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def measure_diversity(
    captions: Sequence[str],
    *,
    training: Iterable[str] | None = None,
    ended: Sequence[bool] | None = None,
    tokenizer: str = "ptb",
) -> Diversity:
    """Look at captions alone. Captions are compared by their tokens, so "A dog." is "a dog".

    `training`: the captions that were learned from, for the share of new ones; `ended`: for each caption, whether the
    captioner closed it with its end token. Raises `DataError` for no captions, or not as many flags.

    >>> found = measure_diversity(["A dog runs.", "a dog runs", "a cat", "a cat a cat a cat"], training=["a cat"])
    >>> found.vocabulary, found.different, found.commonest, found.commonest_share, found.longest_run, found.new
    (4, 0.75, 'A dog runs.', 0.5, 3, 0.75)
    """
    _check(captions, ended)
    make_line = line_maker(tokenizer)
    lines = [make_line(caption) for caption in captions]
    words = [line.split() for line in lines]
    pairs = [list(pairwise(caption)) for caption in words]
    triples = [list(zip(caption, caption[1:], caption[2:], strict=False)) for caption in words]
    [(commonest, times)] = Counter(lines).most_common(1)
    learned = None if training is None else {make_line(caption) for caption in training}
    return Diversity(
        captions=len(lines),
        vocabulary=len(set(chain.from_iterable(words))),
        mean_length=sum(map(len, words)) / len(words),
        distinct_1=_distinct(words),
        distinct_2=_distinct(pairs),
        different=len(set(lines)) / len(lines),
        commonest=captions[lines.index(commonest)],
        commonest_share=times / len(lines),
        repeated_2=_share(len(set(caption)) < len(caption) for caption in pairs),
        repeated_3=_share(len(set(caption)) < len(caption) for caption in triples),
        longest_run=max(map(_longest_run, words)),
        new=None if learned is None else _share(line not in learned for line in lines),
        unfinished=None if ended is None else _share(not flag for flag in ended),
    )


def alarms(found: Diversity) -> list[str]:
    """Plain sentences about what is wrong with a captioner, none if nothing is. The limits are this module's constants.

    >>> alarms(measure_diversity(["a dog"] * 9 + ["a cat"]))[0]
    "9 of 10 captions are alike ('a dog'): the captioner hardly looks at the picture"
    """
    sentences = []
    if found.captions >= FEWEST:
        sentences += _alike(found)
    if found.unfinished is not None and found.unfinished > MOST_UNFINISHED:
        sentences.append(
            f"{found.unfinished:.0%} of captions have no end token: "
            "allow longer captions, or check that training captions end with it"
        )
    if found.repeated_3 > MOST_REPETITIVE:
        sentences.append(f"{found.repeated_3:.0%} of captions say three words in a row twice: the captioner loops")
    if found.longest_run >= LONGEST_RUN:
        sentences.append(f"a caption says the same words {found.longest_run} times in a row: the captioner loops")
    return sentences


def _alike(found: Diversity) -> list[str]:
    sentences = []
    if found.commonest_share > MOST_ALIKE:
        times = round(found.commonest_share * found.captions)
        sentences.append(
            f"{times} of {found.captions} captions are alike ({found.commonest[:80]!r}): "
            "the captioner hardly looks at the picture"
        )
    if found.different < LEAST_DIFFERENT:
        number = round(found.different * found.captions)
        sentences.append(f"only {number} of {found.captions} captions differ: the captioner knows a few sentences only")
    return sentences


def _check(captions: Sequence[str], ended: Sequence[bool] | None) -> None:
    if not captions:
        raise DataError("no captions to measure, expected one or more")
    check_captions((f"caption {number}" for number in range(1, len(captions) + 1)), captions)
    if ended is not None and len(ended) != len(captions):
        raise DataError(f"{len(ended)} end flags for {len(captions)} captions, expected one for each")


def _distinct(captions: Sequence[Sequence[object]]) -> float:
    total = sum(map(len, captions))
    return len(set(chain.from_iterable(captions))) / total if total else 0.0


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values)


def _longest_run(words: Sequence[str]) -> int:
    """How many times in a row a phrase is said, at most.

    >>> _longest_run("a dog on a dog on a bench".split()), _longest_run("a very very very big dog".split())
    (2, 3)
    """
    longest = 1 if words else 0
    for length in range(1, _LONGEST_PHRASE + 1):
        same = 0  # words in a row that equal the word one phrase earlier
        for earlier, word in zip(words, words[length:], strict=False):
            same = same + 1 if word == earlier else 0
            longest = max(longest, same // length + 1)
    return longest
