"""Every place where captrain depends on the internals of `transformers.Trainer`, behind names of its own.

Any release of transformers may change names that begin with an underscore. So no other file of captrain uses them, and
`OVERRIDDEN`, `CALLED` and `ATTRIBUTES` list what this file relies on: a test compares them with the installed version, and names
what moved.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerControl, TrainingArguments, set_seed
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from captrain.data.samples import Mixture
from captrain.models.contract import CaptionerModel
from captrain.training.distributed.group import here
from captrain.training.distributed.strategy import Strategy
from captrain.training.rows import Collator, EpochSampler, TrainingRows
from captrain.training.run_folder.checkpoints import reading_state

OVERRIDDEN: dict[str, tuple[str, ...]] = {
    "train": ("resume_from_checkpoint",),
    "create_optimizer": (),
    "create_scheduler": ("num_training_steps", "optimizer"),
    "get_train_dataloader": (),
    "compute_loss": ("model", "inputs"),
    "log": ("logs", "start_time"),
    "evaluate": ("eval_dataset", "ignore_keys", "metric_key_prefix"),
    "save_model": ("output_dir", "_internal_call"),
    "_wrap_model": ("model", "training", "dataloader"),
    "_run_epoch": ("epoch",),
    "_get_grad_norm": ("model", "grad_norm"),
    "_determine_best_metric": ("metrics", "trial"),
    "_get_output_dir": ("trial",),
    "_save_checkpoint": ("model", "trial"),
    "_save": ("output_dir", "state_dict"),
    "_save_optimizer_and_scheduler": ("output_dir",),
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),
    "_load_optimizer_and_scheduler": ("checkpoint",),
    "_load_rng_state": ("checkpoint",),
}
"""Methods of Trainer that captrain overrides, and the parameters that the override uses or passes on, by name."""

CALLED: dict[str, tuple[str, ...]] = {
    "_maybe_log_save_evaluate": (
        "tr_loss", "grad_norm", "model", "trial", "epoch", "ignore_keys_for_eval", "start_time",
    ),
}  # fmt: skip
"""Private methods that captrain calls, and the parameters that it gives, in this order."""

ATTRIBUTES = (
    "_tr_loss", "_globalstep_last_logged", "accelerator", "callback_handler", "model_accepts_loss_kwargs", "model_wrapped",
    "_loss_shifts_labels", "is_deepspeed_enabled", "data_collator", "train_dataset", "optimizer", "lr_scheduler", "control",
    "state",
)  # fmt: skip
"""Attributes that Trainer sets and captrain reads or changes."""


class EpochData(NamedTuple):
    """The input of a trainer: rows, their order in each epoch, and the collator that makes batches of them."""

    rows: TrainingRows
    mixture: Mixture
    collator: Collator


class TrainerAdapter(Trainer):
    """`transformers.Trainer` under public names, in a group of processes: each takes its share of every batch, the first writes.

    The model is distributed as `strategy` says. The sampler distributes the rows: nothing else may do so.
    """

    def __init__(self, captioner: CaptionerModel, args: TrainingArguments, data: EpochData, strategy: Strategy) -> None:
        if args.n_gpu > 1:
            args._n_gpu = 1  # one device per process: Trainer would split batches that are already packed
        super().__init__(captioner, args, data_collator=data.collator, train_dataset=data.rows, eval_dataset=data.rows)
        self.strategy = strategy
        self.group = here()
        rank, size = self.group.rank, self.group.size
        self.sampler = EpochSampler(data.mixture, args.per_device_train_batch_size * size, rank, size)
        if not self.group.is_first:
            set_seed(args.seed + rank)  # else dropout would drop the same places in all processes
        self.control: TrainerControl
        self.found_best = False
        self.random_state_is_restored = False
        # The captioner divides the summed loss by the tokens of all accumulated batches; its labels are already shifted.
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = (
            False  # since about transformers 5.20; before, it counted all labels, which is the same
        )

    # What a subclass defines.

    def check_step(self, model: nn.Module, norm: Any) -> None:
        """Called before each step of the optimizer, with the norm of the gradient of all its batches."""

    def write_checkpoint(self, write: Callable[[], None]) -> None:
        """Save; `write` has Trainer write its files below `checkpoint_folder`."""
        raise NotImplementedError

    def checkpoint_folder(self) -> Path:
        """The folder in which Trainer makes a checkpoint's folder."""
        raise NotImplementedError

    def save_weights(self, folder: Path) -> None:
        """Write what learns into a checkpoint."""
        raise NotImplementedError

    def load_weights(self, folder: Path) -> None:
        """The counterpart of `save_weights`."""
        raise NotImplementedError

    # What a subclass uses.

    @property
    def captioner(self) -> CaptionerModel:
        """The captioner without any wrapper."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def running_loss(self) -> Tensor:
        """The sum of the losses since the last log line; a tensor to be changed in place."""
        return self._tr_loss

    @property
    def last_logged_step(self) -> int:
        """The step of the last log line."""
        return int(self._globalstep_last_logged)

    def restore_log(self, loss: float, step: int) -> None:
        """Resume within a log line that began after `step`."""
        self._tr_loss += loss
        self._globalstep_last_logged = step

    def restore_random_state(self, checkpoint: Path) -> None:
        """Restore a checkpoint's random generators now; Trainer will not do it later."""
        self._load_rng_state(str(checkpoint))
        self.random_state_is_restored = True

    def end_epoch(self) -> None:
        """Do what belongs to the end of an epoch: evaluate and save."""
        self.control = self.callback_handler.on_epoch_end(self.args, self.state, self.control)
        epoch = float(self.state.epoch or 0)
        self._maybe_log_save_evaluate(self._tr_loss, None, self.model_wrapped, None, epoch, None, time.time())

    def save_now(self) -> None:
        """Save a checkpoint out of turn."""
        self._save_checkpoint(self.model_wrapped, None)

    def whole_in_first(self) -> AbstractContextManager[None]:
        """In this context the first process can save the captioner."""
        return self.strategy.whole_in_first(self.captioner)

    # What Trainer calls.

    def get_train_dataloader(self) -> DataLoader:
        """This process's share of each batch, in an order that does not depend on the state of any random generator."""
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: Any = None) -> nn.Module:
        """The model that the steps run."""
        wrapped = self.strategy.wrapped(self.captioner) if training and model is self.model else None
        return super()._wrap_model(model, training, dataloader) if wrapped is None else wrapped

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        """Tell the sampler the epoch first: accelerate does not in a resumed one. A run that stopped early has none left."""
        if self.control.should_training_stop:
            return None
        self.sampler.set_epoch(kwargs["epoch"])
        return super()._run_epoch(*args, **kwargs)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The norm of a step's gradient, clipped or not."""
        norm = super()._get_grad_norm(model, grad_norm)
        self.check_step(model, norm)
        return norm

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Record the best score without a step: Trainer would record the staging folder, which soon disappears."""
        if self.found_best:
            self.state.best_metric = metrics[str(self.args.metric_for_best_model)]
        return self.found_best

    # Checkpoints: the first process writes them, in the same form whatever the strategy.

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.checkpoint_folder())

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.write_checkpoint(partial(super()._save_checkpoint, model, trial))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The complete learning weights."""
        with self.whole_in_first():
            if self.group.is_first:
                self._save(output_dir)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save only what learns; the rest is in the model that the run began with."""
        self.save_weights(Path(str(output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """The counterpart of `_save`."""
        self.load_weights(Path(resume_from_checkpoint))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Write optimizer and schedule as one process would."""
        if not self.strategy.shares_optimizer:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = self.strategy.whole_state(self.optimizer)
        if self.group.is_first:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The counterpart of `_save_optimizer_and_scheduler`; any number of processes may have written the files."""
        if checkpoint is None:
            return
        with reading_state(Path(checkpoint)):
            if not self.strategy.shares_optimizer:
                super()._load_optimizer_and_scheduler(checkpoint)
                return
            state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
            self.optimizer.load_state_dict(self.strategy.own_state(self.optimizer, state))
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """The random generators' state, unless it was restored already."""
        if checkpoint is not None and not self.random_state_is_restored:
            with reading_state(Path(checkpoint)):
                super()._load_rng_state(checkpoint)
