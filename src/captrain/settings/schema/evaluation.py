"""Settings of what is measured while training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from captrain.settings.schema.base import Section

TokenizeName = Literal["ptb", "unicode", "characters", "auto"]


class ScoringSettings(Section):
    """How far scores are looked into. These are flags only."""

    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Resamples for 95 % intervals and comparisons; 0 for none."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the resamples."""


class EvaluationSettings(Section):
    """What is measured while training."""

    evaluate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between evaluations; the last epoch always has one."""
    validation_limit: Annotated[int, Field(ge=1)] | None = None
    """Number of validation images to caption and score. Default: all."""
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
    """Score that chooses the best model. `cider_and_bleu_4` is their sum, as in LAVIS. `meteor` and `spice` need Java."""
    tokenize: TokenizeName = "auto"
    """How captions are split into words for scoring. Papers on English use `ptb`; `unicode` suits most scripts, `characters`
    all. `auto` means ptb if the references' script puts spaces between words, else one of the others."""
    samples: Annotated[int, Field(ge=0)] = 8
    """Number of validation pictures whose captions are logged at each evaluation."""
