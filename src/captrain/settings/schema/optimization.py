"""Defaults and conflicts of the optimisation: optimizer, learning rates and schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from captrain.settings.schema.model import ModelSettings
from captrain.settings.schema.training import BETA1, DECAY_RATE, TrainingSettings

CONSTANT = ("constant", "constant_lr")
WITH_DECAY_RATE = ("step", "linear_warmup_step_lr")
SCHEDULES = {"schedule-free": "constant"}
"""The default schedule of optimizers that have another one than cosine."""
OWN_RATES: dict[str, Callable[[float], float]] = {"lion": lambda family: family / 5, "prodigy": lambda family: 1.0}
"""The default learning rate of optimizers that make another one of the family's."""
BETA2_OF_ADAM = 0.999
BETA2 = {"lion": 0.99}
"""The default beta2 of optimizers that have another one than Adam's."""


def schedule_of(training: TrainingSettings) -> str:
    """The schedule, the optimizer's own unless one is named."""
    return training.schedule or SCHEDULES.get(training.optimizer, "cosine")


def default_rate(optimizer: str, family: float) -> float:
    """The learning rate where none is asked for, from the family's.

    >>> default_rate("adamw", 0.0005), default_rate("lion", 0.0005), default_rate("prodigy", 0.0005)
    (0.0005, 0.0001, 1.0)
    """
    return OWN_RATES[optimizer](family) if optimizer in OWN_RATES else family


def beta2_of(training: TrainingSettings) -> float:
    """`beta2`, the decay of the mean of squared gradients: as given, or the optimizer's default."""
    return BETA2.get(training.optimizer, BETA2_OF_ADAM) if training.beta2 is None else training.beta2


def optimisation(training: TrainingSettings, model: ModelSettings) -> Iterator[str]:
    """All conflicts of the optimisation.

    >>> list(optimisation(TrainingSettings(schedule="step", decay_epochs=9), ModelSettings()))
    ['decay_epochs 9 is longer than the run of 5 epochs, the rate would never fall']
    """
    yield from _schedule(training)
    yield from _rates(training)
    if training.optimizer == "adafactor":
        yield from _adafactor(training)
    if training.optimizer == "prodigy":
        yield from _prodigy(training, model)
    if training.optimizer == "schedule-free":
        yield from _schedule_free(training)


def _schedule(training: TrainingSettings) -> Iterator[str]:
    """Settings that the schedule does not use, and falls that the run is too short for."""
    schedule = schedule_of(training)
    if training.min_learning_rate and schedule in CONSTANT:
        yield f"min_learning_rate {training.min_learning_rate}: schedule {schedule} never falls, leave it out"
    if schedule == "step" and training.decay_epochs >= training.epochs:
        run = f"the run of {training.epochs} epochs"
        yield f"decay_epochs {training.decay_epochs} is longer than {run}, the rate would never fall"
    if schedule != "step" and training.decay_epochs != 1:
        yield f"decay_epochs is for schedule step, but the schedule is {schedule}"
    if schedule not in WITH_DECAY_RATE and training.decay_rate != DECAY_RATE:
        yield f"decay_rate is for schedules {' and '.join(WITH_DECAY_RATE)}, but the schedule is {schedule}"


def _rates(training: TrainingSettings) -> Iterator[str]:
    """Ends of the curve above its peak."""
    for name in ("min_learning_rate", "warmup_learning_rate"):
        rate = getattr(training, name) or 0
        if training.learning_rate is not None and rate > training.learning_rate:
            yield f"{name} {rate} is more than learning_rate {training.learning_rate}"


def _adafactor(training: TrainingSettings) -> Iterator[str]:
    """Adafactor keeps rows and columns instead of moments, so it has no betas."""
    if training.beta1 != BETA1 or beta2_of(training) != BETA2_OF_ADAM:
        yield "beta1, beta2: optimizer adafactor has neither, leave them out"


def _prodigy(training: TrainingSettings, model: ModelSettings) -> Iterator[str]:
    """Prodigy finds one rate for all weights."""
    names = [f"{part}_learning_rate" for part in ("vision", "bridge", "language")]
    given = [name for name in names if getattr(training, name) is not None]
    given += ["vision_layer_decay"] * (training.vision_layer_decay != 1)
    given += ["lora_plus"] * (model.lora_plus != 1)
    if given:
        yield f"{', '.join(given)}: optimizer prodigy finds one rate for all weights, leave that out"


def _schedule_free(training: TrainingSettings) -> Iterator[str]:
    """Schedule-free averages the weights instead of lowering the rate."""
    if (schedule := schedule_of(training)) not in CONSTANT:
        yield f"schedule {schedule}: optimizer schedule-free averages weights instead of lowering the rate, leave it out"
    if training.beta1 == 0:
        yield "beta1 0: optimizer schedule-free needs more"
    if training.ema:
        yield "ema: optimizer schedule-free averages the weights already, leave one out"
