"""How long captions are: counts by length, and a few numbers that sum them up."""

from __future__ import annotations

import re
from array import array
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

BORDERS = (0, 1, 6, 11, 16, 21, 31, 51, 101, 201)  # first length of each bin; the last one is open
LONGEST = 65535

# A run of letters and digits, inside which apostrophes and hyphens count too; scripts without spaces go by character.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’-][^\W{_UNSPACED}]+)*")


def words_of(caption: str) -> list[str]:
    """The words of a caption in lower case, without punctuation; of Chinese, Japanese or Thai, the characters.

    >>> words_of("A man's well-worn hat, 3 cats"), words_of("猫が cat")
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
        """Sum up; None for no captions.

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
