"""Steps with a non-finite loss or gradient: left out and counted, until there are too many in a row."""

from __future__ import annotations

import logging
import math
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from captrain.training.distributed.sharding import local
from captrain.training.run_folder.checkpoints import Running

logger = logging.getLogger(__name__)


def first_infinite(model: nn.Module) -> str:
    """The name of the first learning weight with a non-finite value; "" if all are finite.

    >>> model = nn.Linear(2, 1)
    >>> first_infinite(model)
    ''
    >>> _ = nn.init.constant_(model.bias, float("nan"))
    >>> first_infinite(model)
    'bias'
    """
    for name, weight in model.named_parameters():
        if weight.requires_grad and not bool(torch.isfinite(local(weight)).all()):
            return name
    return ""


class Guarded(Protocol):
    """What a guard reads of a trainer: its counts, its running loss, and the scaler of fp16."""

    running: Running
    accelerator: Accelerator
    running_loss: Tensor


class Guard:
    """Decides by the norm of its gradient whether a step can be taken; all processes share that norm, so all decide alike.

    Counts go into the trainer's running state.
    """

    def __init__(self, trainer: Guarded, most: int) -> None:
        """`most` is the number of steps in a row that may be left out before training stops."""
        self.trainer = trainer
        self.most = most
        self.loss_before: Tensor

    @property
    def exhausted(self) -> bool:
        """Whether too many steps in a row were left out, so that training has to stop."""
        return self.trainer.running.bad_in_a_row >= self.most

    def begin_step(self) -> None:
        """Remember the running loss from before the step, because a left-out step must not count in it."""
        self.loss_before = self.trainer.running_loss.clone()

    def passes(self, norm: Any, step: int) -> bool:
        """Whether the step can be taken; if not, it is counted."""
        running = self.trainer.running
        running.steps += 1
        if math.isfinite(float(norm)):
            running.bad_in_a_row = 0
            return True
        running.left_out += 1
        if self._is_overflow():
            return False
        running.bad_steps += 1
        running.bad_in_a_row += 1
        logger.warning(
            "step %d left out: its gradient's norm is %s (%d of %d in a row, %d in all)",
            step, float(norm), running.bad_in_a_row, self.most, running.bad_steps,
        )  # fmt: skip
        return False

    def corrected(self, logs: dict[str, float]) -> dict[str, float]:
        """A log line with the mean loss of the steps that were taken and the number of the others."""
        running = self.trainer.running
        if running.left_out:
            taken = running.steps - running.left_out
            logs["loss"] = logs["loss"] * running.steps / taken if taken else math.nan
        if running.bad_steps:
            logs["bad_steps"] = running.bad_steps
        running.steps = running.left_out = 0
        return logs

    def _is_overflow(self) -> bool:
        """Whether fp16's loss scaling caused it. Losing a step now and then is normal: the scale is lowered."""
        scaler = self.trainer.accelerator.scaler
        return scaler is not None and float(scaler.get_scale()) > 1
