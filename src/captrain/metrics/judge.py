"""Captions that bring their references along, scored as evaluations and runs report them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from captrain.metrics.compare import System, statistics_of, with_intervals
from captrain.metrics.diversity import alarms, measure_diversity
from captrain.metrics.score import score_captions
from captrain.metrics.significance import RESAMPLES
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


def judge(captions: Sequence[Caption], name: str = "captions", tokenizer: str = "ptb") -> Judgement:
    """Score captions against the references that they carry, one caption an image.

    >>> written = [Caption("1", "a dog runs", references=("a dog runs",)), Caption("2", "cats", references=("two cats",))]
    >>> judged = judge(written)
    >>> judged.captions[0].measured["bleu_4"] > judged.captions[1].measured["bleu_4"]
    True
    """
    texts = {caption.id: caption.text for caption in captions}
    references = {caption.id: caption.references for caption in captions}
    scores = score_captions(texts, references, tokenizer=tokenizer)
    statistics = statistics_of(scores, texts, references, tokenizer, {})
    varied = measure_diversity(list(texts.values()), tokenizer=tokenizer)
    notes = (*scores.notes, *alarms(varied))
    system = System(name, scores.scores, scores.images, scores.signature, statistics, {}, varied.to_dict(), notes)
    each = [
        replace(caption, measured={metric: scores.per_image[caption.id][metric] for metric in PER_CAPTION})
        for caption in captions
    ]
    return Judgement(system, each)
