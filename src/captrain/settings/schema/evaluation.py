"""Settings of what is measured while training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from captrain.settings.schema.base import Section

TokenizeName = Literal["ptb", "unicode", "characters", "auto"]


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
    metric: Literal[
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
    ] = "cider"
    """The score that decides which model is kept as the best; `cider_and_bleu_4` is their sum, as LAVIS has it.
    `meteor` and `spice` need Java and are computed only when they are asked for here."""
    tokenize: TokenizeName = "auto"
    """How captions become words to score. Papers on English use `ptb`; `unicode` suits most scripts, `characters` all. `auto`
    is ptb where the script of the references has spaces between words, and else one of the others."""
    samples: Annotated[int, Field(ge=0)] = 8
    """Fixed validation pictures whose captions are written down at each evaluation."""
