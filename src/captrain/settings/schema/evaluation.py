"""Settings of what is measured while training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any, Literal

from pydantic import Field, WrapValidator

from captrain.settings.schema.base import Section

TokenizeName = Literal["ptb", "unicode", "characters", "auto"]
MetricName = Literal[
    "cider",
    "bleu_1",
    "bleu_2",
    "bleu_3",
    "bleu_4",
    "rouge_l",
    "meteor",
    "spice",
    "cider_and_bleu_4",
    "validation_loss",
]
_own: ContextVar[Collection[str] | None] = ContextVar("own_metrics", default=())


@contextmanager
def allowing_metrics(names: Collection[str] | None) -> Iterator[None]:
    """Let settings name metrics of one's own in here, beside those that captrain has; None is for any name.

    A function can be given in Python alone; a run that was chosen by one names it in its settings.

    >>> with allowing_metrics({"mean_length"}):
    ...     EvaluationSettings(metric="mean_length").metric
    'mean_length'
    """
    token = _own.set(names)
    try:
        yield
    finally:
        _own.reset(token)


def _or_own(value: Any, validate: Callable[[Any], Any]) -> Any:
    """A metric's name: one's own, where they are allowed, or one of captrain's."""
    own = _own.get()
    return value if isinstance(value, str) and (own is None or value in own) else validate(value)


class ScoringSettings(Section):
    """How far scores are looked into. These are flags only."""

    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Resamples for 95 % intervals and comparisons; 0 leaves them out."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the resamples."""


class EvaluationSettings(Section):
    """What is measured while training."""

    evaluate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between evaluations; the last epoch always has one."""
    validation_limit: Annotated[int, Field(ge=1)] | None = None
    """Validation images that are captioned and scored. Default: all."""
    metric: Annotated[MetricName, WrapValidator(_or_own)] = "cider"
    """The score that decides which model is kept as the best; `cider_and_bleu_4` is their sum, as LAVIS has it.
    `meteor` and `spice` need Java and are computed only when they are asked for here."""
    tokenize: TokenizeName = "auto"
    """How captions become words to score. Papers on English use `ptb`; `unicode` suits most scripts, `characters` all. `auto`
    is ptb where the script of the references has spaces between words, and else one of the others."""
    samples: Annotated[int, Field(ge=0)] = 8
    """Fixed validation pictures whose captions are written down at each evaluation."""
