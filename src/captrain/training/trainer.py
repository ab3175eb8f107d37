"""`transformers.Trainer` with few seams overridden.

Packed loss, parts with their own rates, captions as evaluation, checkpoints that are whole or not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerControl, TrainingArguments

from captrain.data.mix import Mixture
from captrain.errors import TrainingError
from captrain.models.captioner import Captioner
from captrain.settings.schema import Settings
from captrain.training.checkpoints import Checkpoints, load_learned, save_learned
from captrain.training.optimizers import make_optimizer
from captrain.training.rows import Collator, EpochSampler, TrainingRows
from captrain.training.validate import Validation, Validator


class CaptionTrainer(Trainer):
    """Trains a captioner on packed rows.

    Args:
        mixture: which rows an epoch has, and in which order.
        settings: of the run, filled: they make the optimizer.
        checkpoints: where checkpoints go.
        validator: measures the captioner at the end of epochs, or None. on_best: called when its score is the best yet.
    """

    def __init__(
        self,
        captioner: Captioner,
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
        self.sampler = EpochSampler(mixture)
        self.settings = settings
        self.checkpoints = checkpoints
        self.validator = validator
        self.on_best = on_best
        self.latest: Validation | None = None
        self.control: TrainerControl
        self.optimizer: torch.optim.Optimizer | None
        # The captioner divides the summed loss by the tokens of all accumulated batches; its labels are shifted already.
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = False

    def get_train_dataloader(self) -> DataLoader:
        """Batches of rows in the sampler's order, which does not depend on the state of any random generator."""
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.args.per_device_train_batch_size,
            sampler=self.sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=False,
        )
        return self.accelerator.prepare(loader)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        """Tell the sampler the epoch first: on a resumed epoch accelerate does not. A run that stopped early has none left."""
        if self.control.should_training_stop:
            return None
        self.sampler.set_epoch(kwargs["epoch"])
        return super()._run_epoch(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As the settings say, with a group for each part and kind of weight."""
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.model, self.settings)
        return self.optimizer

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One forward and backward; a loss that is no number stops the training before it spoils the weights."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not math.isfinite(float(loss)):
            raise self._failure(f"the loss became {float(loss)}")
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The norm, clipped or not; gradients that are no numbers stop the training before they reach the weights.

        In fp16 they do so now and then while the loss is scaled as far up as it goes: the scaler leaves such steps out.
        """
        norm = super()._get_grad_norm(model, grad_norm)
        if not math.isfinite(float(norm)) and not self.args.fp16:
            raise self._failure(f"the gradient's norm became {float(norm)}")
        return norm

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Validate, keep the captioner if it is the best yet, and report the scores as `eval_...`."""
        if self.validator is None:
            return {}
        self._require_finite_weights()
        self.latest = self.validator(self.accelerator.unwrap_model(self.model))
        scores = self.latest.scores
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        if self.args.metric_for_best_model == f"{metric_key_prefix}_cider_and_bleu_4":
            metrics[self.args.metric_for_best_model] = scores["cider"] + scores["bleu_4"]
        if self._is_best(metrics):
            self._write("the best model", partial(self.on_best, self.latest))
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _is_best(self, metrics: dict[str, float]) -> bool:
        """The rule by which Trainer will note the best score right after this evaluation."""
        value, best = metrics[str(self.args.metric_for_best_model)], self.state.best_metric
        return best is None or (value > best if self.args.greater_is_better else value < best)

    # Checkpoints: whole or not there.

    def _get_output_dir(self, trial: Any) -> str:
        """Trainer writes into the staging folder; `_save_checkpoint` moves what is complete."""
        return str(self.checkpoints.staging)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write all state, then publish it in one rename. A full disk ends the run and leaves the last checkpoint as it was."""
        self._require_finite_weights()
        self._write("the checkpoint", partial(super()._save_checkpoint, model, trial))
        self._write("the checkpoint", partial(self.checkpoints.publish, self.state.global_step))

    def _write(self, what: str, write: Callable[[], None]) -> None:
        """Write to disk; what goes wrong there is told on one line."""
        try:
            write()
        except (OSError, RuntimeError, SafetensorError) as error:
            raise self._failure(f"{what} could not be written ({(str(error).splitlines() or ['?'])[0]})") from error

    def _require_finite_weights(self) -> None:
        """Weights that are no numbers are neither saved nor measured: what is on disk stays good."""
        for name, weight in self.model.named_parameters():
            if weight.requires_grad and not bool(torch.isfinite(weight).all()):
                raise self._failure(f"the weight {name} is no longer finite")

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Only what learns; the rest is where the run began."""
        save_learned(self.accelerator.unwrap_model(self.model), Path(str(output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """The counterpart of `_save`."""
        load_learned(self.model, Path(resume_from_checkpoint))

    def _failure(self, what: str) -> TrainingError:
        """An error that says where training stopped and what is safe."""
        last = self.checkpoints.last()
        safe = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        return TrainingError(
            f"training stopped at step {self.state.global_step}: {what}; {safe}. "
            "For a loss or gradient lower --learning-rate; for a full disk free some space; then run the same command again"
        )
