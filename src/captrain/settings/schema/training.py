"""Settings of the optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from captrain.settings.schema.base import Section, Share, panel
from captrain.settings.schema.optimisation import BETA1, DECAY_RATE

OptimizerName = Literal["adamw", "muon", "adamw-8bit", "adafactor", "lion", "schedule-free", "prodigy"]
ScheduleName = Literal[
    "cosine", "linear", "constant", "step", "linear_warmup_cosine_lr", "linear_warmup_step_lr", "constant_lr"
]

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
BatchSize = Annotated[int, Field(ge=1)] | Literal["auto"]

RATE = panel("Training: learning rate", 12.1)
OVERFITTING = panel("Training: against overfitting", 12.2)
WATCHING = panel("Training: checkpoints, logs, trackers", 12.3)


class TrainingSettings(Section):
    """The optimisation."""

    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the training images."""
    batch_size: BatchSize = 8
    """Images a step. Each carries its captions in one row. `auto` finds the largest power of two that fits the memory."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches whose gradients are added up before a step."""
    length_window: Annotated[int, Field(ge=1)] = 1
    """Batches that are sorted by the length of their rows together, so that less is padded; 1 leaves the order random, which
    learns better. Only where images carry all their captions."""
    optimizer: OptimizerName = "adamw"
    """What turns gradients into steps; all but adamw, muon and adafactor need `pip install 'captrain[optim]'`."""
    compile: bool = False
    """Compile the captioner with torch.compile: slow first steps, then faster ones where it helps. Needs a compiler."""
    learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, RATE] = None
    """Peak learning rate. Default: the family's own for the method; a fifth of it for lion, 1 for prodigy."""
    vision_learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, RATE] = None
    """Peak learning rate of the vision part, where it differs."""
    bridge_learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, RATE] = None
    """Peak learning rate of the bridge, where it differs."""
    language_learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, RATE] = None
    """Peak learning rate of the language part, where it differs."""
    vision_layer_decay: Annotated[float, Field(gt=0, le=1), RATE] = 1.0
    """Learning rate of each layer of the image encoder over that of the layer above it (BEiT: 0.65 to 0.9)."""
    weight_decay: Annotated[float, Field(ge=0), OVERFITTING] = 0.01
    """Weight decay; biases, norms and other vectors have none."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = BETA1
    """The optimizer's memory of gradients; adafactor has none."""
    beta2: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Its memory of squared gradients; 0.98 forgets faster: for short trainings from scratch. Default: 0.999, lion 0.99."""
    schedule: Annotated[ScheduleName | None, RATE] = None
    """How the rate falls after the warm-up; names with `_lr` are LAVIS's. Default: cosine, and constant for schedule-free."""
    min_learning_rate: Annotated[float, Field(ge=0), RATE] = 0.0
    """Floor that the learning rate falls to."""
    warmup: Annotated[Share, RATE] = 0.05
    """Share of all steps in which the learning rate rises to its peak."""
    warmup_steps: Annotated[Annotated[int, Field(ge=0)] | None, RATE] = None
    """Steps of the warm-up, instead of the share."""
    warmup_learning_rate: Annotated[Annotated[float, Field(ge=0)] | None, RATE] = None
    """Where the warm-up starts. Default: 0, and for LAVIS's schedules the peak, as there."""
    decay_rate: Annotated[float, Field(gt=0, le=1), RATE] = DECAY_RATE
    """Factor of each fall of the schedules with steps."""
    decay_epochs: Annotated[int, Field(ge=1), RATE] = 1
    """Epochs between the falls of `step`."""
    max_gradient_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients are scaled down to this norm; 0 leaves them as they are."""
    label_smoothing: Annotated[Share | None, OVERFITTING] = None
    """Share of each target given to all other tokens. Default: the family's own (BLIP 0.1, others 0)."""
    patch_dropout: Annotated[Share, OVERFITTING] = 0.0
    """Share of an image's vectors that the text half does not see in a step, drawn anew for each image. Not for prefixes."""
    word_dropout: Annotated[Share, OVERFITTING] = 0.0
    """Share of the words that the text half reads hidden from it, drawn anew in each epoch; it still learns to write all."""
    ema: Annotated[Share, OVERFITTING] = 0.0
    """Measure and keep a running average of the weights, over about the last 1 / (1 - ema) steps (0.999, say). 0 is none."""
    seed: int = 0
    """Seed of everything random: new weights, splits, order, dropout."""
    patience: Annotated[Annotated[int, Field(ge=1)] | None, OVERFITTING] = None
    """Stop after this many evaluations without a better score."""
    checkpoint_every: Annotated[int, Field(ge=1), WATCHING] = 500
    """Steps between checkpoints; there is one at the end of epochs as well."""
    checkpoint_every_epochs: Annotated[int, Field(ge=1), WATCHING] = 1
    """Epochs between the checkpoints at their ends; the last epoch always has one."""
    checkpoint_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100), WATCHING] = (
        "checkpoint"
    )
    """First part of the names of checkpoints: `checkpoint` makes `checkpoint-500`."""
    keep_checkpoints: Annotated[int, Field(ge=1), WATCHING] = 2
    """Checkpoints that stay on disk, the newest first."""
    max_bad_steps: Annotated[int, Field(ge=1), WATCHING] = 10
    """Steps in a row that are left out because their loss or gradient is no number, before training stops."""
    log_every: Annotated[int, Field(ge=1), WATCHING] = 10
    """Steps between lines of metrics.jsonl."""
    trackers: Annotated[tuple[TrackerName, ...] | None, WATCHING] = None
    """Where else to follow the run: needs `pip install 'captrain[track]'` (tensorboard), `captrain[wandb]` or
    `captrain[mlflow]`. Default: tensorboard where it is installed."""
    project: Annotated[str, WATCHING] = "captrain"
    """What trackers file the run under: W&B's project, MLflow's experiment."""
    run_name: Annotated[str | None, WATCHING] = None
    """The run's name there. Default: its folder's."""
