"""Examines captions: their length, repetitions, letters and words.

`CaptionTally` takes them in one by one. `Lengths` counts them by length and gives the numbers that sum this up.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from captrain.data.check.problems import Findings
from captrain.data.samples import key_of
from captrain.data.text_encoding import control_in
from captrain.progress import printable

CountTokens = Callable[[list[str]], list[int]]

MANY = 5  # pictures from which on a shared caption is remarked on
COMMON = 20  # words reported
AT_ONCE = 1024  # captions whose tokens are counted together

# Runs of what the bytes of UTF-8 look like when they are read as Windows-1252 or Latin-1.
_SUSPECTS = re.compile("[\u0080-\u00ffŒœŠšŸŽžƒˆ˜–—‘’‚“”„†‡•…‰‹›€™]{2,}")
_LEADS = frozenset("ÂÃÄÅÎÏÐÑ")  # first letters of garbled Latin, Greek and Cyrillic


def repaired(text: str) -> str:
    """A caption with garbled letters ("mojibake") set right; the same text where there are none.

    UTF-8 that was read as Windows-1252 turns "é" into "Ã©" and "’" into "â€™". Where such a run of letters is valid
    UTF-8 again, it is taken for garbled; a run of two letters only if it begins as garbled ones do.

    >>> repaired("a cafÃ© at the childâ€™s school"), repaired("«Être à Åre»")
    ('a café at the child’s school', '«Être à Åre»')
    """
    return text if text.isascii() else _SUSPECTS.sub(lambda found: _decoded(found.group()), text)


def _decoded(run: str) -> str:
    if len(run) == 2 and run[0] not in _LEADS:
        return run
    try:
        return b"".join(_byte(letter) for letter in run).decode("utf-8")
    except UnicodeError:
        return run


def _byte(letter: str) -> bytes:
    """A letter of Windows-1252, which leaves five bytes to Latin-1's control characters."""
    return letter.encode("latin-1" if letter <= "\u009f" else "cp1252")


class CaptionTally:
    """Takes in captions picture by picture and keeps 14 bytes of each, and each different word once.

    Args:
        findings: where problems go.
        max_words: captions with more words are remarked on.
        count_tokens: a tokenizer's lengths of captions, in tokens; None to leave tokens out.
        max_tokens: captions with more tokens are problems.
    """

    def __init__(
        self, findings: Findings, max_words: int, count_tokens: CountTokens | None = None, max_tokens: int = 0
    ) -> None:
        self.findings, self.max_words = findings, max_words
        self.count_tokens, self.max_tokens = count_tokens, max_tokens
        self.words, self.tokens = array("H"), array("H")
        self.vocabulary: Counter[str] = Counter()
        self._keys, self._owners = array("Q"), array("I")  # of captions, each once a picture
        self._waiting: list[tuple[int, str]] = []

    def add(self, picture: int, captions: Sequence[str]) -> None:
        """Take in the captions of a picture."""
        if not captions:
            self.findings.add("no-caption", picture, "has no caption")
        seen: set[int] = set()
        for caption in captions:
            self._look_at(picture, caption)
            key = key_of(" ".join(caption.casefold().split()))
            if key in seen:
                self.findings.add("caption-twice", picture, f"has twice the caption {shortened_caption(caption)}")
            else:
                self._keys.append(key)
                self._owners.append(picture)
            seen.add(key)
        if self.count_tokens:
            self._waiting += [(picture, caption) for caption in captions]
            if len(self._waiting) >= AT_ONCE:
                self._count_waiting()

    def finish(self, captions_of: Callable[[int], Sequence[str]]) -> None:
        """Report what shows only after all captions were added; `captions_of` gives the captions of a picture again."""
        self._count_waiting()
        keys, owners = np.array(self._keys), np.array(self._owners)
        _, first, group, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(counts[group] >= MANY)
        is_first = first[group[shared]] == shared
        # One picture of each caption before the others, so that the first few tell of different captions.
        for place in shared[np.lexsort((shared, group[shared], -counts[group[shared]], ~is_first))].tolist():
            picture, others = int(owners[place]), int(counts[group[place]]) - 1
            caption = _with_key(captions_of(picture), int(keys[place]))
            self.findings.add("caption-shared", picture, f"shares with {others} others the caption {caption}")

    def _look_at(self, picture: int, caption: str) -> None:
        words = caption_words(caption)
        self.words.append(min(len(words), LONGEST))
        self.vocabulary.update(words)
        if not caption.strip():
            self.findings.add("empty-caption", picture, "has an empty caption")
        if (right := repaired(caption)) != caption:
            self.findings.add(
                "garbled", picture, f"reads {shortened_caption(caption)}, perhaps for {shortened_caption(right)}"
            )
        elif "\ufffd" in caption:
            self.findings.add("garbled", picture, f"reads {shortened_caption(caption)}, with letters lost")
        elif control := control_in(caption):
            about = f"reads {shortened_caption(printable(caption))}, with the control character U+{ord(control):04X}"
            self.findings.add("control-characters", picture, about)
        if len(words) > self.max_words:
            self.findings.add(
                "long-caption", picture, f"has a caption of {len(words)} words: {shortened_caption(caption)}"
            )

    def _count_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if self.count_tokens is None or not waiting:
            return
        for (picture, caption), length in zip(waiting, self.count_tokens([text for _, text in waiting]), strict=True):
            self.tokens.append(min(length, LONGEST))
            if length > self.max_tokens:
                self.findings.add("cut", picture, f"has a caption of {length} tokens: {shortened_caption(caption)}")


def shortened_caption(caption: str, longest: int = 60) -> str:
    """A caption in quotation marks, its end left out where it is long.

    >>> shortened_caption("a dog on a beach", 8)
    '"a dog o…"'
    """
    return f'"{caption if len(caption) <= longest else caption[: longest - 1] + "…"}"'


def _with_key(captions: Sequence[str], key: int) -> str:
    return next(
        (shortened_caption(text) for text in captions if key_of(" ".join(text.casefold().split())) == key), '""'
    )


BORDERS = (0, 1, 6, 11, 16, 21, 31, 51, 101, 201)  # first length of each bin; the last one is open
LONGEST = 65535

# A run of letters and digits, inside which apostrophes and hyphens count too; scripts without spaces go by character.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’-][^\W{_UNSPACED}]+)*")


def caption_words(caption: str) -> list[str]:
    """The words of a caption in lower case, without punctuation; of Chinese, Japanese or Thai, the characters.

    >>> caption_words("A man's well-worn hat, 3 cats"), caption_words("猫が cat")
    (['a', "man's", 'well-worn', 'hat', '3', 'cats'], ['猫', 'が', 'cat'])
    """
    return _WORD.findall(caption.lower())


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of captions. `bins` holds (lowest, highest, captions); the highest of the last one is the longest found."""

    shortest: int
    median: int
    mean: float
    most: int  # 95 % of captions are no longer
    longest: int
    bins: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, lengths: array[int]) -> Lengths | None:
        """The summary; None for no captions.

        >>> Lengths.of(array("H", [2, 7, 8])).bins
        ((1, 5, 1), (6, 8, 2))
        """
        if not lengths:
            return None
        values = np.frombuffer(lengths, dtype=np.uint16)
        median, most = np.percentile(values, [50, 95], method="inverted_cdf")
        longest = int(values.max())
        counts, _ = np.histogram(values, [*BORDERS, LONGEST + 1])
        highest = [min(border - 1, longest) for border in BORDERS[1:]] + [longest]
        bins = tuple(
            (low, high, int(count)) for low, high, count in zip(BORDERS, highest, counts, strict=True) if count
        )
        return cls(int(values.min()), int(median), round(float(values.mean()), 2), int(most), longest, bins)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)
