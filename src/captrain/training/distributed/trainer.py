"""`transformers.Trainer` in a group of processes: each sees its share of every batch, the first one writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from captrain.models.captioner import CaptionerModel
from captrain.training.distributed.group import here
from captrain.training.distributed.strategy import Strategy
from captrain.training.run_folder.checkpoints import reading_state


class SpreadTrainer(Trainer):
    """A trainer whose model is spread as `strategy` says. Its sampler deals out the rows: nothing else may share them out."""

    strategy: Strategy
    sampler: Any

    def __init__(self, captioner: CaptionerModel, args: TrainingArguments, **kwargs: Any) -> None:
        if args.n_gpu > 1:
            args._n_gpu = 1  # one process uses one device: Trainer would split batches that are packed already
        super().__init__(captioner, args, **kwargs)
        self.group = here()
        if not self.group.is_first:
            set_seed(args.seed + self.group.rank)  # dropout would leave out the same places in all processes

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
        """What steps are made with."""
        wrapped = self.strategy.wrapped(self.captioner) if training and model is self.model else None
        return super()._wrap_model(model, training, dataloader) if wrapped is None else wrapped

    @property
    def captioner(self) -> CaptionerModel:
        """The captioner, out of all wrappings."""
        return self.accelerator.unwrap_model(self.model)

    # Checkpoints: the first process writes them, in the same form whatever the strategy.

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The learning weights, whole."""
        with self.strategy.whole_in_first(self.captioner):
            if self.group.is_first:
                self._save(output_dir)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """As one process writes them."""
        if not self.strategy.shares_optimizer:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = self.strategy.whole_state(self.optimizer)
        if self.group.is_first:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The counterpart; files of any number of processes."""
        if checkpoint is None:
            return
        with reading_state(Path(checkpoint)):
            self._load_state(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """The random generators' state."""
        if checkpoint is not None:
            with reading_state(Path(checkpoint)):
                super()._load_rng_state(checkpoint)

    def _load_state(self, checkpoint: str) -> None:
        if not self.strategy.shares_optimizer:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(self.strategy.own_state(self.optimizer, state))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))
