"""A running average of the learning weights. The average is measured and saved; the optimizer continues with its own weights.

Polyak averaging (Polyak and Juditsky 1992) with an exponential window, as in TensorFlow's `ExponentialMovingAverage`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captrain.errors import RunError
from captrain.models.contract import CaptionerModel
from captrain.training.run_folder.checkpoints import reading_state

AVERAGE = "average.safetensors"


class WeightAverage(TrainerCallback):
    """The average of all learning weights over about the last 1 / (1 - decay) steps.

    Early on, the window is a tenth of the steps so far, so that the first weights are soon forgotten.
    """

    def __init__(self, captioner: CaptionerModel, decay: float) -> None:
        self.decay = decay
        self.weights = {name: weight for name, weight in captioner.named_parameters() if weight.requires_grad}
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the average a bit towards the weights."""
        self.update(state.global_step)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """The average after so many steps, from the previous average and the present weights."""
        share = 1 - window(self.decay, step)
        torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """In this context the captioner's weights are the average."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        """Swap the values, not the tensors: the optimizer identifies its weights by their tensors."""
        for name, weight in self.weights.items():
            kept = weight.detach().clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(kept)

    def save(self, folder: Path) -> None:
        """Write the average beside a checkpoint's weights."""
        save_file({name: tensor.contiguous() for name, tensor in self.average.items()}, folder / AVERAGE)

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote. Raises `RunError` if a checkpoint has no average."""
        path = folder / AVERAGE
        if not path.is_file():
            raise RunError(
                f"{folder}: holds no average of the weights; go on without --ema, or begin from scratch with --overwrite"
            )
        with reading_state(folder):
            saved = load_file(path)
            for name, tensor in self.average.items():
                tensor.copy_(saved[name])


def window(decay: float, step: int) -> float:
    """How much of the average a step keeps: `decay`, and less in the first steps.

    >>> window(0.999, 8), window(0.999, 100_000)
    (0.5, 0.999)
    """
    return min(decay, (1 + step) / (10 + step))
