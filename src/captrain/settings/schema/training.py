"""Settings of the optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from captrain.settings.schema.base import Section, Share


class TrainingSettings(Section):
    """The optimisation."""

    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Images a step. Each carries its captions in one row."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches whose gradients are added up before a step."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate. Default: the family's own for the method."""
    vision_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of the vision part, where it differs."""
    bridge_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of the bridge, where it differs."""
    language_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of the language part, where it differs."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's weight decay; biases and norms have none."""
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """AdamW's memory of squared gradients; 0.98 forgets faster, which suits short trainings from scratch."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: Share = 0.05
    """Share of all steps in which the learning rate rises from 0."""
    max_gradient_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients are scaled down to this norm; 0 leaves them as they are."""
    label_smoothing: Share | None = None
    """Share of each target given to all other tokens. Default: the family's own (BLIP 0.1, others 0)."""
    seed: int = 0
    """Seed of everything random: new weights, splits, order, dropout."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many evaluations without a better score."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    """Steps between checkpoints; there is one at the end of each epoch as well."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Checkpoints that stay on disk, the newest first."""
    log_every: Annotated[int, Field(ge=1)] = 10
    """Steps between lines of metrics.jsonl."""
