"""When things happen around steps: checkpoints in mid-epoch, evaluations now and then, an early end."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Rhythm(TrainerCallback):
    """When to save and to evaluate, beyond Trainer's every epoch."""

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
        """A checkpoint in mid-epoch. The last step of an epoch has none: its checkpoint comes after the evaluation.

        Where a checkpoint comes a log line does too: the mean loss of the next one then needs nothing from before the checkpoint.
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


class Patience(TrainerCallback):
    """Stops after some evaluations without a better score.

    It counts in the log that every checkpoint holds, so that a run which is started again stops where it would have stopped.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A run that had stopped already stays so."""
        self._stop_if_exhausted(args, state, control)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Judge after each evaluation. The last epoch has a checkpoint."""
        self._stop_if_exhausted(args, state, control)
        control.should_save = control.should_save or control.should_training_stop

    def _stop_if_exhausted(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Count the evaluations since the best one."""
        sign = 1 if args.greater_is_better else -1
        metric = str(args.metric_for_best_model)
        scores = [sign * line[metric] for line in state.log_history if metric in line]
        if scores and len(scores) - 1 - scores.index(max(scores)) >= self.patience:
            control.should_training_stop = True
