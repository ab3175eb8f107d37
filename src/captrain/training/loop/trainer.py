"""The training loop: `transformers.Trainer` with a packed loss, a learning rate per part, and captions as evaluation.

Checkpoints are whole or not there. Whatever depends on Trainer's internals is in `trainer_adapter`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainingArguments

from captrain.errors import TrainingError, reason_of
from captrain.metrics.java import JavaError
from captrain.metrics.own import MetricError
from captrain.models.contexts import untouched_randomness
from captrain.models.contract import CaptionerModel
from captrain.models.device import is_out_of_memory
from captrain.training.distributed.strategy import Strategy
from captrain.training.loop.batch_size import MemorySettings, what_to_change
from captrain.training.loop.callbacks import is_best
from captrain.training.loop.non_finite import Guard, first_infinite
from captrain.training.loop.signals import SIGNALS, Stopped, told_place
from captrain.training.loop.trainer_adapter import EpochData, TrainerAdapter
from captrain.training.loop.validation import Validation, Validator
from captrain.training.optimization.gradients import GradientCheck
from captrain.training.optimization.optimizers import Optimization, averaged_weights, make_optimizer
from captrain.training.optimization.schedules import Schedule, make_scheduler
from captrain.training.optimization.weight_average import WeightAverage
from captrain.training.run_folder.checkpoints import Checkpoints, Running, load_learned, save_learned

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LearningPlan:
    """How a trainer learns, and when it stops.

    Attributes:
        metric: the score that chooses the best model.
        max_bad_steps: so many left-out steps in a row end the training.
        average_decay: decay of the running average of weights, which is then what is measured and kept; 0 for none.
        target_modules: names of the modules that get adapters: each has to learn.
    """

    optimization: Optimization
    schedule: Schedule
    memory: MemorySettings
    metric: str = "cider"
    max_bad_steps: int = 10
    average_decay: float = 0.0
    target_modules: tuple[str, ...] = ()


class CaptionTrainer(TrainerAdapter):
    """Trains a captioner on packed rows.

    Args:
        checkpoints: where checkpoints go.
        validator: measures the captioner at the end of epochs, or None. on_best: called when its score is the best yet.
    """

    def __init__(
        self,
        captioner: CaptionerModel,
        args: TrainingArguments,
        data: EpochData,
        plan: LearningPlan,
        strategy: Strategy,
        checkpoints: Checkpoints,
        validator: Validator | None,
        on_best: Callable[[Validation], None],
    ) -> None:
        super().__init__(captioner, args, data, strategy)
        self.plan = plan
        self.checkpoints = checkpoints
        self.validator = validator
        self.on_best = on_best
        self.latest: Validation | None = None
        self.running = Running()
        self.guard = Guard(self, plan.max_bad_steps)
        self.gradient_check = GradientCheck(plan.target_modules, looks=not self.is_deepspeed_enabled)
        self.resumed_from: Path | None = None
        self.average = WeightAverage(captioner, plan.average_decay) if plan.average_decay else None
        if self.average is not None:
            self.add_callback(self.average)
        self.optimizer: torch.optim.Optimizer | None
        self.lr_scheduler: LRScheduler | None

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train from a checkpoint or from the beginning. However it ends, callbacks close what they have opened."""
        self.resumed_from = resume_from_checkpoint and Path(resume_from_checkpoint)
        try:
            with SIGNALS.waiting(True):
                return super().train(resume_from_checkpoint, *args, **kwargs)
        except BaseException as error:
            with suppress(Exception):
                self.callback_handler.on_train_end(self.args, self.state, self.control)
            if is_out_of_memory(error):
                raise self._out_of_memory(writing=False) from error
            if isinstance(error, Stopped):
                error.place = told_place(self.state.global_step, self.checkpoints.last_step())
            raise

    def take_up(self) -> None:
        """Restore the log line, the epoch and the counts of the checkpoint. Called when everything else is ready."""
        if self.resumed_from is None:
            return
        self.running = Running.load(self.resumed_from)
        self.restore_log(self.running.loss, self.running.line_step)
        if self.running.epoch_is_open:
            self.restore_random_state(self.resumed_from)
            self.running.epoch_is_open = False
            self.end_epoch()

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer, with a group for each part and kind of weight."""
        if self.optimizer is None:
            self.strategy.share_out(self.captioner)
            self.optimizer = make_optimizer(self.model, self.plan.optimization)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """The learning-rate schedule."""
        if self.lr_scheduler is None:
            of = cast(torch.optim.Optimizer, optimizer or self.optimizer)
            self.lr_scheduler = make_scheduler(self.plan.schedule, of, num_training_steps)
        return self.lr_scheduler

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss. A non-finite loss makes its whole gradient non-finite, so all processes see it in their common norm."""
        loss = super().compute_loss(*args, **kwargs)
        return loss * (loss.detach() * 0 + 1)

    def check_step(self, model: nn.Module, norm: Any) -> None:
        """Leave out a step with a non-finite gradient: weights and optimizer stay as they are."""
        if self.guard.passes(norm, self.state.global_step + 1):
            self.gradient_check(self.captioner)
            return
        self.running_loss.copy_(self.guard.loss_before)
        if self.accelerator.scaler is None:  # a scaler leaves the step out by itself, and needs the gradients to do so
            model.zero_grad(set_to_none=True)
        if self.guard.exhausted:
            raise self._failure(f"in {self.running.bad_in_a_row} steps in a row the gradient's norm was {float(norm)}")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean loss of the steps that were taken."""
        super().log(self.guard.corrected(logs) if "loss" in logs else logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Validate, save the captioner if it is the best so far, and report the scores as `eval_...`."""
        if self.validator is None:
            return {}
        averaged_weights(self.optimizer)
        try:
            with self.averaged(), torch.compiler.set_stance("force_eager"):  # compiling this too would take minutes
                return self._measure(metric_key_prefix)
        except Stopped:
            self._save_before_evaluation()
            raise
        except (JavaError, MetricError) as error:
            self._save_before_evaluation()
            raise TrainingError(f"{self._stopped(str(error))}; run the same command again") from error
        except (RuntimeError, MemoryError) as error:
            raise (self._out_of_memory(writing=True) if is_out_of_memory(error) else error) from error

    def _save_before_evaluation(self) -> None:
        """A checkpoint from which the interrupted evaluation is repeated.

        Several processes are at different places in the evaluation: they resume from the checkpoint before it.
        """
        if self.args.world_size <= 1:
            self.running.epoch_is_open = True
            self.save_now()

    def averaged(self) -> AbstractContextManager[None]:
        """In this context the captioner has the weights that are measured and saved: the average, if there is one."""
        return nullcontext() if self.average is None else self.average.in_place()

    def _measure(self, metric_key_prefix: str) -> dict[str, float]:
        """Validate the weights as they are now."""
        assert self.validator is not None
        self._require_finite_weights()
        with SIGNALS.waiting(False), untouched_randomness(), self.strategy.whole_in_all(self.captioner):
            self.latest = self.validator(self.captioner)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.latest.scores.items()}
        if self.args.metric_for_best_model == f"{metric_key_prefix}_cider_and_bleu_4":
            metrics[self.args.metric_for_best_model] = metrics["eval_cider"] + metrics["eval_bleu_4"]
        self.found_best = is_best(metrics, self.state, self.plan.metric)
        if self.found_best:
            with self.whole_in_first():
                self._write_in_first("the best model", partial(self.on_best, self.latest))
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # Checkpoints: whole or not there.

    def checkpoint_folder(self) -> Path:
        """Trainer writes into the staging folder; `write_checkpoint` moves what is complete."""
        return self.checkpoints.staging

    def write_checkpoint(self, write: Callable[[], None]) -> None:
        """Write all state, then publish it in one rename. A full disk ends the run; the last checkpoint stays.

        Nothing is saved while steps are being left out: the weights may be spoiled, and the last checkpoint is good.
        """
        averaged_weights(self.optimizer)
        self._require_finite_weights()
        step = self.state.global_step
        if self.running.bad_in_a_row:
            logger.warning("no checkpoint at step %d: its gradient was non-finite", step)
            return
        losses = self.group.gather(float(self.running_loss))
        self.running.loss, self.running.line_step = sum(losses) / len(losses), self.last_logged_step
        self._write("the checkpoint", write)
        staged = self.checkpoints.staging / f"checkpoint-{step}"
        self._write_in_first("the checkpoint", partial(self.running.save, staged))
        self._write_in_first("the checkpoint", partial(self.checkpoints.publish, step))

    def _write(self, what: str, write: Callable[[], None]) -> None:
        """Write to disk; an error becomes a `TrainingError` of one line."""
        try:
            write()
        except (OSError, RuntimeError, SafetensorError) as error:
            why = f"{what} could not be written ({reason_of(error) or (str(error).splitlines() or ['?'])[0]})"
            raise TrainingError(
                f"{self._stopped(why)}. For a full disk free some space; then run the same command again"
            ) from error

    def _write_in_first(self, what: str, write: Callable[[], None]) -> None:
        """The same in the first process only, once all have arrived. If it fails, all end."""
        with self.group.together():
            if self.group.is_first:
                self._write(what, write)

    def _require_finite_weights(self) -> None:
        """Non-finite weights are neither saved nor measured: what is on disk stays good."""
        if name := first_infinite(self.model):
            raise self._failure(f"the weight {name} is no longer finite")

    def save_weights(self, folder: Path) -> None:
        """Save the learning weights, and their average if there is one."""
        save_learned(self.captioner, folder)
        if self.average is not None:
            self.average.save(folder)

    def load_weights(self, folder: Path) -> None:
        """The counterpart of `save_weights`."""
        load_learned(self.model, folder)
        if self.average is not None:
            self.average.load(folder)

    def _out_of_memory(self, *, writing: bool) -> TrainingError:
        """The error for a full memory. It names three settings to change."""
        what = "out of memory while writing validation captions" if writing else "out of memory"
        return TrainingError(
            f"{self._stopped(what)}. Change one of these three, then run the command again with --force: "
            f"{what_to_change(self.plan.memory, writing)}"
        )

    def _stopped(self, what: str) -> str:
        """Where training stopped, why, and what is saved."""
        last = self.checkpoints.last()
        safe = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        return f"training stopped at step {self.state.global_step}: {what}; {safe}"

    def _failure(self, what: str) -> TrainingError:
        """The error for non-finite numbers: where training stopped, what is saved, what to do."""
        return TrainingError(f"{self._stopped(what)}. To go on, lower --learning-rate and add --force")
