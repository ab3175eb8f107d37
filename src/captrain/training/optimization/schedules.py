"""The learning rate over a run: a factor of the peak for each step, from nothing but the step's number.

`cosine`, `linear`, `constant` and `step` fall at every step (`step` at the end of epochs) from the end of the warm-up on. The
names with `_lr` are LAVIS's (Li et al. 2022; salesforce/LAVIS, `lavis/common/optims.py`), with LAVIS's rules: a warm-up inside
of the first epoch alone, then one rate an epoch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from captrain.errors import SettingsError
from captrain.settings.schema import TrainingSettings

logger = logging.getLogger(__name__)

Curve = Callable[[int], float]


@dataclass(frozen=True)
class Shape:
    """What curves are made of.

    Attributes:
        steps, epoch_steps: of the run, of an epoch. epochs: of the run.
        warmup: steps of the warm-up. start, floor: where the warm-up begins and the fall ends, over the peak.
        decay: factor of each fall of curves with steps. decay_epochs: epochs between them.
    """

    steps: int
    epoch_steps: int
    epochs: int
    warmup: int
    start: float
    floor: float
    decay: float = 0.1
    decay_epochs: int = 1


def _after_warmup(fall: Callable[[Shape, int], float]) -> Callable[[Shape, int], float]:
    """A curve that rises in a straight line from `start`, then falls by its own rule."""

    @wraps(fall)
    def curve(shape: Shape, step: int) -> float:
        if step < shape.warmup:
            return shape.start + (1 - shape.start) * step / shape.warmup
        return fall(shape, step)

    return curve


def _progress(shape: Shape, step: int) -> float:
    """How much of the way from the end of the warm-up to the end of the run is behind."""
    return min(1.0, (step - shape.warmup) / max(1, shape.steps - shape.warmup))


@_after_warmup
def cosine(shape: Shape, step: int) -> float:
    """Half a cosine from 1 to the floor (Loshchilov and Hutter 2017, without restarts).

    >>> [round(cosine(Shape(8, 8, 1, warmup=4, start=0.0, floor=0.1), step), 3) for step in (0, 2, 4, 6, 8)]
    [0.0, 0.5, 1.0, 0.55, 0.1]
    """
    return shape.floor + (1 - shape.floor) * 0.5 * (1 + math.cos(math.pi * _progress(shape, step)))


@_after_warmup
def linear(shape: Shape, step: int) -> float:
    """A straight line from 1 to the floor.

    >>> [round(linear(Shape(8, 8, 1, warmup=4, start=0.0, floor=0.2), step), 3) for step in (4, 6, 8)]
    [1.0, 0.6, 0.2]
    """
    return shape.floor + (1 - shape.floor) * (1 - _progress(shape, step))


@_after_warmup
def constant(shape: Shape, step: int) -> float:
    """The peak."""
    return 1.0


@_after_warmup
def falling_steps(shape: Shape, step: int) -> float:
    """Times `decay` after every `decay_epochs` epochs, not below the floor.

    >>> [falling_steps(Shape(6, 2, 3, warmup=0, start=0.0, floor=0.2, decay=0.5), step) for step in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    falls = step // shape.epoch_steps // shape.decay_epochs
    return max(shape.floor, shape.decay**falls)


def _lavis(of_epoch: Callable[[Shape, int], float]) -> Callable[[Shape, int], float]:
    """A curve of LAVIS: the warm-up in epoch 0, one rate in each later epoch.

    Like LAVIS it breaks the warm-up off where the first epoch ends; without warm-up steps its very first step is at `start`.
    """

    @wraps(of_epoch)
    def curve(shape: Shape, step: int) -> float:
        epoch = step // shape.epoch_steps
        if epoch == 0:
            return min(1.0, shape.start + (1 - shape.start) * step / max(shape.warmup, 1))
        return of_epoch(shape, epoch)

    return curve


@_lavis
def lavis_cosine(shape: Shape, epoch: int) -> float:
    """LAVIS's `linear_warmup_cosine_lr`.

    >>> [round(lavis_cosine(Shape(4, 2, 2, warmup=2, start=0.5, floor=0.0), step), 3) for step in range(4)]
    [0.5, 0.75, 0.5, 0.5]
    """
    return (1 - shape.floor) * 0.5 * (1 + math.cos(math.pi * epoch / shape.epochs)) + shape.floor


@_lavis
def lavis_steps(shape: Shape, epoch: int) -> float:
    """LAVIS's `linear_warmup_step_lr`."""
    return max(shape.floor, shape.decay**epoch)


@_lavis
def lavis_constant(shape: Shape, epoch: int) -> float:
    """LAVIS's `constant_lr`."""
    return 1.0


OWN: dict[str, Callable[[Shape, int], float]] = {
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
    "step": falling_steps,
}
LAVIS: dict[str, Callable[[Shape, int], float]] = {
    "linear_warmup_cosine_lr": lavis_cosine,
    "linear_warmup_step_lr": lavis_steps,
    "constant_lr": lavis_constant,
}


def make_curve(training: TrainingSettings, steps: int) -> Curve:
    """The factor of each group's own peak, for each step from 0 on, of a run of so many steps, by filled settings.

    Start and floor are given as rates for `learning_rate`; groups with other rates have them in proportion.

    Raises `SettingsError` when the warm-up is longer than the run.
    """
    peak = float(training.learning_rate or 0)
    name = str(training.schedule)
    warmup = warmup_steps(training, steps)
    start = training.warmup_learning_rate
    start = (peak if name in LAVIS else 0.0) if start is None else start
    shape = Shape(
        steps, max(1, steps // training.epochs), training.epochs, warmup, start / peak, training.min_learning_rate / peak,
        training.decay_rate, training.decay_epochs,
    )  # fmt: skip
    if name in LAVIS and warmup > shape.epoch_steps and start < peak:
        logger.warning("%s warms up in the first epoch alone: %d of %d steps", name, shape.epoch_steps, warmup)
    curve = {**OWN, **LAVIS}[name]
    return lambda step: curve(shape, step)


def check_ends(training: TrainingSettings) -> None:
    """Raise `SettingsError` when the warm-up starts or the fall ends above the peak, by filled settings."""
    for name in ("warmup_learning_rate", "min_learning_rate"):
        rate, peak = getattr(training, name) or 0.0, float(training.learning_rate or 0)
        if rate > peak:
            raise SettingsError(f"{name} {rate}: is above the peak of {peak}; lower it, or give a higher learning_rate")


def warmup_steps(training: TrainingSettings, steps: int) -> int:
    """Steps of the warm-up of a run. Raises `SettingsError` when they are more than the run has."""
    if training.warmup_steps is None:
        return math.ceil(steps * training.warmup)
    if training.warmup_steps > steps:
        raise SettingsError(
            f"warmup_steps {training.warmup_steps}: longer than the run, which has {steps} steps in {training.epochs} epochs; "
            "lower it, or train for more epochs"
        )
    return training.warmup_steps


def make_scheduler(training: TrainingSettings, optimizer: Optimizer, steps: int) -> LambdaLR:
    """The curve on an optimizer's groups. Its state is the number of steps alone, so that a resumed run has the same rates."""
    return LambdaLR(optimizer, make_curve(training, steps))
