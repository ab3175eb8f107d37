"""Caption text to Penn Treebank tokens, token for token what COCO caption scores are computed on.

Published BLEU and CIDEr numbers are taken after the Stanford tokenizer (CoreNLP 3.4.1, lower case) and the removal of
a short list of punctuation. This module gives the same tokens without Java. Its oddities are kept on purpose, since
scores depend on them: brackets stay as "-lrb-" (the list to remove is upper case, the tokens are not), "!!" stays.
"""

from __future__ import annotations

import re

from captrain.metrics.lexicon import PUNCTUATION, RULES, SPLIT_WORDS, WRITTEN_AS
from captrain.metrics.shadow import shadow_of

# A word between spaces, or before a comma or a full stop that ends the caption: nearly all of a common caption.
_PLAIN_CAPTION = re.compile(r"(?:[A-Za-z]+(?:-[A-Za-z]+)*,?(?: +|$))+\Z")
_PLAIN_WORD = re.compile(r"\s*([A-Za-z]{2,}(?:-[A-Za-z]+)*)(?=\s|\Z)|\s+")
_SPLITS = re.compile(r"\b(?:" + "|".join(SPLIT_WORDS) + r")\b")


def tokenize(caption: str) -> list[str]:
    """Lower-case Penn Treebank tokens of a caption, punctuation removed.

    >>> tokenize("A dog doesn't chase John's cat (it cannot).")
    ['a', 'dog', 'does', "n't", 'chase', 'john', "'s", 'cat', '-lrb-', 'it', 'can', 'not', '-rrb-']
    """
    body = caption.strip()
    if body.endswith("."):
        stem = body[:-1].rstrip()
