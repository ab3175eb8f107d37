"""Around the steps of a trainer: where it goes on after a stop, and where it stops when it is asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captrain.training.signals import SIGNALS, Stopped

if TYPE_CHECKING:
    from captrain.training.trainer import CaptionTrainer


class Watch(TrainerCallback):
    """The last of a trainer's callbacks: what the others do at the beginning is done then."""

    def __init__(self, trainer: CaptionTrainer, steps_per_epoch: int) -> None:
        self.trainer = trainer
        self.steps_per_epoch = steps_per_epoch
        self.stops = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up what the checkpoint left open."""
        self.trainer.take_up()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember the loss so far, for a step that has to be left out."""
        self.trainer.guard.begin_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save when a signal has come; at the last step of an epoch, before its evaluation, which then comes first next time."""
        self.stops = self._asked_anywhere(args)
        if self.stops:
            control.should_save = True
            control.should_log = control.should_log or args.world_size > 1  # each process has a running loss of its own
            self.trainer.running.epoch_is_open = state.global_step % self.steps_per_epoch == 0

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop once it is saved; at a signal that came while it was being saved, too."""
        if stops := self.stops or (SIGNALS.asked if args.world_size <= 1 else 0):
            raise Stopped(stops, SIGNALS.place)

    def _asked_anywhere(self, args: TrainingArguments) -> int:
        """The signal that any of the processes got: all of them stop at the same step."""
        if args.world_size <= 1:
            return SIGNALS.asked
        asked = torch.tensor(SIGNALS.asked, device=args.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return int(asked)
