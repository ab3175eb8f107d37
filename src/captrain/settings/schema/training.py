"""Settings of the optimisation, of several devices, of what is measured, and of how a finished captioner runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, WrapValidator

from captrain.settings.schema.base import Panel, Section, Share
from captrain.settings.schema.data import DataSettings

OptimizerName = Literal["adamw", "muon", "adamw-8bit", "adafactor", "lion", "schedule-free", "prodigy"]
ScheduleName = Literal[
    "cosine", "linear", "constant", "step", "linear_warmup_cosine_lr", "linear_warmup_step_lr", "constant_lr"
]

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
BatchSize = Annotated[int, Field(ge=1)] | Literal["auto"]

BETA1 = 0.9
"""Default of the setting `beta1`."""
DECAY_RATE = 0.1
"""Default of the setting `decay_rate`."""

RATE = Panel("Training: learning rate", 12.1)
OVERFITTING = Panel("Training: against overfitting", 12.2)
WATCHING = Panel("Training: checkpoints, logs, trackers", 12.3)


class TrainingSettings(Section):
    """The optimisation."""

    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the training images."""
    batch_size: BatchSize = 8
    """Images per step, each with all its captions. `auto` finds the largest power of two that fits into memory."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches per step; their gradients are added up."""
    length_window: Annotated[int, Field(ge=1)] = 1
    """Batches to sort together by length, so that less is padded. 1 keeps the order random, which learns better. Only with
    `captions_per_image: all`."""
    optimizer: OptimizerName = "adamw"
    """The optimizer. All but adamw, muon and adafactor need `pip install 'captrain[optim]'`."""
    compile: bool = False
    """Use torch.compile: the first steps are slow, later ones often faster. Needs a C++ compiler."""
    learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, RATE] = None
    """Peak learning rate. Default: the family's own for the method, a fifth of that for lion, 1 for prodigy."""
    vision_learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, RATE] = None
    """Peak learning rate of the vision part, if it differs."""
    bridge_learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, RATE] = None
    """Peak learning rate of the bridge, if it differs."""
    language_learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, RATE] = None
    """Peak learning rate of the language part, if it differs."""
    vision_layer_decay: Annotated[float, Field(gt=0, le=1), RATE] = 1.0
    """Factor of the learning rate from each layer of the image encoder to the one below it (BEiT: 0.65 to 0.9)."""
    weight_decay: Annotated[float, Field(ge=0), OVERFITTING] = 0.01
    """Weight decay, except for biases, norms and other vectors."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = BETA1
    """The optimizer's memory of gradients. Adafactor has none."""
    beta2: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The optimizer's memory of squared gradients; 0.98 suits short trainings from scratch. Default: 0.999, lion 0.99."""
    schedule: Annotated[ScheduleName | None, RATE] = None
    """How the rate falls after the warm-up; names with `_lr` are LAVIS's. Default: cosine, and constant for schedule-free."""
    min_learning_rate: Annotated[float, Field(ge=0), RATE] = 0.0
    """Learning rate at the end of the schedule."""
    warmup: Annotated[Share, RATE] = 0.05
    """Share of all steps in which the learning rate rises to its peak."""
    warmup_steps: Annotated[Annotated[int, Field(ge=0)] | None, RATE] = None
    """Steps of the warm-up, instead of a share."""
    warmup_learning_rate: Annotated[Annotated[float, Field(ge=0)] | None, RATE] = None
    """Learning rate at the start of the warm-up. Default: 0, and the peak for LAVIS's schedules."""
    decay_rate: Annotated[float, Field(gt=0, le=1), RATE] = DECAY_RATE
    """Factor by which the learning rate falls in schedules with steps."""
    decay_epochs: Annotated[int, Field(ge=1), RATE] = 1
    """Epochs between the steps of the schedule `step`."""
    max_gradient_norm: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the gradients; larger ones are scaled down. 0 turns this off."""
    label_smoothing: Annotated[Share | None, OVERFITTING] = None
    """Share of each target that goes to all other tokens. Default: the family's own (BLIP 0.1, others 0)."""
    patch_dropout: Annotated[Share, OVERFITTING] = 0.0
    """Share of an image's vectors that are hidden from the decoder in each step. Not for prefixes."""
    word_dropout: Annotated[Share, OVERFITTING] = 0.0
    """Share of the words that are hidden from the decoder as it reads, drawn again in each epoch; it learns to write all."""
    ema: Annotated[Share, OVERFITTING] = 0.0
    """Evaluate and save a running average of the weights over about the last 1 / (1 - ema) steps, with 0.999 for example."""
    seed: int = 0
    """Seed of everything random: new weights, splits, order, dropout."""
    patience: Annotated[Annotated[int, Field(ge=1)] | None, OVERFITTING] = None
    """Stop after this many evaluations without a better score."""
    checkpoint_every: Annotated[int, Field(ge=1), WATCHING] = 500
    """Steps between checkpoints; epochs end with one as well."""
    checkpoint_every_epochs: Annotated[int, Field(ge=1), WATCHING] = 1
    """Epochs between the checkpoints at the end of epochs; the last epoch always has one."""
    checkpoint_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100), WATCHING] = (
        "checkpoint"
    )
    """First part of the names of checkpoints: `checkpoint` makes `checkpoint-500`."""
    keep_checkpoints: Annotated[int, Field(ge=1), WATCHING] = 2
    """Number of checkpoints to keep; older ones are deleted."""
    max_bad_steps: Annotated[int, Field(ge=1), WATCHING] = 10
    """Stop after this many steps in a row with a non-finite loss or gradient; such steps change nothing."""
    log_every: Annotated[int, Field(ge=1), WATCHING] = 10
    """Steps between lines of metrics.jsonl."""
    trackers: Annotated[tuple[TrackerName, ...] | None, WATCHING] = None
    """Trackers to log to; they need `pip install 'captrain[track]'` (tensorboard), `captrain[wandb]` or
    `captrain[mlflow]`. Default: tensorboard where it is installed."""
    project: Annotated[str, WATCHING] = "captrain"
    """Project of the run in trackers (W&B's project, MLflow's experiment)."""
    run_name: Annotated[str | None, WATCHING] = None
    """Name of the run in trackers. Default: its folder's."""


class DistributedSettings(Section):
    """Which devices a training uses, and how they share it. What is learned stays the same."""

    devices: Annotated[str, StringConstraints(pattern=r"^(all|cpu:\d+|\d+(,\d+)*)$")] | None = None
    """GPUs to train on: `all`, or numbers such as `0,1`; `cpu:2` means two processes. Default: one device."""
    strategy: Literal["ddp", "fsdp", "deepspeed"] = "ddp"
    """`ddp` puts the whole model on each device, `fsdp` shards it (FSDP2), `deepspeed` uses ZeRO."""
    zero_stage: Literal[1, 2, 3] = 2
    """What ZeRO shards: 1 the optimizer's state, 2 gradients too, 3 weights too."""
    zero_offload: bool = False
    """Keep what ZeRO shards in main memory: larger models fit, steps are slower."""


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
    """Intervals and comparisons of scores. These are flags only."""

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
    metric: Annotated[MetricName, WrapValidator(_or_own)] = "cider"
    """Score that chooses the best model. `cider_and_bleu_4` is their sum, as in LAVIS. `meteor` and `spice` need Java."""
    tokenize: TokenizeName = "auto"
    """How captions are split into words for scoring. Papers on English use `ptb`; `unicode` suits most scripts, `characters`
    all. `auto` means ptb if the references' script puts spaces between words, else one of the others."""
    samples: Annotated[int, Field(ge=0)] = 8
    """Number of validation pictures whose captions are logged at each evaluation."""


class ComputingSettings(Section):
    """How a finished captioner runs over pictures. These are flags only; recipes have them in `model` and `data`."""

    batch_size: Annotated[int, Field(ge=1)] = 16
    """Pictures per batch."""
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = "auto"
    """Where to run. `auto` takes the first of cuda, mps, xpu, cpu that is there."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Precision of the computation. `auto` means bf16 where the device is fast at it."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Threads that read and decode pictures. Default: one per core, at most 16."""
    max_pixels: Annotated[int, Field(ge=1)] = DataSettings.model_fields["max_pixels"].default
    """Pictures with more pixels than this are rejected before they are decoded."""
