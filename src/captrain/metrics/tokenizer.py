"""Caption text to tokens, by a tokenizer chosen by name.

A tokenizer gives each caption one line: its tokens with single spaces between. BLEU and CIDEr split that line at any
white space and ROUGE-L at plain spaces, as the reference scorers do; they differ only where a token holds a no-break
space ("1 1/2").

Tokenizers for captions in any language: words by Unicode's rules, single characters, and text that is split already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

import regex  # type: ignore[import-untyped]

from captrain.errors import UserError, nearest
from captrain.metrics.treebank import treebank_lines

TOKENIZERS = {
    "ptb": "captrain.metrics.treebank:treebank_line",
    "unicode": "captrain.metrics.tokenizer:word_line",
    "characters": "captrain.metrics.tokenizer:character_line",
    "spaces": "captrain.metrics.tokenizer:spaced_line",
}
"""Tokenizer name to the function that makes a caption's line, loaded when asked for.

"ptb" is what papers on COCO report; "unicode" breaks any language that puts spaces between words; "characters" is for
Chinese, Japanese, Thai and other scripts without them; "spaces" takes text that is tokens already.
"""


def tokenize(caption: str, tokenizer: str = "ptb") -> list[str]:
    """Tokens of one caption. Raises `UserError` for an unknown tokenizer.

    >>> tokenize("A dog doesn't chase John's cat (it cannot).")
    ['a', 'dog', 'does', "n't", 'chase', 'john', "'s", 'cat', '-lrb-', 'it', 'can', 'not', '-rrb-']
    >>> tokenize("Пёс не бежит!", "unicode")
    ['пёс', 'не', 'бежит']
    """
    return line_maker(tokenizer)(caption).split()


def tokenize_lines(captions: Sequence[str], tokenizer: str = "ptb") -> list[list[str]]:
    """Tokens of many captions, as the tokenizer gives them for a file of these lines.

    >>> tokenize_lines(["Vitamin C.", "A man."])
    [['vitamin', 'c'], ['a', 'man']]
    """
    return [line.split() for line in token_lines(captions, tokenizer)]


def token_lines(captions: Sequence[str], tokenizer: str = "ptb") -> list[str]:
    """Tokens of many captions, each caption's with single spaces between. "ptb" reads them as the lines of one file.

    >>> token_lines(["A dog, a cat."])
    ['a dog a cat']
    """
    if tokenizer == "ptb":
        return treebank_lines(captions)
    return list(map(line_maker(tokenizer), captions))


def line_maker(tokenizer: str) -> Callable[[str], str]:
    """The function that makes the line of a caption by itself.

    >>> line_maker("ptb")("Vitamin C.")
    'vitamin c.'
    """
    place = TOKENIZERS.get(tokenizer)
    if place is None:
        known = ", ".join(TOKENIZERS)
        raise UserError(f"unknown tokenizer '{tokenizer}'.{nearest(tokenizer, TOKENIZERS)} Known: {known}")
    module, _, name = place.partition(":")
    make_line: Callable[[str], str] = getattr(import_module(module), name)
    return make_line


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
