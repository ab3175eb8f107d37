"""Caption text to Penn Treebank tokens, token for token what COCO caption scores are computed on.

Published BLEU, ROUGE-L and CIDEr numbers are taken after the Stanford tokenizer (CoreNLP 3.4.1, lower case) and the
removal of a short list of punctuation, as in pycocoevalcap 1.2. This module gives the same lines without Java. Their
oddities are kept on purpose, since scores depend on them: brackets stay as "-lrb-" (the list to remove is upper case,
the tokens are not), and so do "!!" and quotes around quotes; "1 1/2" is one token with a no-break space inside.

At each place in a caption the rule that reaches furthest wins, and the earlier one among equals. Each pattern holds the token
as its first group. What it reads beyond that group is context, and counts when lengths are compared ("don't": the rule "word
before n't" reaches to the end and gives "do"). Patterns read the shadow of a caption (`captrain.metrics.lexicon.shadow_of`), in
which one character stands for all letters outside ASCII.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from captrain.metrics import lexicon
from captrain.metrics.lexicon import (
    DIGIT,
    LETTER,
    MARK,
    MAY_KEEP_STOP,
    PUNCTUATION,
    SOFT_HYPHEN,
    SPLIT_WORDS,
    UNKNOWN,
    WRITTEN_AS,
    shadow_of,
)


class Rule(NamedTuple):
    """A pattern whose first group is the token, and how that is written.

    "plain": without soft hyphens; "signs": brackets, quotes and so on take their treebank names; "kept": as it stands.
    """

    match: re.Pattern[str]
    spelling: Literal["plain", "signs", "kept"]


def _rule(pattern: str, spelling: Literal["plain", "signs", "kept"] = "plain") -> Rule:
    return Rule(re.compile(pattern), spelling)


def _any_case(words: list[str]) -> str:
    return "(?i:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


def _partly_any_case(words: list[str]) -> str:
    """Letters written as capitals stand for both cases, the others for themselves."""
    letters = ("".join(f"(?i:{letter})" if letter.isupper() else letter for letter in word) for word in words)
    return "(?:" + "|".join(sorted(letters, key=len, reverse=True)) + ")"


def _capitalized(words: list[str]) -> str:
    return "(?:" + "|".join(f"{word[0].upper()}(?i:{word[1:]})" for word in words) + ")"


# Pieces of the patterns, small to large.
_A = "[A-Za-z]"
_AN = "[A-Za-z0-9]"
_D = f"[0-9{DIGIT}]"
_U = f"[A-Za-z{LETTER}]"
_L = f"[A-Za-z{LETTER}{MARK}{SOFT_HYPHEN}]"  # what a word begins with
_W = f"[A-Za-z0-9{DIGIT}{LETTER}]"  # what a compound is made of
_WORD = f"{_L}[A-Za-z0-9{DIGIT}{LETTER}{MARK}{SOFT_HYPHEN}]*"
_APOSTROPHE = "['\u2019\x92]"
_ANY_APOSTROPHE = "['`\u2018\u2019\x91\x92\u201b]"
_CLITIC = f"{_APOSTROPHE}(?:[dmsDMS]|[lL][lL]|[rR][eE]|[vV][eE])"
_NOT = f"[nN]{_ANY_APOSTROPHE}[tT]"
_SPACE = "[\\s\xa0]"
_TWO_MORE = "[\\s\\S]{2}"
_PART = f"(?:[dDoOlL]{_ANY_APOSTROPHE}{_W})?{_W}+"
_HYPHENATED = f"{_PART}(?:[-_\u058a\u2010\u2011]{_PART})*"
_DASHED = f"{_AN}+(?:-{_A}+){{0,2}}"
_DOTTED = f"{_WORD}(?:[.!?]{_WORD})+"
_SEPARATOR = "[.,:\xad\u066b\u066c]"
_NUMBER = f"(?:{_D}*(?:{_SEPARATOR}{_D}+)+|{_D}+)"
_QUOTES = "[`\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a\xab\xbb\x91\x92\x93\x94]"
_IN_ADDRESS = '[^ \\t\\n\\f\\r"<>|(){}]'
_ADDRESS_END = '[^ \\t\\n\\f\\r"<>|(){}.!?,-]'
_BEFORE_AT = '[^ \xa0\\t\\n\\f\\r"<>|(){}]'
_HOST = '[^ \\t\\n\\f\\r"<>|(){}.!?,]'
_BARE_HOST = "[^ \\t\\n\\f\\r\"`'<>|.!?,0-9\\-_$/:;=@A-Z\\[\\]\\\\^(){}]"
_LABEL = '[^ \xa0\\t\\n\\f\\r"<>|(){}.]'
_PATH = f'(?:/[^ \\t\\n\\f\\r"<>|()]+{_ADDRESS_END})'
_COMPOUND = f"{_AN}[A-Za-z0-9.,{SOFT_HYPHEN}]{{0,99}}(?:-(?:{_A}(?:\\.{_A})+\\.|[A-Za-z0-9{SOFT_HYPHEN}]+))+"
_FRACTION = f"{_D}{{1,4}}[/\u2044]{_D}{{1,4}}"
_TELEPHONE = "[0-9]{3,4}[- \xa0]?[0-9]{3,5}"
_APOSTROPHE_WORDS = "|".join(
    [
        f"[dDlLnNoO]{_ANY_APOSTROPHE}{_U}{{2,}}",  # d'oeuvre
        f"{_U}+[aeiouyAEIOUY]{_ANY_APOSTROPHE}[aeiouA-Z]{_U}*",  # ma'am, McO'Neil
        f"[A-HJ-XZ]{_ANY_APOSTROPHE}{_U}{{2,}}",  # M'Baye, but not I'ma or Y'know
        f"[oO]{_ANY_APOSTROPHE}[oO]",
        f"(?i:c{_APOSTROPHE}est|[djl]{_APOSTROPHE}|ol{_APOSTROPHE})",
        "(?i:li'l|e'er|ev'ry|s'mores|c'mon)",
    ]
)

# http://x.y; www.x.com; x+y.com; a@b.c
_ADDRESSES = [
    _rule(f"((?i:https?://){_IN_ADDRESS}+{_ADDRESS_END})", "kept"),
    _rule(f"((?i:www\\.)(?:{_HOST}+\\.)+{_A}{{2,4}}{_PATH}?)", "kept"),
    _rule(f"((?:{_BARE_HOST}{{1,255}}\\.)+(?i:com|net|org|edu){_PATH}?)", "kept"),
    _rule(f"(<?{_AN}{_BEFORE_AT}{{0,299}}@(?:{_LABEL}+\\.)*{_LABEL}+>?)", "kept"),
]

_STOPPED = f"((?:{_HYPHENATED}|{_WORD}|{_DOTTED}|{_COMPOUND})\\.)[,:;\u3001]"

_FILE = (
    f"({_W}+(?:\\.{_W}+)*\\.(?i:bat|bmp|cgi|class|cpp|c|dll|docx?|exe|gif|gz|html?|h|jar|java|jpe?g|mov|pdf|php|pl|"
    "png|ppt|ps|py|sql|tar|txt|wav|xml|x|zip))[\\s.,!?]"
)

_NAME_REST = "[-.:A-Za-z0-9_]*"
_IN_LINE = "[ \\t\xa0]"
_ATTRIBUTE = f"{_IN_LINE}+{_A}{_NAME_REST}(?:{_IN_LINE}*={_IN_LINE}*(?:\"[^\"]*\"|'[^']*'))?"
_OPENING = f"{_A}{_NAME_REST}(?:{_ATTRIBUTE})*{_IN_LINE}*(?:/{_IN_LINE}*)?"
_TAG = f"<(?:[!?][-A-Za-z][^>\\r\\n]{{0,999}}|/{_A}{_NAME_REST}{_IN_LINE}*|{_OPENING})>"

# The lists below stand in order of preference, for rules that reach equally far.
LETTER_RULES = [
    # a number after a soft hyphen; cannot, gonna: first half
    _rule(f"({_NUMBER})"),
    _rule("((?i:can(?=not)|wan(?=na)|gon(?=na)|got(?=ta)|gim(?=me)|lem(?=me)))(?i:not|na|ta|me)"),
    # dog; do before n't; n't; it before 's
    _rule(f"({_WORD})"),
    _rule(f"([A-Za-z{SOFT_HYPHEN}]*[A-MO-Za-mo-z]{SOFT_HYPHEN}*){_NOT}"),
    _rule(f"({_NOT})", "signs"),
    _rule(f"({_WORD}){_CLITIC}"),
    # d'oeuvre, ma'am; y' of y'all
    _rule(f"({_APOSTROPHE_WORDS})"),
    _rule(f"([yY]{_APOSTROPHE}){_U}"),
    # mother-in-law, a_b; end. before a comma; and/or
    _rule(f"({_HYPHENATED})"),
    _rule(_STOPPED),
    _rule(f"({_DASHED}(?:\\\\?/{_DASHED}){{1,2}})"),
    # pro- and anti- before a quote or a space
    _rule("((?i:pro|anti)-)"),
    # dog.cat, yahoo!s; addresses; Mr., etc.
    _rule(f"({_DOTTED})"),
    _rule(f"({_DOTTED}){_CLITIC}"),
    *_ADDRESSES,
    _rule(f"({_any_case(lexicon.TITLES)}\\.)"),
    _rule(f"({_any_case(lexicon.ABBREVIATIONS)}\\.){_TWO_MORE}"),
    _rule(f"({_partly_any_case(lexicon.TITLES_PARTLY_LOWER)}\\.)"),
    _rule(f"({_partly_any_case(lexicon.ABBREVIATIONS_PARTLY_LOWER)}\\.){_TWO_MORE}"),
    _rule(f"({_capitalized(lexicon.ABBREVIATIONS_CAPITALIZED)}\\.){_TWO_MORE}"),
    _rule(f"((?i:ph\\.d)\\.){_TWO_MORE}"),
    # 5,000-foot, U.S.-led
    _rule(f"({_COMPOUND})"),
    # U.S.; initials, and those that end a sentence; no. 5
    _rule(f"({_A}(?:\\.{_A})+\\.?)"),
    _rule(f"({_A}\\.)"),
    _rule(f"({_A})\\.{_SPACE}+(?:{_capitalized(lexicon.SENTENCE_STARTS)}|M[rs]\\.|{_TAG}){_SPACE}"),
    _rule(f"({_any_case(lexicon.ABBREVIATIONS_BEFORE_NUMBER)}\\.){_SPACE}?{_D}"),
    # AT&T; US$; C++, C#; x_x
    _rule("([A-Z]+(?:(?:[&+]|&(?i:amp);)[A-Z]+)+)", "signs"),
    _rule("([A-Z]+\\$)"),
    _rule("([cC]\\+\\+|[cCfF]#)"),
    _rule("(x_[-^x=~<>'])"),
    # photo.2.jpg
    _rule(_FILE),
]

NUMBER_RULES = [
    # 1. before a comma; 1,000.5; 3-D, 1.5-inch; 22 1/2; 555 123 4567; 1/2-34; 3.jpg; 24/7
    _rule(_STOPPED),
    _rule(f"({_NUMBER})"),
    _rule(f"({_HYPHENATED})"),
    _rule(f"({_COMPOUND})"),
    _rule(f"({_D}{{1,4}}[- \xa0]{_FRACTION}|{_FRACTION})"),
    _rule(f"((?:[0-9]{{2,4}}[- \xa0]){{1,2}}{_TELEPHONE})"),
    _rule(f"({_D}{{1,2}}[-/]{_D}{{1,2}}[-/]{_D}{{2,4}})"),
    _rule(_FILE),
    _rule(f"({_DASHED}(?:\\\\?/{_DASHED}){{1,2}})"),
    *_ADDRESSES,
]

SIGN_RULES = [
    # -5, .5
    _rule(f"([-+]{_NUMBER}|{_NUMBER})"),
    # 's, 'em, 'n', 't of 'tis, '90s
    _rule(f"({_CLITIC})[^A-Za-z]", "signs"),
    _rule("([\u2019\x92](?:[dmsDMS]|[lL][lL]|[rR][eE]|[vV][eE]))", "signs"),
    _rule(f"({_APOSTROPHE}(?i:em|till?|cause|n{_APOSTROPHE}?))"),
    _rule("('[tT])(?i:is|was)"),
    _rule(f"({_APOSTROPHE}[0-9]0[sS])"),
    _rule(f"({_APOSTROPHE}[0-9]{{2}}){_SPACE}"),
    # an opening quote; curly quotes, two by two
    _rule("(')[A-Za-z][^ \\t\\n\\r]"),
    _rule(f"({_QUOTES}{{1,2}})", "signs"),
    # -LRB- as treebanks write a bracket; runs of one sign; superscripts; dashes
    _rule("(-(?i:[lr][rcs]b)-)"),
    _rule("(''|[!?]+|\\*+|\\\\\\*|#+|_+|-{5,}|<<|>>|@+)"),
    _rule("([\u207a\u207b\u208a\u208b]?(?:[\u00b2\u00b3\u00b9\u2070-\u2079]+|[\u2080-\u2089]+))"),
    _rule("(-{2,4})", "signs"),
    # faces
    _rule("([<>]?[:;=][-o*']?[DOPdp|\\\\{@\\[\\]])(?![A-Za-z0-9])"),
    _rule("([<>]?[:;=][-o*']?[()])(?![A-Za-z0-9])", "signs"),
    _rule("([-^x=~<>']_[-^x=~<>'])"),
    _rule("(\\([-^x=~<>'][-_.]?[-^x=~<>']\\))", "signs"),
    # (555) 123-4567; <br>; @name; #tag; &amp;; whatever is left
    _rule(f"(\\([0-9]{{2,3}}\\)[ \xa0]?{_TELEPHONE})", "signs"),
    _rule(f"(\\+{{1,2}}(?:[0-9]{{2,4}}[- \xa0]){{1,2}}{_TELEPHONE})"),
    _rule(f"({_TAG})"),
    _rule("(@[A-Za-z_][A-Za-z0-9_]*)"),
    _rule(f"(#{_L}+)", "kept"),
    _rule("(&(?:#[0-9]+|(?i:amp|lt|gt|quot|nbsp)|apos|mdash|ndash);)", "signs"),
    _rule("([\\s\\S])", "signs"),
    *_ADDRESSES,
]


# Nearly every caption: ASCII words with spaces, commas and inner hyphens between them, and a full stop at the end.
_PLAIN_CAPTION = re.compile(r"[A-Za-z]+(?:(?:-|,? +)[A-Za-z]+)*(?:[ ,]*|\.)")
# Within other captions: what is between tokens, and words that no rule would extend.
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
