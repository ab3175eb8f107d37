"""The words that the tokenizer knows by heart: abbreviations, contractions, punctuation to remove.

Found by asking the reference tokenizer (CoreNLP 3.4.1) about every string of up to four letters and many longer words.

What the tokenizer sees in place of each character: one representative for all letters, one for all unknown signs.

The token rules then speak of a few dozen characters only. The reference tokenizer knows the Unicode of 2010 and no
character beyond the basic plane, so emoji and newer scripts vanish from captions, as they do in published scores.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right


def _words(text: str) -> list[str]:
    return text.split()


# Tokens that the COCO caption protocol removes. Its list also has "-LRB-" and so on, but tokens are lower case.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# One word on paper, two in the treebank.
SPLIT_WORDS = {
    "cannot": ("can", "not"),
    "gimme": ("gim", "me"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "lemme": ("lem", "me"),
    "wanna": ("wan", "na"),
}

# The full stop belongs to these words, in any case, whatever follows ("Mr.Bean" stays one token).
TITLES = _words(
    """
    adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft
    gen gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs
    pvt rep reps rev sen sens sfc sgt spc st ste supt supts treas vs wm
    """
)
# To these too, even before a single letter ("etc.x" is two tokens).
ABBREVIATIONS = _words(
    """
    al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb fla
    fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn
    plc rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo
    """
)
# The same two, where letters that are small here must be small; then only with a capital; then only before a number.
TITLES_PARTLY_LOWER = _words("MfG MtG")
ABBREVIATIONS_PARTLY_LOWER = _words("PPTe PPTeS PPTy PPTyS PTe PTeS PTy PTyS")
ABBREVIATIONS_CAPITALIZED = _words("ark az del ill la mass miss ore pa tex wash")
ABBREVIATIONS_BEFORE_NUMBER = _words("art ca fig figs no nos op pp prop")

# After an initial ("vitamin C. The ..."), these words begin a new sentence: the full stop is not the initial's.
SENTENCE_STARTS = _words(
    """
    a about according additionally after an as at but earlier he her here however if in it last many more now once one
    other our she since so some such that the their then there these they this we what when while yet you
    """
)

MAY_KEEP_STOP = frozenset(
    word.lower()
    for word in [
        *TITLES,
        *ABBREVIATIONS,
        *TITLES_PARTLY_LOWER,
        *ABBREVIATIONS_PARTLY_LOWER,
        *ABBREVIATIONS_CAPITALIZED,
        *ABBREVIATIONS_BEFORE_NUMBER,
    ]
)

# Signs that the treebank writes otherwise.
WRITTEN_AS = {
    '"': "''",
    "---": "--",
    "----": "--",
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "&quot;": "''",
    "&apos;": "'",
    "&nbsp;": "",
    "&mdash;": "--",
    "&ndash;": "--",
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "\x96": "--",
    "\x97": "--",
    "\u2013": "--",
    "\u2014": "--",
    "\u2015": "--",
    "\xad": "-",
    "\x85": "...",
    "\u2026": "...",
    "\x80": "$",
    "\xa4": "$",
    "\u20a0": "$",
    "\u20ac": "$",
    "\xa3": "#",
    "\xa2": "cents",
    "\xbc": "1/4",
    "\xbd": "1/2",
    "\xbe": "3/4",
    "\u2153": "1/3",
    "\u2154": "2/3",
    "\x91": "`",
    "\u2018": "`",
    "\u201b": "`",
    "\u2039": "`",
    "\x92": "'",
    "\u2019": "'",
    "\u203a": "'",
    "\x93": "``",
    "\xab": "``",
    "\u201c": "``",
    "\x94": "''",
    "\xbb": "''",
    "\u201d": "''",
}


LETTER = "\xe9"
"""Stands for every letter outside ASCII."""
DIGIT = "\u0660"
"""Stands for every digit outside ASCII."""
MARK = "\xea"
"""Stands for every mark that joins a word but not a number."""
SOFT_HYPHEN = "\xad"
"""A letter to the rules; most tokens lose it."""
UNKNOWN = "\x00"
"""Stands for whatever the reference tokenizer drops: it ends a token and leaves none."""

# Ranges of code points, in hexadecimal, as the reference tokenizer treats them.
_MARKS = (
    "2c2-2c5 2d2-2df 2e5-2eb 2ed 2ef-36f 375 378-379 384-385 3f6 483-487 55a-55f 591-5bd 5bf 5c1-5c2 5c4-5c5 5c7 "
    "615-61a 64b-65e 670 6d6-6e4 6e7-6ed 6fd-6fe 70f 711 730-74c 7a6-7b0 7eb-7f3 900-903 93c 93e-94e 951-955 "
    "962-963 981-983 9bc 9be-9c4 9c7-9c8 9cb-9cd 9d7 9e2-9e3 a01-a03 a3c a3e-a4f a81-a83 abc abe-acf b82 bbe-bc2 "
    "bc6-bc8 bca-bcd c01-c03 c3e-c56 d3e-d44 d46-d48 e31 e34-e3a e47-e4e eb1 eb4-ebc ec8-ecd "
)
_SIGNS = (
    "a1 a5-a9 ac ae-b1 b4 b6-b8 bf d7 f7 37e 387 589 5be 5c0 5c3 5c6 5f3-5f4 600-603 606-60c 614 61b 61e-61f 66a "
    "66d 6d4 700-70d 7f6-7f8 964-965 e3f e4f 1fbd 2016-2017 2020-2023 2030-2038 203b 203e-2042 207a-207e "
    "208a-208e 20a4 2100-2101 2103-2106 2108-2109 2114 2116-2118 211e-2123 2125 2127 2129 212e 213a-213b "
    "2140-2144 214a-214d 214f 2155-215e 2190-2bff 3001-3002 3012 30fb ff01-ff0f ff1a-ff20 ff3b-ff40 ff5b-ff65 "
    "ffe0-ffe1 ffe5-ffe6 "
)
# Letters and digits that Unicode has got since, which the reference tokenizer drops; and two that are no letters now.
_LATER = (
    "37f 528-52f 558 560 588 58b-58c 5ef 860-86a 870-887 889-88f 8a1 8ad-8c9 978 980 9fc af9 c34 c5a c5c-c5d c80 "
    "cdc-cdd d04 d54-d56 d5f de6-def e86 e89 e8c e8e-e93 e98 ea0 ea8-ea9 eac 13f5 13f8-13fd 16f1-16f8 170d 171f "
    "1878 191d-191e 19b0-19c0 19c8-19c9 1b4c 1c80-1c8a 1c90-1cba 1cbd-1cbf 1cf2-1cf3 1cfa 208f 209d-209f 2c2f "
    "2c5f 312e-312f 31bb-31bf 4db6-4dbf 9fcd-9fff a698-a69d a78f a794-a79f a7ab-a7dd a7e2 a7f1-a7f7 a8fd-a8fe "
    "a9e0-a9e4 a9e6-a9fe aa7e-aa7f ab30-ab5a ab5c-ab69 ab6c-ab6d ab70-abbf "
)
_ONCE_LETTERS = frozenset("\u1885\u1886")
# Signs that the rules name one by one: spaces, quotes, dashes, currencies, fractions, superscripts, number separators.
_NAMED = frozenset(
    "\t\n\x0b\x0c\r\x80\x85\x91\x92\x93\x94\x96\x97\xa0\xa2\xa3\xa4\xab\xad\xb2\xb3\xb9\xbb\xbc\xbd\xbe"
    "\u058a\u066b\u066c\u2010\u2011\u2013\u2014\u2015\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2026\u2028\u2029"
    "\u2039\u203a\u2044\u2070\u2074\u2075\u2076\u2077\u2078\u2079\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089"
    "\u20a0\u20ac\u2153\u2154"
)


def shadow_of(caption: str) -> str:
    """The caption, character for character, in the small alphabet of the token rules.

    >>> shadow_of("a caf\u00e9 \u65e5")
    'a caf\xe9 \xe9'
    """
    if caption.isascii() and caption.isprintable():
        return caption
    return caption.translate(_SHADOW)


class _Shadow(dict[int, str]):
    """A translation table that fills itself: only characters that were met are looked up and kept."""

    def __missing__(self, code: int) -> str:
        seen = _seen_as(code)
        self[code] = seen
        return seen


def _seen_as(code: int) -> str:
    character = chr(code)
    if 32 <= code < 127 or character in _NAMED:
        return character
    if code > 0xFFFF or _within(code, _LATER_BOUNDS):
        return UNKNOWN
    category = unicodedata.category(character)
    if category[0] == "L" or character in _ONCE_LETTERS:
        return LETTER
    if category == "Nd":
        return DIGIT
    if _within(code, _MARK_BOUNDS):
        return MARK
    return character if _within(code, _SIGN_BOUNDS) else UNKNOWN


def _within(code: int, bounds: list[int]) -> bool:
    return bisect_right(bounds, code) % 2 == 1


def _bounds(ranges: str) -> list[int]:
    """First and one-past-last code of each range, flat and ascending, so that an odd insertion point is inside.

    >>> _bounds("a1 a5-a9")
    [161, 162, 165, 170]
    """
    bounds: list[int] = []
    for part in ranges.split():
        first, _, last = part.partition("-")
        bounds += [int(first, 16), int(last or first, 16) + 1]
    return bounds


_LATER_BOUNDS = _bounds(_LATER)
_MARK_BOUNDS = _bounds(_MARKS)
_SIGN_BOUNDS = _bounds(_SIGNS)
_SHADOW = _Shadow()
