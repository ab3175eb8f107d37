"""Steps whose loss or gradient is no number: left out and counted, until there are too many in a row."""

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
    """The name of the first weight that learns and holds a value that is no number, or infinite; "" while all are finite.

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
    """What a guard looks at of a trainer: its counts, its running loss, and the scaler of fp16."""

    running: Running
    accelerator: Accelerator
    _tr_loss: Tensor


class Guard:
    """Judges each step of a trainer by its gradient's norm, which all processes share; counts in the trainer's running state."""

    def __init__(self, trainer: Guarded, most: int) -> None:
        """`most` is how many steps in a row may be left out before training stops."""
        self.trainer = trainer
        self.most = most
        self.loss_before: Tensor

    @property
    def exhausted(self) -> bool:
        """Whether so many steps in a row were left out that training has to stop."""
        return self.trainer.running.bad_in_a_row >= self.most

    def begin_step(self) -> None:
        """Remember the running loss, which a step that is left out has no part in."""
        self.loss_before = self.trainer._tr_loss.clone()

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
        """A line of the log whose mean loss is that of the steps that were taken, and which counts the others."""
        running = self.trainer.running
        if running.left_out:
            taken = running.steps - running.left_out
            logs["loss"] = logs["loss"] * running.steps / taken if taken else math.nan
        if running.bad_steps:
            logs["bad_steps"] = running.bad_steps
        running.steps = running.left_out = 0
        return logs

    def _is_overflow(self) -> bool:
        """Whether fp16's scaling of the loss is to blame, which is lowered then: steps are lost so now and then."""
        scaler = self.trainer.accelerator.scaler
        return scaler is not None and float(scaler.get_scale()) > 1
