"""Scores of captions that bring their references along, as evaluations and runs report them, and which evaluation is the best.

The best is decided by the score that was asked for, then by the validation loss. By this rule a training chooses the weights
to keep and counts patience, and a report marks the best checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from captrain.metrics.compare import System, statistics_of, tokenized, with_intervals
from captrain.metrics.diversity import alarms, measure_diversity
from captrain.metrics.java import JAVA_METRICS, MetricScores, score_java
from captrain.metrics.own import Metric, measure
from captrain.metrics.score import score_captions
from captrain.metrics.significance import RESAMPLES
from captrain.metrics.tokenizer_choice import choose_tokenizer
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
        """What `scores.json` holds, 95 % intervals too: they are computed here, when they are wanted."""
        return with_intervals(self.system, RESAMPLES, seed=0).to_dict()


def judge(
    captions: Sequence[Caption],
    name: str = "captions",
    tokenizer: str = "auto",
    asked: Sequence[str] = (),
    own: Mapping[str, Metric] | None = None,
) -> Judgement:
    """Score captions against the references that they carry, one caption an image; `auto` looks at the references' script.

    METEOR and SPICE are computed only if they are among the names `asked` for: they run in Java. `check_java` says beforehand
    whether they can; a `JavaError` is raised if they fail all the same. `own` are the user's metrics by name (`metrics.own`).

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
    of_set |= measure(own or {}, list(texts.values()), list(references.values()))
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
    """METEOR and SPICE, if they are asked for: of the set by name, and of each image by name and id."""
    of_set: dict[str, float] = {}
    of_images: dict[str, dict[str, float]] = {}
    for metric in JAVA_METRICS:
        if metric in asked:
            whole, each = score_java(metric, *tokenized(texts, references, "ptb"))
            of_set |= whole
            of_images[metric] = {id: values[metric] for id, values in each.items()}
    return of_set, of_images
