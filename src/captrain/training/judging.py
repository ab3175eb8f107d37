"""How a run's captions are judged: the tokenizer of its scores, and what to know of the score that chooses the best model."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from captrain.metrics.choosing import blind_spot
from captrain.metrics.suited import AUTO, choose_tokenizer
from captrain.records import Sample
from captrain.settings.schema import Settings

logger = logging.getLogger(__name__)


def fill_tokenizer(settings: Settings, samples: Sequence[Sample], before: str | None) -> Settings:
    """Settings with a tokenizer of scores in place of `auto`: the one that the run had `before`, or what suits the references.

    Args:
        samples: that will be validated; without any, `auto` stays for whoever scores.
    """
    evaluation = settings.evaluation
    if not len(samples):
        return settings
    choice = choose_tokenizer(evaluation.tokenize, _references(samples, evaluation.validation_limit), before)
    if evaluation.tokenize == AUTO:
        logger.info("scores count the words of the tokenizer %s (--tokenize auto): %s", choice.tokenizer, choice.why)
    elif choice.note:
        logger.warning(choice.note)
    return settings.model_copy(update={"evaluation": evaluation.model_copy(update={"tokenize": choice.tokenizer})})


def blind_spot_of(settings: Settings, samples: Sequence[Sample]) -> str | None:
    """Why the score that chooses can't tell epochs apart, by the references alone; None where it may, or nothing is measured."""
    evaluation = settings.evaluation
    if not len(samples):
        return None
    return blind_spot(_references(samples, evaluation.validation_limit), evaluation.metric, evaluation.tokenize)


def advice(reason: str, patience: int | None) -> str:
    """What a score that can't tell epochs apart means for the run, and what to do.

    >>> advice("cider is 0", patience=None)[:72]
    'cider is 0: it cannot tell epochs apart, the validation loss does so ins'
    """
    counted = ", and --patience counts by it" if patience else ""
    return (
        f"{reason}: it cannot tell epochs apart, the validation loss does so instead{counted}. To choose by a score hold out "
        "more pictures (--validation-share, --validation-data), or try --tokenize or another --metric; --metric "
        "validation_loss leaves this out"
    )


def _references(samples: Sequence[Sample], limit: int | None) -> dict[str, Sequence[str]]:
    """Of those that are validated; without captions there is nothing to compare with."""
    chosen = (samples[index] for index in range(len(samples))[:limit])
    return {sample.id: sample.captions for sample in chosen if sample.captions}
