"""When a training saves, evaluates and stops early."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captrain.metrics.best import is_better, is_constant, since_best
from captrain.training.loop.validation import advice

logger = logging.getLogger(__name__)


class CheckpointSchedule(TrainerCallback):
    """When to save and when to evaluate. Trainer by itself does both at the end of every epoch."""

    def __init__(
        self,
        checkpoint_every: int,
        checkpoint_every_epochs: int,
        evaluate_every: int,
        steps_per_epoch: int,
        epochs: int,
    ) -> None:
        self.checkpoint_every = checkpoint_every
        self.checkpoint_every_epochs = checkpoint_every_epochs
        self.evaluate_every = evaluate_every
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epochs

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A checkpoint in mid-epoch. The last step of an epoch gets its checkpoint after the evaluation instead.

        Each checkpoint comes with a log line, so that the mean loss of the next line needs nothing from before the checkpoint.
        """
        ends_epoch = state.global_step % self.steps_per_epoch == 0
        if ends_epoch or state.global_step % self.checkpoint_every == 0:
            control.should_log = True
            control.should_save = control.should_save or not ends_epoch

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate at every n-th epoch, save at every m-th, and do both at the last."""
        epoch = round(float(state.epoch or 0))
        control.should_evaluate = control.should_evaluate and (epoch % self.evaluate_every == 0 or epoch == self.epochs)
        control.should_save = epoch % self.checkpoint_every_epochs == 0 or epoch == self.epochs


def evaluations_of(state: TrainerState, metric: str) -> list[dict[str, Any]]:
    """The scores of every evaluation so far, by name, without Trainer's prefix."""
    return [_named(line) for line in state.log_history if f"eval_{metric}" in line]


def is_best(metrics: Mapping[str, Any], state: TrainerState, metric: str) -> bool:
    """Whether an evaluation is better than all in the log, which every checkpoint holds."""
    return is_better(_named(metrics), evaluations_of(state, metric), metric)


def _named(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("eval_"): value for name, value in line.items()}


class Discernment(TrainerCallback):
    """Warns once when the score that chooses the best model was the same at the first two evaluations."""

    def __init__(self, metric: str, patience: int | None) -> None:
        self.metric, self.patience = metric, patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Compare at the second evaluation; a resumed run has the first one in its log."""
        found = evaluations_of(state, self.metric)
        if len(found) == 2 and is_constant(found, self.metric):
            value = found[-1][self.metric]
            logger.warning(advice(f"{self.metric} was {value:.4f} at both evaluations so far", self.patience))


class Patience(TrainerCallback):
    """Stops after some evaluations without improvement, by the rule that chooses the best model.

    It counts evaluations in the log, which every checkpoint holds, so that a resumed run stops at the same place.
    """

    def __init__(self, metric: str, patience: int) -> None:
        self.metric, self.patience = metric, patience

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A run that had stopped stays stopped."""
        self._stop_if_exhausted(args, state, control)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Decide after each evaluation. The last epoch has a checkpoint."""
        self._stop_if_exhausted(args, state, control)
        control.should_save = control.should_save or control.should_training_stop

    def _stop_if_exhausted(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Count the evaluations since the best one."""
        if since_best(evaluations_of(state, self.metric), self.metric) >= self.patience:
            control.should_training_stop = True
