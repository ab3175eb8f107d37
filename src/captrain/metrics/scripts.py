"""Tokenizers for captions in any language: words by Unicode's rules, single characters, and text that is split already."""

from __future__ import annotations

import regex  # type: ignore[import-untyped]

# Default word boundaries of Unicode (UAX #29), which (?w) asks for; segments of punctuation and spaces are left out.
_BOUNDARY = regex.compile(r"(?V1w)\b")
_NO_TOKEN = regex.compile(r"[\p{P}\p{Z}\p{C}\s]*")
_CHARACTER = regex.compile(r"\X")


def word_line(caption: str) -> str:
    """Lower-case words by Unicode's default word boundaries, without punctuation; signs such as "$" or emoji stay.

    Han characters stand alone, as the rules say, and so do those of Thai, Lao and Khmer, whose words only a dictionary
    finds.

    >>> word_line("Пёс бежит 3.5 км, don't!")
    "пёс бежит 3.5 км don't"
    """
    return " ".join(_kept(_BOUNDARY.split(caption.lower())))


def character_line(caption: str) -> str:
    """Every character (with its accents and joined signs) but spaces and punctuation, in lower case.

    >>> character_line("一只狗。 OK")
    '一 只 狗 o k'
    """
    return " ".join(_kept(_CHARACTER.findall(caption.lower())))


def spaced_line(caption: str) -> str:
    """The captions as they are, with single spaces: tokens that another program made.

    >>> spaced_line("a  dog 's ball")
    "a dog 's ball"
    """
    return " ".join(token for token in caption.replace("\n", " ").split(" ") if token)


def _kept(segments: list[str]) -> list[str]:
    return [segment for segment in segments if not _NO_TOKEN.fullmatch(segment)]
