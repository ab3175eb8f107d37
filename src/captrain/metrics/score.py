"""Captions against references: the scores that papers report, for a whole set and for each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from captrain.errors import DataError, UserError, nearest
from captrain.metrics.ngrams import Candidates, MetricScores, References
from captrain.metrics.tokenizer import tokenize_lines

METRICS = {
    "bleu_1": "captrain.metrics.bleu:score_bleu",
    "bleu_2": "captrain.metrics.bleu:score_bleu",
    "bleu_3": "captrain.metrics.bleu:score_bleu",
    "bleu_4": "captrain.metrics.bleu:score_bleu",
    "cider": "captrain.metrics.cider:score_cider",
}
"""Metric name to the function that computes it (and its siblings: one BLEU brings all four), loaded when asked for."""


@dataclass(frozen=True)
class Scores:
    """Scores of a set of captions. BLEU lies in [0, 1], CIDEr in [0, 10] (papers print both times 100)."""

    scores: dict[str, float]
    images: int
    per_image: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """What `scores.json` holds.

        >>> Scores({"bleu_4": 0.5}, 2, {}).to_dict()
        {'scores': {'bleu_4': 0.5}, 'images': 2}
        """
        return {"scores": dict(self.scores), "images": self.images}


def score_captions(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str] = ("bleu_4", "cider"),
) -> Scores:
    """Score one caption an image against that image's references, all plain text.

    An empty caption scores 0. CIDEr weighs words by how few images mention them, so it is 0 for a single image.
    Raises `DataError` when ids do not match or an image has no reference, `UserError` for an unknown metric.

    >>> captions = {"1": "a dog runs on grass", "2": "two cats sleep"}
    >>> result = score_captions(captions, {"1": ["A dog runs on grass."], "2": ["Two cats sleep on a sofa."]})
    >>> {name: round(value, 3) for name, value in result.scores.items()}
    {'bleu_1': 0.687, 'bleu_2': 0.687, 'bleu_3': 0.687, 'bleu_4': 0.687, 'cider': 7.205}
    """
    functions = [_load(place) for place in _places(metrics)]
    _check_inputs(predictions, references)
    candidates = dict(zip(predictions, tokenize_lines(list(predictions.values())), strict=True))
    tokenized = _tokenize_references(references)
    scores: dict[str, float] = {}
    per_image: dict[str, dict[str, float]] = {id: {} for id in predictions}
    for function in functions:
        of_set, of_images = function(candidates, tokenized)
        scores.update(of_set)
        for id, values in of_images.items():
            per_image[id].update(values)
    return Scores(scores, len(predictions), per_image)


def _tokenize_references(references: Mapping[str, Sequence[str]]) -> References:
    """Tokens of all references, in one pass over them in their order, as the reference implementation does it."""
    tokens = iter(tokenize_lines([caption for captions in references.values() for caption in captions]))
    return {id: [next(tokens) for _ in captions] for id, captions in references.items()}


def _places(metrics: Sequence[str]) -> list[str]:
    """Where the asked metrics are computed, each place once."""
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"unknown metric '{name}'.{nearest(name, METRICS)} Known: {', '.join(METRICS)}")
    return list(dict.fromkeys(METRICS[name] for name in metrics))


def _load(place: str) -> Callable[[Candidates, References], MetricScores]:
    module, _, name = place.partition(":")
    function: Callable[[Candidates, References], MetricScores] = getattr(import_module(module), name)
    return function


def _check_inputs(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    if not predictions and not references:
        raise DataError("nothing to score: found no captions and no references")
    if missing := [id for id in references if id not in predictions]:
        raise DataError(
            f"{len(missing)} of {len(references)} images with references have no caption ({_some(missing)}); "
            "caption them, or leave out their references"
        )
    if extra := [id for id in predictions if id not in references]:
        raise DataError(
            f"{len(extra)} of {len(predictions)} captions have no references ({_some(extra)}); "
            "add references under the same id, or leave out these captions"
        )
    for id, caption in predictions.items():
        _check_text(id, caption, "caption")
    _check_references(references)


def _check_references(references: Mapping[str, Sequence[str]]) -> None:
    for id, captions in references.items():
        if isinstance(captions, str):
            raise DataError(f"references of '{id}' are one text, expected a list of captions: put it in [ ]")
        if not captions:
            raise DataError(f"image '{id}' has no references; add a caption, or leave the image out")
        for caption in captions:
            _check_text(id, caption, "reference")


def _check_text(id: str, caption: object, role: str) -> None:
    if not isinstance(caption, str):
        raise DataError(f"the {role} of '{id}' is {caption!r:.40}, expected text; an empty caption is \"\"")


def _some(ids: Sequence[str]) -> str:
    """The first few ids.

    >>> _some(["1", "2", "3", "4"])
    "'1', '2', '3', ..."
    """
    return ", ".join(f"'{id}'" for id in ids[:3]) + (", ..." if len(ids) > 3 else "")
