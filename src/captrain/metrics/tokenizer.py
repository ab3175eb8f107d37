"""Caption text to Penn Treebank tokens, token for token what COCO caption scores are computed on.

Published BLEU and CIDEr numbers are taken after the Stanford tokenizer (CoreNLP 3.4.1, lower case) and the removal of
a short list of punctuation, as in pycocoevalcap 1.2. This module gives the same tokens without Java. Its oddities are
kept on purpose, since scores depend on them: brackets stay as "-lrb-" (the list to remove is upper case, the tokens
are not), and so do "!!" and quotes around quotes.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from captrain.metrics.alphabet import LETTER, MARK, UNKNOWN, shadow_of
from captrain.metrics.lexicon import PUNCTUATION, SPLIT_WORDS, WRITTEN_AS
from captrain.metrics.rules import LETTER_RULES, NUMBER_RULES, SIGN_RULES, Rule

# Nearly every caption: ASCII words with spaces, commas and inner hyphens between them, and a full stop at the end.
_PLAIN_CAPTION = re.compile(r"[A-Za-z]+(?:(?:-|,? +)[A-Za-z]+)*(?:[ ,]*|\.)")
# Within other captions: what lies between tokens, and words that no rule would extend.
_PLAIN_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*(?=[,;:)\"!?]?\s)")
_GAP = re.compile(rf"[\s{UNKNOWN}\xa0\u058a\u2010\u2011\u066b\u066c]+|\.{{3,}}|\.(?: \.){{2,}}")

# How much of the next line can matter: a few spaces and one word that begins a sentence.
_LOOK_AHEAD = 40
_RULES_BY_START = {
    **dict.fromkeys(string.ascii_letters + LETTER + MARK, LETTER_RULES),
    **dict.fromkeys(string.digits, NUMBER_RULES),
}


def tokenize(caption: str, following: str = "") -> list[str]:
    """Lower-case Penn Treebank tokens of a caption, punctuation removed. Any text is accepted.

    `following` is the text on the next line, if any. It matters to a caption that ends in an initial or in "no.", since
    the reference reads on: "Vitamin C." gives "c." before "a man", and "c" before "A man", which begins a sentence.

    >>> tokenize("A dog doesn't chase John's cat (it cannot).")
    ['a', 'dog', 'does', "n't", 'chase', 'john', "'s", 'cat', '-lrb-', 'it', 'can', 'not', '-rrb-']
    """
    caption = caption.strip()
    if _PLAIN_CAPTION.fullmatch(caption):
        tokens = _plain_tokens(caption, following)
    else:
        tokens = [token.lower() for token in _lexed_tokens(caption, following) if token not in PUNCTUATION]
    return tokens


def tokenize_lines(captions: Sequence[str]) -> list[list[str]]:
    """Tokens of many captions as the reference gives them for a file of these lines.

    >>> tokenize_lines(["Vitamin C.", "A man."])
    [['vitamin', 'c'], ['a', 'man']]
    """
    return [tokenize(caption, following) for caption, following in zip_longest(captions, captions[1:], fillvalue="")]


def _plain_tokens(caption: str, following: str) -> list[str]:
    tokens = caption.lower().replace(",", " ").split()
    if tokens[-1].endswith("."):
        last_word = caption.rsplit(maxsplit=1)[-1]
        tokens[-1:] = [token.lower() for token in _lexed_tokens(last_word, following) if token != "."]
    if not SPLIT_WORDS.keys().isdisjoint(tokens):
        tokens = [part for token in tokens for part in SPLIT_WORDS.get(token, (token,))]
    return tokens


def _lexed_tokens(caption: str, following: str) -> Iterator[str]:
    """Tokens in their own case, punctuation included, none with a space inside."""
    shadow = f"{shadow_of(caption)}\n{shadow_of(following[:_LOOK_AHEAD].lstrip())}\n"
    position, end = 0, len(caption)
    while position < end:
        if plain := _PLAIN_WORD.match(shadow, position):
            yield from SPLIT_WORDS.get(plain[0].lower(), (plain[0],))
            position = plain.end()
        elif gap := _GAP.match(shadow, position):
            position = gap.end()
        else:
            rule, position_after = _furthest(shadow, position)
            yield from _written(caption[position:position_after], rule).split()
            position = position_after


def _furthest(shadow: str, position: int) -> tuple[Rule, int]:
    """The rule that reads furthest from a position, and where its token ends."""
    reached = position
    for rule in _RULES_BY_START.get(shadow[position], SIGN_RULES):
        found = rule.match.match(shadow, position)
        if found and found.end() > reached:
            best, reached, token_end = rule, found.end(), found.end(1)
    return best, token_end


def _written(token: str, rule: Rule) -> str:
    """A token as the treebank writes it; words that run over a space ("<br />") are split by the caller."""
    if not rule.rewritten:
        return token.replace("\xad", "")
    whole = WRITTEN_AS.get(token.lower())
    if whole is not None:
        return whole
    return "".join(WRITTEN_AS.get(character, character) for character in token.replace("&amp;", "&"))
