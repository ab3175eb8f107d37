"""Captions that bring their references along, scored as evaluations and runs report them.

By which rule one of several evaluations is the best: the score that was asked for, then the validation loss.

Training chooses the weights to keep by it, patience counts by it, and a report marks the best checkpoint by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from captrain.metrics.compare import System, statistics_of, tokenized, with_intervals
from captrain.metrics.diversity import alarms, measure_diversity
from captrain.metrics.java import JAVA_METRICS, MetricScores, score_java
from captrain.metrics.score import METRICS, score_captions
from captrain.metrics.significance import RESAMPLES
from captrain.metrics.suited import choose_tokenizer
from captrain.records import Caption

PER_CAPTION = ("cider", "bleu_4", "rouge_l")


@dataclass(frozen=True)
class Judgement:
    """`system`: scores, how varied the captions are, notes. `captions`: each with its own scores."""

    system: System
    captions: list[Caption]

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the whole set by name."""
        return self.system.scores

    def to_dict(self) -> dict[str, Any]:
        """What `scores.json` holds, 95 % intervals too: they are computed here, where somebody wants them."""
        return with_intervals(self.system, RESAMPLES, seed=0).to_dict()


def judge(
    captions: Sequence[Caption], name: str = "captions", tokenizer: str = "auto", asked: Sequence[str] = ()
) -> Judgement:
    """Score captions against the references that they carry, one caption an image; `auto` looks at the references' script.

    METEOR and SPICE are computed only if they are among the names `asked` for: they run in Java. `check_java` says beforehand
    whether they can; a `JavaError` is raised when they fail all the same.

    >>> written = [Caption("1", "a dog runs", references=("a dog runs",)), Caption("2", "cats", references=("two cats",))]
    >>> judged = judge(written)
    >>> judged.captions[0].measured["bleu_4"] > judged.captions[1].measured["bleu_4"]
    True
    """
    texts = {caption.id: caption.text for caption in captions}
    references = {caption.id: caption.references for caption in captions}
    scores = score_captions(texts, references, tokenizer=tokenizer)
    tokenizer = choose_tokenizer(tokenizer, references).tokenizer
    of_set, of_images = _in_java(texts, references, asked)
    means = {metric: values for metric, values in of_images.items() if metric == "spice"}  # METEOR of a set is no mean
    statistics = statistics_of(scores, texts, references, tokenizer, means)
    varied = measure_diversity(list(texts.values()), tokenizer=tokenizer)
    notes = (*scores.notes, *alarms(varied))
    system = System(
        name, scores.scores | of_set, scores.images, scores.signature, statistics, {}, varied.to_dict(), notes
    )

    def measured(id: str) -> dict[str, float]:
        own = {metric: scores.per_image[id][metric] for metric in PER_CAPTION}
        return own | {metric: values[id] for metric, values in of_images.items()}

    return Judgement(system, [replace(caption, measured=measured(caption.id)) for caption in captions])


def _in_java(texts: Mapping[str, str], references: Mapping[str, Sequence[str]], asked: Sequence[str]) -> MetricScores:
    """METEOR and SPICE, where they are asked for: of the set by name, and of each image by name and id."""
    of_set: dict[str, float] = {}
    of_images: dict[str, dict[str, float]] = {}
    for metric in JAVA_METRICS:
        if metric in asked:
            whole, each = score_java(metric, *tokenized(texts, references, "ptb"))
            of_set |= whole
            of_images[metric] = {id: values[metric] for id, values in each.items()}
    return of_set, of_images


LOSS = "validation_loss"
SAME = 9
"""Decimals to which scores are compared: below them lies the rounding of sums."""
USELESS = 0.01
"""A score that even a caption copied from the references does not reach says nothing of the others."""


def merit(scores: Mapping[str, Any], metric: str) -> tuple[float, float]:
    """How good an evaluation is, by its scores: greater is better. What is no number counts as the worst.

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
    """Whether a score, of two evaluations or more, has not told one from another.

    >>> is_constant([{"cider": 0.0}, {"cider": 0.0}], "cider"), is_constant([{"cider": 0.0}], "cider")
    (True, False)
    """
    return metric != LOSS and len(evaluations) > 1 and len({merit(scores, metric)[0] for scores in evaluations}) == 1


def blind_spot(references: Mapping[str, Sequence[str]], metric: str, tokenizer: str) -> str | None:
    """Why a score can't tell captions of these references apart, or None where it can.

    The references themselves are scored as captions: where they get nothing no caption can.

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
    """A finite number, rounded; what is none is the worst there is."""
    finite = isinstance(value, int | float) and math.isfinite(value)
    return round(float(value), SAME) + 0.0 if finite else otherwise
