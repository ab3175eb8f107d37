"""Caption text to tokens, by a tokenizer chosen by name.

A tokenizer gives each caption one line: its tokens with single spaces between. BLEU and CIDEr split that line at any
white space and ROUGE-L at plain spaces, as the reference scorers do; they differ only where a token holds a no-break
space ("1 1/2").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from captrain.errors import UserError, nearest

TOKENIZERS = {
    "ptb": "captrain.metrics.treebank:treebank_lines",
    "unicode": "captrain.metrics.scripts:word_lines",
    "characters": "captrain.metrics.scripts:character_lines",
    "spaces": "captrain.metrics.scripts:spaced_lines",
}
"""Tokenizer name to the function that makes lines of captions, loaded when asked for.

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
    # With an empty line after it: a caption alone reads like one in the middle of many.
    return token_lines([caption, ""], tokenizer)[0].split()


def tokenize_lines(captions: Sequence[str], tokenizer: str = "ptb") -> list[list[str]]:
    """Tokens of many captions, as the tokenizer gives them for a file of these lines.

    >>> tokenize_lines(["Vitamin C.", "A man."])
    [['vitamin', 'c'], ['a', 'man']]
    """
    return [line.split() for line in token_lines(captions, tokenizer)]


def token_lines(captions: Sequence[str], tokenizer: str = "ptb") -> list[str]:
    """Tokens of many captions, each caption's with single spaces between.

    >>> token_lines(["A dog, a cat."])
    ['a dog a cat']
    """
    place = TOKENIZERS.get(tokenizer)
    if place is None:
        known = ", ".join(TOKENIZERS)
        raise UserError(f"unknown tokenizer '{tokenizer}'.{nearest(tokenizer, TOKENIZERS)} Known: {known}")
    module, _, name = place.partition(":")
    make_lines: Callable[[Sequence[str]], list[str]] = getattr(import_module(module), name)
    return make_lines(captions)
