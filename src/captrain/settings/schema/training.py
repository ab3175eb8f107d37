"""Settings of the optimisation.

Settings of a training on several devices.

Settings of what is measured while training.

Settings of how a finished captioner runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, WrapValidator

from captrain.settings.schema.base import Section, Share, panel
from captrain.settings.schema.data import DataSettings
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


class DistributedSettings(Section):
    """Over which devices a training is spread, and how. It says nothing about what is learned."""

    devices: Annotated[str, StringConstraints(pattern=r"^(all|cpu:\d+|\d+(,\d+)*)$")] | None = None
    """GPUs of this machine to train on: `all`, or numbers such as `0,1`; `cpu:2` for two processes. Default: one device."""
    strategy: Literal["ddp", "fsdp", "deepspeed"] = "ddp"
    """`ddp`: the whole model on each device. `fsdp`: weights, gradients and optimizer shared out (FSDP2). `deepspeed`: ZeRO."""
    zero_stage: Literal[1, 2, 3] = 2
    """What ZeRO shares out: 1 the optimizer's memory, 2 gradients as well, 3 weights as well."""
    zero_offload: bool = False
    """Keep what ZeRO shares out in the memory of the machine: room for larger models, slower steps."""


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


class ComputingSettings(Section):
    """How a finished captioner runs over pictures. These are flags only; recipes have them in `model` and `data`."""

    batch_size: Annotated[int, Field(ge=1)] = 16
    """Pictures captioned at a time."""
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = "auto"
    """Where to run. `auto` takes cuda, mps, xpu or cpu, the first that is there."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Arithmetic of matrix products. `auto` takes bf16 where the device computes it fast."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Threads that read and decode pictures. Default: one a core, at most 16."""
    max_pixels: Annotated[int, Field(ge=1)] = DataSettings.model_fields["max_pixels"].default
    """Pictures with more pixels than this are rejected before they are decoded."""
