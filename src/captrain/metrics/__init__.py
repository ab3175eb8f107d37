"""Caption scores as papers compute them, without Java. Nothing here needs torch.

>>> from captrain import metrics
>>> metrics.tokenize("A dog doesn't run.")
['a', 'dog', 'does', "n't", 'run']
"""

from __future__ import annotations

from captrain.metrics.frequencies import DocumentFrequencies
from captrain.metrics.score import Scorer, Scores, score_captions
from captrain.metrics.tokenizer import tokenize

__all__ = ["DocumentFrequencies", "Scorer", "Scores", "score_captions", "tokenize"]
