"""Which tokenizer suits the script of the references: what `auto` chooses, and why another choice deserves a word.

The tokenizer of papers, "ptb", finds words by the spaces between them and knows the letters of 2010. It stays the choice for
every script that it can read so, which is nearly all of them; results for English are those of pycocoevalcap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import regex  # type: ignore[import-untyped]

from captrain.metrics.frequencies import DocumentFrequencies
from captrain.metrics.lexicon import UNKNOWN, shadow_of

AUTO = "auto"
LOOKED_AT = 1000
"""References, evenly spread."""
MOST = 0.5
"""Share of the letters from which on a script is that of the references."""
SOME = 0.1
"""Share from which on they are mixed, and words of both must be found."""

_LETTER = regex.compile(r"\p{L}")
# Scripts that are written without spaces between words; Line_Break=SA is Thai, Lao, Khmer, Burmese and their kin.
_UNSPACED = regex.compile(r"(?V1)[\p{L}&&[\p{Han}\p{Hiragana}\p{Katakana}\p{Line_Break=SA}]]")


@dataclass(frozen=True, slots=True)
class Choice:
    """A tokenizer, the one that suits the references, and what that says of them."""

    tokenizer: str
    suited: str
    why: str
    asked: str

    @property
    def note(self) -> str | None:
        """A sentence for people: where `auto` left the tokenizer of papers, or where that was asked for and can't do it."""
        if self.asked == AUTO and self.tokenizer != "ptb":
            return f"tokenizer {self.tokenizer}, chosen as {self.why} (--tokenize sets another one)"
        if self.tokenizer == "ptb" and self.suited != "ptb":
            return (
                f"tokenizer ptb can't find the words of these references, as {self.why}: scores are near 0 and mean little; "
                f"use --tokenize {self.suited}, or auto"
            )
        return None


def choose_tokenizer(
    asked: str, references: Mapping[str, Sequence[str]], known: DocumentFrequencies | str | None = None
) -> Choice:
    """The tokenizer that was asked for; for `auto` the `known` one (or that of frequencies), or what suits the references.

    >>> choose_tokenizer("auto", {"1": ["A dog runs."]}).tokenizer
    'ptb'
    >>> choose_tokenizer("auto", {"1": ["一只狗在草地上奔跑"]}).note
    'tokenizer characters, chosen as 100 % of their letters stand without spaces between words (--tokenize sets another one)'
    >>> choose_tokenizer("ptb", {"1": ["一只狗在草地上奔跑"]}).suited
    'characters'
    """
    suited, why = suited_to(_some([text for texts in references.values() for text in texts]))
    before = known if isinstance(known, str | None) else known.tokenizer
    tokenizer = (before or suited) if asked == AUTO else asked
    return Choice(tokenizer, suited, why, asked)


def suited_to(texts: Iterable[str]) -> tuple[str, str]:
    """The tokenizer that finds the words of texts, and what of their letters says so.

    >>> suited_to(["Пёс бежит", "a dog"])[0], suited_to(["狗 dog and 猫 cats"])[0], suited_to(["หมาวิ่ง"])[0]
    ('ptb', 'unicode', 'characters')
    """
    text = "\n".join(texts)
    letters = len(_LETTER.findall(text))
    if not letters:
        return "ptb", "they have no letters"
    unspaced = len(_UNSPACED.findall(text)) / letters
    if unspaced >= SOME:
        why = f"{unspaced:.0%} of their letters stand without spaces between words".replace("%", " %")
        return ("characters" if unspaced >= MOST else "unicode"), why
    unread = len(_LETTER.findall("".join(letter for letter in text if shadow_of(letter) == UNKNOWN))) / letters
    if unread >= SOME:
        return "unicode", f"{unread:.0%} of their letters are newer than ptb".replace("%", " %")
    return "ptb", "their words have spaces between them"


def _some(texts: Sequence[str]) -> Sequence[str]:
    """At most so many of the texts as are looked at, evenly spread."""
    return texts[:: max(1, -(-len(texts) // LOOKED_AT))]
