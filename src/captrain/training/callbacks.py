"""What happens around steps: logs on disk, progress for people, checkpoints in mid-epoch, evaluations now and then."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

from captrain.progress import track
from captrain.training.run_folder import RunFolder
from captrain.training.validate import Validation, spread

logger = logging.getLogger(__name__)

NAMES = {"grad_norm": "gradient_norm"}


class Logbook(TrainerCallback):
    """Writes `metrics.jsonl` and `samples.jsonl`; seconds go on counting over interruptions."""

    def __init__(
        self, run: RunFolder, seconds_before: float, samples: int, latest: Callable[[], Validation | None]
    ) -> None:
        self.run = run
        self.start = time.monotonic() - seconds_before
        self.samples = samples
        self.latest = latest

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """One line, under the names that the run folder's format has."""
        validation = any(name.startswith("eval_") for name in logs)
        if not validation and "loss" not in logs:
            return
        values = {NAMES.get(name, name).removeprefix("eval_"): value for name, value in logs.items() if name != "epoch"}
        self.run.append(
            "metrics.jsonl", [{"kind": "validation" if validation else "train", **self._place(state), **values}]
        )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The captions of the fixed pictures; one of them is shown."""
        validation = self.latest()
        if validation is None:
            return
        chosen = spread(validation.predictions, self.samples)
        place = self._place(state)
        self.run.append("samples.jsonl", [{**place, **caption.to_dict()} for caption in chosen])
        scores = ", ".join(f"{name} {value:.4f}" for name, value in validation.scores.items() if name in SHOWN)
        logger.info("epoch %.4g, step %d: %s", state.epoch, state.global_step, scores)
        if chosen:
            logger.info("  %s: %s", chosen[0].id, chosen[0].text)

    def _place(self, state: TrainerState) -> dict[str, Any]:
        """Where in the run a line belongs."""
        seconds = round(time.monotonic() - self.start, 3)
        return {"step": state.global_step, "epoch": round(float(state.epoch or 0), 4), "seconds": seconds}


SHOWN = ("validation_loss", "bleu_4", "rouge_l", "cider")


class Rhythm(TrainerCallback):
    """When to save and to evaluate, beyond Trainer's every epoch."""

    def __init__(self, checkpoint_every: int, evaluate_every: int, steps_per_epoch: int, epochs: int) -> None:
        self.checkpoint_every = checkpoint_every
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
        """Evaluate at every n-th epoch and at the last."""
        epoch = round(float(state.epoch or 0))
        control.should_evaluate = control.should_evaluate and (epoch % self.evaluate_every == 0 or epoch == self.epochs)


class ProgressBar(TrainerCallback):
    """Images seen of all, with rate and time left."""

    def __init__(self, images_per_epoch: int, epochs: int, batch: int) -> None:
        self.images, self.epochs, self.batch = images_per_epoch, epochs, batch
        self.stack = ExitStack()
        self.seen = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start where the run stands."""
        self.seen = self._images(state)
        self.advance = self.stack.enter_context(track("train", self.images * self.epochs - self.seen))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """One batch further."""
        now = self._images(state)
        self.advance(now - self.seen)
        self.seen = now

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        self.stack.close()

    def _images(self, state: TrainerState) -> int:
        """Images seen so far; the last batch of an epoch may be a short one."""
        steps = -(-self.images // self.batch)
        return state.global_step // steps * self.images + state.global_step % steps * self.batch


def tensorboard(folder: Path) -> list[TrainerCallback]:
    """TensorBoard's writer when it is installed (`pip install 'captrain[track]'`), else nothing."""
    if importlib.util.find_spec("tensorboard") is None:
        return []
    from torch.utils.tensorboard import SummaryWriter

    return [TensorBoardCallback(tb_writer=SummaryWriter(log_dir=str(folder)))]


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
        """Judge after each evaluation."""
        self._stop_if_exhausted(args, state, control)

    def _stop_if_exhausted(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Count the evaluations since the best one."""
        sign = 1 if args.greater_is_better else -1
        metric = str(args.metric_for_best_model)
        scores = [sign * line[metric] for line in state.log_history if metric in line]
        if scores and len(scores) - 1 - scores.index(max(scores)) >= self.patience:
            control.should_training_stop = True
