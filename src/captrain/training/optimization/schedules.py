"""The learning rate over a run: a factor of the peak for each step, computed from the step's number alone.

After the warm-up `cosine` and `linear` fall at every step, `step` at the end of epochs; `constant` does not fall. The
names with `_lr` come from LAVIS (Li et al. 2022; salesforce/LAVIS, `lavis/common/optims.py`), with its rules: a warm-up
within the first epoch, then one rate per epoch.
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

logger = logging.getLogger(__name__)

Curve = Callable[[int], float]


@dataclass(frozen=True)
class Shape:
    """The parameters of a curve.

    Attributes:
        steps, epoch_steps: of the run, of an epoch. epochs: of the run.
        warmup: steps of the warm-up. start, floor: the rate at the start of the warm-up and at the end, over the peak.
        decay: factor of each fall, for curves that fall in steps. decay_epochs: epochs between falls.
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
    """The share of the steps after the warm-up that are done."""
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
    """Multiply by `decay` after every `decay_epochs` epochs, but don't go below the floor.

    >>> [falling_steps(Shape(6, 2, 3, warmup=0, start=0.0, floor=0.2, decay=0.5), step) for step in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    falls = step // shape.epoch_steps // shape.decay_epochs
    return max(shape.floor, shape.decay**falls)


def _lavis(of_epoch: Callable[[Shape, int], float]) -> Callable[[Shape, int], float]:
    """A LAVIS curve: the warm-up in epoch 0, one rate in each later epoch.

    As in LAVIS, the warm-up is cut short when the first epoch ends; without warm-up steps the very first step is at `start`.
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


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate of a run: a warm-up to the peak, then a fall.

    Attributes:
        name: of the curve, one of `OWN` or `LAVIS`.
        peak, start, floor: the highest rate, that of the first step, and the lowest at the end.
        epochs: of the run.
        warmup_steps: steps of the warm-up; if it is 0, the warm-up takes `warmup_share` of all steps.
        decay_rate, decay_epochs: factor of each fall for curves that fall in steps, and the epochs between falls.
    """

    name: str
    peak: float
    epochs: int
    start: float = 0.0
    floor: float = 0.0
    warmup_steps: int = 0
    warmup_share: float = 0.0
    decay_rate: float = 0.1
    decay_epochs: int = 1

    def __post_init__(self) -> None:
        for name, rate in (("warmup_learning_rate", self.start), ("min_learning_rate", self.floor)):
            if rate > self.peak:
                raise SettingsError(
                    f"{name} {rate}: is above the peak of {self.peak}; lower it, or give a higher learning_rate"
                )

    def warmup(self, steps: int) -> int:
        """Steps of the warm-up in a run of so many steps. Raises `SettingsError` if the run has fewer steps.

        >>> Schedule("cosine", 1e-4, epochs=5, warmup_share=0.05).warmup(61)
        4
        """
        if self.warmup_steps > steps:
            raise SettingsError(
                f"warmup_steps {self.warmup_steps}: longer than the run, which has {steps} steps in {self.epochs} epochs; "
                "lower it, or train for more epochs"
            )
        return self.warmup_steps or math.ceil(steps * self.warmup_share)


def make_curve(schedule: Schedule, steps: int) -> Curve:
    """The factor of the peak at each step, counted from 0, in a run of so many steps.

    Each group of weights has its own peak; the factor is the same for all.

    Raises `SettingsError` when the warm-up is longer than the run.
    """
    peak, warmup = schedule.peak, schedule.warmup(steps)
    shape = Shape(
        steps, max(1, steps // schedule.epochs), schedule.epochs, warmup, schedule.start / peak, schedule.floor / peak,
        schedule.decay_rate, schedule.decay_epochs,
    )  # fmt: skip
    if schedule.name in LAVIS and warmup > shape.epoch_steps and schedule.start < peak:
        logger.warning("%s warms up in the first epoch only: %d of %d steps", schedule.name, shape.epoch_steps, warmup)
    curve = {**OWN, **LAVIS}[schedule.name]
    return lambda step: curve(shape, step)


def make_scheduler(schedule: Schedule, optimizer: Optimizer, steps: int) -> LambdaLR:
    """The curve applied to an optimizer's groups. Its only state is the step number, so a resumed run has the same rates."""
    return LambdaLR(optimizer, make_curve(schedule, steps))
