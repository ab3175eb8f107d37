"""One or several systems on the same images: scores with intervals, and which differences are more than chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from captrain.metrics.score import Scores
from captrain.metrics.significance import (
    RESAMPLES,
    Difference,
    Statistics,
    bleu_counts,
    intervals,
    system_differences,
)
from captrain.metrics.tokenizer import token_lines

FEW = 30
"""Images, below which a score says little."""
NOTHING = 1e-6
"""Scores below this are shown as 0: BLEU keeps a zero slightly above it, to have a logarithm (such as 9.9e-14)."""


@dataclass(frozen=True)
class System:
    """The scores of one system; those that are almost 0 are 0.

    `statistics` holds what intervals and comparisons are computed from.
    `notes` are sentences for people: what could not be computed, what to keep in mind.
    """

    name: str
    scores: dict[str, float]
    images: int
    signature: str
    statistics: Statistics
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    diversity: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", {name: shown_score(value) for name, value in self.scores.items()})

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object, without what is not known."""
        content: dict[str, Any] = {"scores": self.scores, "images": self.images, "signature": self.signature}
        if self.intervals:
            content["intervals"] = {name: list(bounds) for name, bounds in self.intervals.items()}
        if self.diversity:
            content["diversity"] = self.diversity
        if self.notes:
            content["notes"] = list(self.notes)
        return content


@dataclass(frozen=True)
class Comparison:
    """Systems on the same images, and for each pair of them (first name, second name) every metric's difference."""

    systems: list[System]
    differences: dict[tuple[str, str], list[Difference]]

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object: of one system its own, of several a list of them and of their comparisons."""
        if len(self.systems) == 1:
            return self.systems[0].to_dict()
        compared = [
            {"systems": list(pair), "metric": found.metric, "difference": shown_score(found.difference)}
            | {"interval": [shown_score(end) for end in found.interval], "p": found.p}
            for pair, every in self.differences.items()
            for found in every
        ]
        systems = [{"name": system.name, **system.to_dict()} for system in self.systems]
        return {"systems": systems, "comparisons": compared}

    def best(self, metric: str) -> list[str]:
        """The system that scores highest in a metric, and those that are not significantly worse (p < 0.05).

        Nothing where there is a single system, or where the systems were not compared in this metric.
        """
        compared = {
            pair: found for pair, every in self.differences.items() for found in every if found.metric == metric
        }
        if not compared:
            return []
        top = max(self.systems, key=lambda system: system.scores[metric]).name
        beaten = {other for pair, found in compared.items() if found.significant and top in pair for other in pair}
        return [system.name for system in self.systems if system.name == top or system.name not in beaten]


def shown_score(score: float) -> float:
    """A score as it is shown to people.

    >>> shown_score(9.9e-14), shown_score(-1e-17), shown_score(0.25)
    (0.0, 0.0, 0.25)
    """
    return 0.0 if abs(score) < NOTHING else score


def statistics_of(
    scores: Scores,
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenizer: str,
    means: Mapping[str, Mapping[str, float]],
) -> Statistics:
    """What each image adds to the scores of a system.

    Args:
        means: further metrics whose corpus score is the mean of the images' (CLIPScore, SPICE), by image id.
    """
    own = [name for name in scores.scores if not name.startswith("bleu_")]
    columns = {name: np.array([scores.per_image[id][name] for id in predictions]) for name in own}
    columns |= {name: np.array([values[id] for id in predictions]) for name, values in means.items()}
    bleu = None
    if any(name.startswith("bleu_") for name in scores.scores):
        captions, known = tokenized(predictions, references, tokenizer)
        bleu = bleu_counts(
            {id: line.split() for id, line in captions.items()},
            {id: [line.split() for line in lines] for id, lines in known.items()},
        )
    return Statistics(scores.images, bleu, columns)


def tokenized(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], tokenizer: str
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Captions and references as tokens with spaces between, each in one pass in their order, as they are scored."""
    captions = dict(zip(predictions, token_lines(list(predictions.values()), tokenizer), strict=True))
    lines = iter(token_lines([caption for known in references.values() for caption in known], tokenizer))
    return captions, {id: [next(lines) for _ in known] for id, known in references.items()}


def with_intervals(system: System, resamples: int, seed: int) -> System:
    """The same with the 95 % interval of every score that images add up to."""
    if system.images < 2:
        note = f"one image only: its scores are chance, and have no intervals; expected {FEW} or more"
        return replace(system, notes=(*system.notes, note))
    found = intervals(system.statistics, resamples, seed)
    found = {
        name: (shown_score(found[name][0]), shown_score(found[name][1])) for name in system.scores if name in found
    }
    return replace(system, intervals=found, notes=(*system.notes, *_few(system, found)))


def _few(system: System, found: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """A note for scores of few images."""
    if system.images >= FEW:
        return
    may_as_well_be = ""
    if name := next((name for name in ("cider", *found) if name in found), None):
        score, low, high = (f"{value:.2f}" for value in (system.scores[name], *found[name]))
        may_as_well_be = f", {name} {score} may as well be {low} or {high} (95 % interval)" if low != high else ""
    yield (
        f"{system.images} images only: scores are largely chance{may_as_well_be}; "
        f"expected {FEW} or more to tell captioners apart"
    )


def compare(systems: list[System], resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Intervals for each system, and every pair of systems compared; neither if `resamples` is 0.

    All systems must have been scored on the same images in the same order.
    """
    if resamples == 0:
        return Comparison(systems, {})
    systems = [with_intervals(system, resamples, seed) for system in systems]
    pairs = combinations(systems, 2) if systems[0].images > 1 else ()
    found = {
        (first.name, second.name): [
            difference
            for difference in system_differences(first.statistics, second.statistics, resamples, seed)
            if difference.metric in first.scores and difference.metric in second.scores
        ]
        for first, second in pairs
    }
    return Comparison(systems, found)
