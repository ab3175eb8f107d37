"""Tokenizers for captions in any language: words by Unicode's rules, single characters, and text that is split already."""

from __future__ import annotations

from collections.abc import Sequence

import regex  # type: ignore[import-untyped]

# Default word boundaries of Unicode (UAX #29), which (?w) asks for; segments of punctuation and spaces are left out.
_BOUNDARY = regex.compile(r"(?V1w)\b")
_NO_TOKEN = regex.compile(r"[\p{P}\p{Z}\p{C}\s]*")
_CHARACTER = regex.compile(r"\X")


def word_lines(captions: Sequence[str]) -> list[str]:
    """Lower-case words by Unicode's default word boundaries, without punctuation; signs such as "$" or emoji stay.

    Han characters stand alone, as the rules say, and so do those of Thai, Lao and Khmer, whose words only a dictionary
    finds.

    >>> word_lines(["Ein Hund l\u00e4uft, 3.5 km weit!", "don't", "\u72d7 runs"])
    ['ein hund l\xe4uft 3.5 km weit', "don't", '\u72d7 runs']
    """
    return [" ".join(_kept(_BOUNDARY.split(caption.lower()))) for caption in captions]


def character_lines(captions: Sequence[str]) -> list[str]:
    """Every character (with its accents and joined signs) but spaces and punctuation, in lower case.

    >>> character_lines(["\u4e00\u53ea\u72d7\u3002", "Caf\u00e9 x"])
    ['\u4e00 \u53ea \u72d7', 'c a f \xe9 x']
    """
    return [" ".join(_kept(_CHARACTER.findall(caption.lower()))) for caption in captions]


def spaced_lines(captions: Sequence[str]) -> list[str]:
    """The captions as they are, with single spaces: tokens that another program made.

    >>> spaced_lines(["a  dog 's ball"])
    ["a dog 's ball"]
    """
    return [" ".join(token for token in caption.replace("\n", " ").split(" ") if token) for caption in captions]


def _kept(segments: list[str]) -> list[str]:
    return [segment for segment in segments if not _NO_TOKEN.fullmatch(segment)]
