"""The words that the tokenizer knows by heart: abbreviations, contractions, punctuation to remove.

Found by asking the reference tokenizer (CoreNLP 3.4.1) about every string of up to four letters and many longer words.
"""

from __future__ import annotations


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
