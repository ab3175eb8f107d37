"""Which evaluation is the best: by the score that was asked for, then by the validation loss.

A training keeps the weights of the best evaluation and counts patience by this rule; a report marks the best checkpoint by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from captrain.metrics.score import METRICS, score_captions

LOSS = "validation_loss"
SAME = 9
"""Decimals to which scores are compared: smaller differences are rounding of sums."""
USELESS = 0.01
"""A score that even a caption copied from the references does not reach says nothing of the others."""


def merit(scores: Mapping[str, Any], metric: str) -> tuple[float, float]:
    """How good an evaluation is, by its scores: greater is better. A non-finite score counts as the worst.

    >>> merit({"cider": 0.5, "validation_loss": 2.0}, "cider")
    (0.5, -2.0)
    >>> merit({"cider": 0.0, "validation_loss": 2.0}, "cider") < merit({"cider": 9.9e-14, "validation_loss": 1.9}, "cider")
    True
    """
    value, loss = _number(scores.get(metric), -math.inf), -_number(scores.get(LOSS), math.inf)
    return (loss if metric == LOSS else value), loss


def is_better(scores: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]], metric: str) -> bool:
    """Whether an evaluation is better than all earlier ones; the first one is.

    >>> is_better({"cider": 0.0, "validation_loss": 1.5}, [{"cider": 0.0, "validation_loss": 2.0}], "cider")
    True
    """
    return all(merit(scores, metric) > merit(other, metric) for other in earlier)


def since_best(evaluations: Sequence[Mapping[str, Any]], metric: str) -> int:
    """How many evaluations came after the best one.

    >>> since_best([{"cider": 0.1}, {"cider": 0.3}, {"cider": 0.2}], "cider")
    1
    """
    merits = [merit(scores, metric) for scores in evaluations]
    return len(merits) - 1 - merits.index(max(merits)) if merits else 0


def is_constant(evaluations: Sequence[Mapping[str, Any]], metric: str) -> bool:
    """Whether a score is the same in two evaluations or more.

    >>> is_constant([{"cider": 0.0}, {"cider": 0.0}], "cider"), is_constant([{"cider": 0.0}], "cider")
    (True, False)
    """
    return metric != LOSS and len(evaluations) > 1 and len({merit(scores, metric)[0] for scores in evaluations}) == 1


def blind_spot(references: Mapping[str, Sequence[str]], metric: str, tokenizer: str) -> str | None:
    """Why a score can't tell captions of these references apart, or None if it can.

    The references themselves are scored as captions: if they score nothing, no caption can.

    >>> blind_spot({"1": ["a dog runs on grass"]}, "cider", "ptb")
    'cider is always 0 with one picture to validate on, as it weighs words by how few pictures mention them'
    """
    names = {"cider_and_bleu_4": ("cider", "bleu_4")}.get(metric, (metric,))
    if not references or any(name not in METRICS for name in names):
        return None
    copied = {id: max(texts, key=len) for id, texts in references.items()}
    found = score_captions(copied, references, names, tokenizer=tokenizer).scores
    reached = sum(found[name] for name in names)
    if reached >= USELESS:
        return None
    if len(references) == 1 and metric == "cider":
        return "cider is always 0 with one picture to validate on, as it weighs words by how few pictures mention them"
    return f"{metric} of captions copied from the references themselves is {reached:.4f}"


def _number(value: Any, otherwise: float) -> float:
    """A finite number, rounded; a non-finite one is the worst there is."""
    finite = isinstance(value, int | float) and math.isfinite(value)
    return round(float(value), SAME) + 0.0 if finite else otherwise
