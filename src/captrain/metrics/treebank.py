"""Caption text to Penn Treebank tokens, token for token what COCO caption scores are computed on.

Published BLEU, ROUGE-L and CIDEr numbers are taken after the Stanford tokenizer (CoreNLP 3.4.1, lower case) and the
removal of a short list of punctuation, as in pycocoevalcap 1.2. This module gives the same lines without Java. Their
oddities are kept on purpose, since scores depend on them: brackets stay as "-lrb-" (the list to remove is upper case,
the tokens are not), and so do "!!" and quotes around quotes; "1 1/2" is one token with a no-break space inside.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence

from captrain.metrics.alphabet import DIGIT, LETTER, MARK, SOFT_HYPHEN, UNKNOWN, shadow_of
from captrain.metrics.lexicon import MAY_KEEP_STOP, PUNCTUATION, SPLIT_WORDS, WRITTEN_AS
from captrain.metrics.rules import LETTER_RULES, NUMBER_RULES, SIGN_RULES, Rule

# Nearly every caption: ASCII words with spaces, commas and inner hyphens between them, and a full stop at the end.
_PLAIN_CAPTION = re.compile(r"[A-Za-z]+(?:(?:-|,? +)[A-Za-z]+)*(?:[ ,]*|\.)")
# Within other captions: what lies between tokens, and words that no rule would extend.
_PLAIN_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*(?=[,;:)\"!?]?\s)")
_GAP = re.compile(rf"[\s{UNKNOWN}\xa0\u058a\u2010\u2011]+|[\u066b\u066c](?![0-9{DIGIT}])|\.{{3,}}|\.(?: \.){{2,}}")

# How much of the next lines can matter: a few spaces and one word that begins a sentence.
_LOOK_AHEAD = 40
_RULES_BY_START = {
    **dict.fromkeys(string.ascii_letters + LETTER + MARK + SOFT_HYPHEN, LETTER_RULES),
    **dict.fromkeys(string.digits + DIGIT, NUMBER_RULES),
}


def treebank_lines(captions: Sequence[str]) -> list[str]:
    """The line of each caption, as the reference gives them for a file of these captions.

    >>> treebank_lines(["Vitamin C.", "A man."])
    ['vitamin c', 'a man']
    """
    lines = []
    following = ""
    for caption in reversed(captions):
        lines.append(treebank_line(caption, following))
        following = f"\n{caption[:_LOOK_AHEAD]}{following}"[:_LOOK_AHEAD]
    return lines[::-1]


def treebank_line(caption: str, following: str = "\n") -> str:
    """Lower-case Penn Treebank tokens of a caption with single spaces between, punctuation removed. Any text is accepted.

    `following` is what the file goes on with ("" at its end). It matters to a caption that ends in an initial or in
    "no.", since the reference reads on: "Vitamin C." gives "c." before a line "a man", and "c" before "A man", which
    begins a sentence.

    >>> treebank_line("A dog doesn't chase John's cat (it cannot).")
    "a dog does n't chase john 's cat -lrb- it can not -rrb-"
    """
    caption = caption.replace("\n", " ").strip()
    if _PLAIN_CAPTION.fullmatch(caption):
        return " ".join(_plain_tokens(caption, following))
    return " ".join([token.lower() for token in _lexed_tokens(caption, following) if token not in PUNCTUATION])


def _plain_tokens(caption: str, following: str) -> list[str]:
    tokens = caption.lower().replace(",", " ").split()
    if tokens[-1][-1] == ".":
        word = tokens[-1] = tokens[-1][:-1]
        if len(word) == 1 or word in MAY_KEEP_STOP:
            last_word = caption.rsplit(maxsplit=1)[-1]
            tokens[-1:] = [token.lower() for token in _lexed_tokens(last_word, following) if token != "."]
    if not SPLIT_WORDS.keys().isdisjoint(tokens):
        tokens = [part for token in tokens for part in SPLIT_WORDS.get(token, (token,))]
    return tokens


def _lexed_tokens(caption: str, following: str) -> Iterator[str]:
    """Tokens in their own case, punctuation included, none with a space inside."""
    shadow = shadow_of(caption) + shadow_of(following[:_LOOK_AHEAD]) + UNKNOWN * 2
    position, end = 0, len(caption)
    while position < end:
        if plain := _PLAIN_WORD.match(shadow, position):
            yield from SPLIT_WORDS.get(plain[0].lower(), (plain[0],))
            position = plain.end()
        elif gap := _GAP.match(shadow, position):
            position = gap.end()
        else:
            rule, position_after = _furthest(shadow, position)
            if token := _written(caption[position:position_after], rule):
                yield token
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
    """A token as the treebank writes it; a space inside becomes one that does not break."""
    token = token.replace(" ", "\xa0")
    if rule.spelling == "kept":
        return token
    if rule.spelling == "plain":
        return token.replace(SOFT_HYPHEN, "")
    whole = WRITTEN_AS.get(token.lower())
    if whole is not None:
        return whole
    return "".join(WRITTEN_AS.get(character, character) for character in token.replace("&amp;", "&"))
