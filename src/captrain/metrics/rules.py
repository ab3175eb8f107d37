"""The token rules: at each place in a caption the rule that reaches furthest wins, the earlier one among equals.

Each pattern holds the token as its first group; what it reads beyond that group is context, and counts when lengths are
compared ("don't": the rule "word before n't" reaches to the end and gives "do"). Patterns read the shadow of a caption
(see `alphabet`), where one character stands for all letters outside ASCII.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from captrain.metrics import lexicon
from captrain.metrics.alphabet import LETTER, MARK


class Rule(NamedTuple):
    """A pattern whose first group is the token; `rewritten` when signs in the token take their treebank names."""

    match: re.Pattern[str]
    rewritten: bool


def _rule(pattern: str, rewritten: bool = False) -> Rule:
    return Rule(re.compile(pattern), rewritten)


def _either(words: list[str], *cases: str) -> str:
    written = {getattr(word, case)() for word in words for case in cases}
    return "(?:" + "|".join(sorted(written, key=len, reverse=True)) + ")"


def _any_case(words: list[str]) -> str:
    return "(?i:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


# Pieces of the patterns, small to large.
_A = "[A-Za-z]"
_AN = "[A-Za-z0-9]"
_L = f"[A-Za-z{LETTER}{MARK}]"  # what a word begins with
_W = f"[A-Za-z0-9{LETTER}]"  # what a compound is made of
_WORD = f"{_L}[A-Za-z0-9{LETTER}{MARK}\xad]*"
_APOSTROPHE = "['\u2019\x92]"
_ANY_APOSTROPHE = "['`\u2018\u2019\x91\x92\u201b]"
_HYPHEN = "[-_\u058a\u2010\u2011]"
_CLITIC = f"{_APOSTROPHE}(?:[dmsDMS]|[lL][lL]|[rR][eE]|[vV][eE])"
_NOT = f"[nN]{_ANY_APOSTROPHE}[tT]"
_SPACE = "[\\s\xa0]"
_PART = f"(?:[dDoOlL]{_APOSTROPHE}{_W})?{_W}+"
_DASHED = f"{_AN}+(?:-{_A}+){{0,2}}"
_DOTTED = f"{_WORD}(?:[.!?]{_WORD})+"
_SEPARATOR = "[.,:\xad\u066b\u066c\u2044]"
_NUMBER = f"(?:[0-9]*(?:{_SEPARATOR}[0-9]+)+|[0-9]+)"
_QUOTES = "[`\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a\xab\xbb\x91\x92\x93\x94]"
_IN_ADDRESS = '[^ \\t\\n\\f\\r"<>|(){}]'
_ADDRESS_END = '[^ \\t\\n\\f\\r"<>|(){}.!?,-]'
_HOST = '[^ \\t\\n\\f\\r"<>|(){}.!?,]'
_BARE_HOST = "[^ \\t\\n\\f\\r\"`'<>|.!?,0-9\\-_$/:;=@A-Z\\[\\]\\\\^(){}]"
_LABEL = '[^ \\t\\n\\f\\r"<>|(){}.]'
_PATH = f'(?:/[^ \\t\\n\\f\\r"<>|()]+{_ADDRESS_END})'
_COMPOUND = f"{_AN}[A-Za-z0-9.,]{{0,99}}(?:-(?:{_A}(?:\\.{_A})+\\.|{_AN}+))+"
_MIXED_FRACTION = "[0-9]{1,4}[- \xa0][0-9]{1,4}/[0-9]{1,4}"
_APOSTROPHE_WORDS = "|".join(
    [
        f"[dDlLnNoO]{_ANY_APOSTROPHE}{_L}{{2,}}",  # d'oeuvre
        f"{_L}+[aeiouyAEIOUY]{_ANY_APOSTROPHE}[aeiouA-Z]{_L}*",  # ma'am, McO'Neil
        f"[A-Z]{_ANY_APOSTROPHE}{_L}{{2,}}",  # M'Baye
        f"[oO]{_ANY_APOSTROPHE}[oO]",
        f"(?i:c{_APOSTROPHE}est|[djl]{_APOSTROPHE}|ol{_APOSTROPHE})",
        "(?i:li'l|e'er|ev'ry|s'mores|c'mon)",
    ]
)

# http://x.y; www.x.com; x+y.com; a@b.c
_ADDRESSES = [
    _rule(f"((?i:https?://){_IN_ADDRESS}+{_ADDRESS_END})"),
    _rule(f"((?i:www\\.)(?:{_HOST}+\\.)+{_A}{{2,4}}{_PATH}?)"),
    _rule(f"((?:{_BARE_HOST}+\\.)+(?i:com|net|org|edu){_PATH}?)"),
    _rule(f"(<?{_AN}{_IN_ADDRESS}{{0,299}}@(?:{_LABEL}+\\.)*{_LABEL}+>?)"),
]

_STOPPED = f"({_PART}(?:{_HYPHEN}{_PART})*\\.|{_DOTTED}\\.)[,:;]"

# The lists below stand in order of preference, for rules that reach equally far.
_FILE = (
    f"({_W}+(?:\\.{_W}+)*\\.(?i:bat|bmp|cgi|class|cpp|c|dll|docx?|exe|gif|gz|html?|h|jar|java|jpe?g|mov|pdf|php|pl|"
    "png|ppt|ps|py|sql|tar|txt|wav|xml|x|zip))[\\s.,!?]"
)

LETTER_RULES = [
    # cannot, gonna: first half
    _rule("((?i:can(?=not)|wan(?=na)|gon(?=na)|got(?=ta)|gim(?=me)|lem(?=me)))(?i:not|na|ta|me)"),
    # dog; do before n't; n't; it before 's
    _rule(f"({_WORD})"),
    _rule(f"({_A}*[A-MO-Za-mo-z]){_NOT}"),
    _rule(f"({_NOT})", rewritten=True),
    _rule(f"({_WORD}){_CLITIC}"),
    # d'oeuvre, ma'am; y' of y'all
    _rule(f"({_APOSTROPHE_WORDS})"),
    _rule(f"([yY]{_APOSTROPHE}){_L}"),
    # mother-in-law, a_b; end. before a comma; and/or
    _rule(f"({_PART}(?:{_HYPHEN}{_PART})*)"),
    _rule(_STOPPED),
    _rule(f"({_DASHED}(?:\\\\?/{_DASHED}){{1,2}})"),
    # Mr., etc.
    _rule(f"({_any_case(lexicon.TITLES)}\\.)"),
    _rule(f"({_any_case(lexicon.ABBREVIATIONS)}\\.)[\\s\\S]"),
    _rule(f"({_either(lexicon.TITLES_NOT_UPPER, 'lower', 'capitalize')}\\.)"),
    _rule(f"({_either(lexicon.ABBREVIATIONS_NOT_UPPER, 'lower', 'capitalize')}\\.)[\\s\\S]"),
    _rule(f"({_either(lexicon.ABBREVIATIONS_CAPITALIZED, 'upper', 'capitalize')}\\.)[\\s\\S]"),
    # dog.cat, yahoo!s; 5,000-foot, U.S.-led
    _rule(f"({_DOTTED})"),
    _rule(f"({_COMPOUND})"),
    # U.S.; initials, and those that end a sentence; no. 5; Ph.D.
    _rule(f"({_A}(?:\\.{_A})+\\.?)"),
    _rule(f"({_A}\\.)"),
    _rule(f"({_A})\\.{_SPACE}+(?:{_either(lexicon.SENTENCE_STARTS, 'capitalize', 'upper')}(?:{_SPACE}|\\Z)|M[rs]\\.)"),
    _rule(f"({_any_case(lexicon.ABBREVIATIONS_BEFORE_NUMBER)}\\.){_SPACE}*[0-9]"),
    _rule("((?i:ph\\.d)\\.)"),
    # AT&T; US$; C++, C#; x_x
    _rule("([A-Z]+(?:(?:[&+]|&(?i:amp);)[A-Z]+)+)", rewritten=True),
    _rule("([A-Z]+\\$)"),
    _rule("([cC]\\+\\+|[cCfF]#)"),
    _rule("(x_[-^x=~<>'])"),
    *_ADDRESSES,
]

NUMBER_RULES = [
    # 1. before a comma; 1,000.5; 3-D, 1.5-inch; 22 1/2; 555 123 4567; 1/2-34; 3.jpg; 24/7
    _rule(_STOPPED),
    _rule(f"({_NUMBER})"),
    _rule(f"({_PART}(?:{_HYPHEN}{_PART})*)"),
    _rule(f"({_COMPOUND})"),
    _rule(f"({_MIXED_FRACTION})"),
    _rule("([0-9]{2,4}[- \xa0][0-9]{3,4}[- \xa0][0-9]{3,5})"),
    _rule("([0-9]{1,2}[-/][0-9]{1,2}[-/][0-9]{2,4})"),
    _rule(_FILE),
    _rule(f"({_DASHED}(?:\\\\?/{_DASHED}){{1,2}})"),
    *_ADDRESSES,
]

_NAME_REST = "[-.:A-Za-z0-9_]*"
_ATTRIBUTE = f"{_SPACE}+{_A}{_NAME_REST}(?:{_SPACE}*={_SPACE}*(?:\"[^\"]*\"|'[^']*'))?"
_OPENING = f"[A-Za-z_]{_NAME_REST}(?:{_ATTRIBUTE})*{_SPACE}*/?"
_TAG = f"<(?:[!?][-A-Za-z][^>\\r\\n]{{0,999}}|/{_A}{_NAME_REST}{_SPACE}*|{_OPENING})>"
SIGN_RULES = [
    # -5, .5
    _rule(f"([-+]{_NUMBER}|{_NUMBER})"),
    # 's, 'em, 'n', 't of 'tis, '90s
    _rule(f"({_CLITIC})[^A-Za-z]", rewritten=True),
    _rule("([\u2019\x92](?:[dmsDMS]|[lL][lL]|[rR][eE]|[vV][eE]))", rewritten=True),
    _rule(f"({_APOSTROPHE}(?i:em|till?|cause|n{_APOSTROPHE}?))"),
    _rule("('[tT])(?i:is|was)"),
    _rule(f"({_APOSTROPHE}[0-9]{{2}}[sS])"),
    _rule(f"({_APOSTROPHE}[0-9]{{2}}){_SPACE}"),
    # an opening quote; curly quotes, two by two
    _rule("(')[A-Za-z][^ \\t\\n\\r]"),
    _rule(f"({_QUOTES}{{1,2}})", rewritten=True),
    # runs of one sign; superscripts; dashes
    _rule("(''|[!?]+|\\*+|\\\\\\*|#+|_+|-{5,}|<<|>>|@+)"),
    _rule("([\u00b2\u00b3\u00b9\u2070-\u2089]+)"),
    _rule("(-{2,4})", rewritten=True),
    # faces
    _rule("([<>]?[:;=][-o*']?[DOPdp|\\\\{@\\[\\]])(?![A-Za-z0-9])"),
    _rule("([<>]?[:;=][-o*']?[()])(?![A-Za-z0-9])", rewritten=True),
    _rule("([-^x=~<>']_[-^x=~<>'])"),
    _rule("(\\([-^x=~<>']_[-^x=~<>']\\))", rewritten=True),
    # (555) 123-4567; <br>; @name; #tag; &amp;; whatever is left
    _rule("(\\([0-9]{2,3}\\)[ \xa0]?[0-9]{3,4}[- \xa0]?[0-9]{4})", rewritten=True),
    _rule(f"({_TAG})"),
    _rule("(@[A-Za-z_][A-Za-z0-9_]*)"),
    _rule(f"(#{_L}+)"),
    _rule("(&(?:#[0-9]+|(?i:amp|lt|gt|quot|nbsp)|apos|mdash|ndash);)", rewritten=True),
    _rule("([\\s\\S])", rewritten=True),
    *_ADDRESSES,
]
