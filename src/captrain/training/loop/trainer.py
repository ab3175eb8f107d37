"""`transformers.Trainer` with few seams overridden.

Packed loss, parts with their own rates, captions as evaluation, checkpoints that are whole or not there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerControl, TrainingArguments

from captrain.data.mix import Mixture
from captrain.errors import TrainingError, reason_of
from captrain.metrics.java import JavaError
from captrain.models.captioner import CaptionerModel
from captrain.models.contexts import untouched_randomness
from captrain.settings.schema import Settings
from captrain.training.distributed.strategy import strategy_of
from captrain.training.distributed.trainer import SpreadTrainer
from captrain.training.loop.batch_size import is_out_of_memory, what_to_change
from captrain.training.loop.callbacks import is_best
from captrain.training.loop.non_finite import Guard, first_infinite
from captrain.training.loop.stopping import SIGNALS, Stopped, told_place
from captrain.training.loop.validation import Validation, Validator
from captrain.training.optimization.gradients import GradientCheck
from captrain.training.optimization.optimizers import averaged_weights, make_optimizer
from captrain.training.optimization.schedules import make_scheduler
from captrain.training.optimization.weight_average import WeightAverage
from captrain.training.rows import Collator, EpochSampler, TrainingRows
from captrain.training.run_folder.checkpoints import Checkpoints, Running, load_learned, save_learned

logger = logging.getLogger(__name__)


class CaptionTrainer(SpreadTrainer):
    """Trains a captioner on packed rows.

    Args:
        mixture: which rows an epoch has, and in which order.
        settings: of the run, filled: they make the optimizer.
        checkpoints: where checkpoints go.
        validator: measures the captioner at the end of epochs, or None. on_best: called when its score is the best yet.
    """

    def __init__(
        self,
        captioner: CaptionerModel,
        args: TrainingArguments,
        rows: TrainingRows,
        mixture: Mixture,
        collator: Collator,
        settings: Settings,
        checkpoints: Checkpoints,
        validator: Validator | None,
        on_best: Callable[[Validation], None],
    ) -> None:
        super().__init__(captioner, args, data_collator=collator, train_dataset=rows, eval_dataset=rows)
        rank, size = self.group.rank, self.group.size
        self.sampler = EpochSampler(mixture, args.per_device_train_batch_size * size, rank, size)
        self.strategy = strategy_of(settings.distributed, self.group)
        self.settings = settings
        self.checkpoints = checkpoints
        self.validator = validator
        self.on_best = on_best
        self.latest: Validation | None = None
        self.found_best = False
        self.running = Running()
        self.guard = Guard(self, settings.training.max_bad_steps)
        self.gradient_check = GradientCheck(settings.model.target_modules, looks=not self.is_deepspeed_enabled)
        self.resumed_from: Path | None = None
        self.average = WeightAverage(captioner, settings.training.ema) if settings.training.ema else None
        if self.average is not None:
            self.add_callback(self.average)
        self.control: TrainerControl
        self.optimizer: torch.optim.Optimizer | None
        self.lr_scheduler: LRScheduler | None
        # The captioner divides the summed loss by the tokens of all accumulated batches; its labels are shifted already.
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = False

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train on from a checkpoint or from the beginning; whatever ends it, callbacks close what they have opened."""
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
        """Go on within the lines, the epoch and the counts in which the checkpoint was made; called when all else is ready."""
        if self.resumed_from is None:
            return
        self.running = Running.load(self.resumed_from)
        self._tr_loss += self.running.loss
        self._globalstep_last_logged = self.running.line_step
        if self.running.epoch_is_open:
            self._load_rng_state(str(self.resumed_from))
            self.resumed_from = None  # the random generators go on from here
            self.running.epoch_is_open = False
            self.control = self.callback_handler.on_epoch_end(self.args, self.state, self.control)
            epoch = float(self.state.epoch or 0)
            self._maybe_log_save_evaluate(self._tr_loss, None, self.model_wrapped, None, epoch, None, time.time())

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """As the checkpoint has it, unless it was taken up earlier."""
        if self.resumed_from is not None:
            super()._load_rng_state(checkpoint)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        """Tell the sampler the epoch first: on a resumed epoch accelerate does not. A run that stopped early has none left."""
        if self.control.should_training_stop:
            return None
        self.sampler.set_epoch(kwargs["epoch"])
        return super()._run_epoch(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As the settings say, with a group for each part and kind of weight."""
        if self.optimizer is None:
            self.strategy.share_out(self.captioner)
            self.optimizer = make_optimizer(self.model, self.settings)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """The learning rate's curve, as the settings say."""
        if self.lr_scheduler is None:
            of = cast(torch.optim.Optimizer, optimizer or self.optimizer)
            self.lr_scheduler = make_scheduler(self.settings.training, of, num_training_steps)
        return self.lr_scheduler

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss; one that is no number makes its whole gradient none, so that all processes find it in their common norm."""
        loss = super().compute_loss(*args, **kwargs)
        return loss * (loss.detach() * 0 + 1)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The norm, clipped or not. A step whose gradient is no number is left out: weights and optimizer stay as they are."""
        norm = super()._get_grad_norm(model, grad_norm)
        if self.guard.passes(norm, self.state.global_step + 1):
            self.gradient_check(self.captioner)
            return norm
        self._tr_loss.copy_(self.guard.loss_before)
        if self.accelerator.scaler is None:  # which leaves the step out by itself, and needs the gradients for it
            model.zero_grad(set_to_none=True)
        if self.guard.exhausted:
            raise self._failure(f"in {self.running.bad_in_a_row} steps in a row the gradient's norm was {float(norm)}")
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The mean loss is that of the steps that were taken."""
        super().log(self.guard.corrected(logs) if "loss" in logs else logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Validate, keep the captioner if it is the best yet, and report the scores as `eval_...`."""
        if self.validator is None:
            return {}
        averaged_weights(self.optimizer)
        try:
            with self.averaged(), torch.compiler.set_stance("force_eager"):  # compiling for this too would take minutes
                return self._measure(metric_key_prefix)
        except Stopped:
            self._save_before_evaluation()
            raise
        except JavaError as error:
            self._save_before_evaluation()
            raise TrainingError(f"{self._stopped(str(error))}; run the same command again") from error
        except (RuntimeError, MemoryError) as error:
            raise (self._out_of_memory(writing=True) if is_out_of_memory(error) else error) from error

    def _save_before_evaluation(self) -> None:
        """A checkpoint from which the evaluation that was broken off is done again.

        Of several processes each is somewhere else in it: they go on from the checkpoint before.
        """
        if self.args.world_size <= 1:
            self.running.epoch_is_open = True
            self._save_checkpoint(self.model_wrapped, None)

    def averaged(self) -> AbstractContextManager[None]:
        """While this is open the captioner has the weights that are measured and kept: their average, where there is one."""
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
        self.found_best = is_best(metrics, self.state, self.settings.evaluation.metric)
        if self.found_best:
            with self.strategy.whole_in_first(self.captioner):
                self._write_in_first("the best model", partial(self.on_best, self.latest))
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """What Trainer notes of the best evaluation: no step, or it would note a folder for staging that is gone soon."""
        if self.found_best:
            self.state.best_metric = metrics[str(self.args.metric_for_best_model)]
        return self.found_best

    # Checkpoints: whole or not there.

    def _get_output_dir(self, trial: Any) -> str:
        """Trainer writes into the staging folder; `_save_checkpoint` moves what is complete."""
        return str(self.checkpoints.staging)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write all state, then publish it in one rename. A full disk ends the run and leaves the last checkpoint as it was.

        While steps are left out there is none: their weights may be spoiled, and the last one is the last good one.
        """
        averaged_weights(self.optimizer)
        self._require_finite_weights()
        step = self.state.global_step
        if self.running.bad_in_a_row:
            logger.warning("no checkpoint at step %d: its gradient was no number", step)
            return
        losses = self.group.gather(float(self._tr_loss))
        self.running.loss, self.running.line_step = sum(losses) / len(losses), self._globalstep_last_logged
        self._write("the checkpoint", partial(super()._save_checkpoint, model, trial))
        staged = self.checkpoints.staging / f"checkpoint-{step}"
        self._write_in_first("the checkpoint", partial(self.running.save, staged))
        self._write_in_first("the checkpoint", partial(self.checkpoints.publish, step))

    def _write(self, what: str, write: Callable[[], None]) -> None:
        """Write to disk; what goes wrong there is told on one line."""
        try:
            write()
        except (OSError, RuntimeError, SafetensorError) as error:
            why = f"{what} could not be written ({reason_of(error) or (str(error).splitlines() or ['?'])[0]})"
            raise TrainingError(
                f"{self._stopped(why)}. For a full disk free some space; then run the same command again"
            ) from error

    def _write_in_first(self, what: str, write: Callable[[], None]) -> None:
        """The same in the first process alone, when all have come to it; if it fails all end."""
        with self.group.together():
            if self.group.is_first:
                self._write(what, write)

    def _require_finite_weights(self) -> None:
        """Weights that are no numbers are neither saved nor measured: what is on disk stays good."""
        if name := first_infinite(self.model):
            raise self._failure(f"the weight {name} is no longer finite")

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Only what learns; the rest is where the run began."""
        save_learned(self.captioner, Path(str(output_dir)))
        if self.average is not None:
            self.average.save(Path(str(output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """The counterpart of `_save`."""
        load_learned(self.model, Path(resume_from_checkpoint))
        if self.average is not None:
            self.average.load(Path(resume_from_checkpoint))

    def _out_of_memory(self, *, writing: bool) -> TrainingError:
        """An error that names three settings to change."""
        what = "out of memory while writing validation captions" if writing else "out of memory"
        return TrainingError(
            f"{self._stopped(what)}. Change one of these three, then run the command again with --force: "
            f"{what_to_change(self.settings, writing)}"
        )

    def _stopped(self, what: str) -> str:
        """Where training stopped, why, and what is safe."""
        last = self.checkpoints.last()
        safe = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        return f"training stopped at step {self.state.global_step}: {what}; {safe}"

    def _failure(self, what: str) -> TrainingError:
        """An error for numbers that went astray: where training stopped, what is safe, what to do."""
        return TrainingError(f"{self._stopped(what)}. To go on lower --learning-rate and add --force")
