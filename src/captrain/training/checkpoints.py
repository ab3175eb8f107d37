"""Checkpoints that are either whole or not there: written beside, renamed when complete, the oldest removed last."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from captrain.errors import RunError
from captrain.models.captioner import Captioner

WEIGHTS = "learned.safetensors"
PREFIX = "checkpoint-"


class Checkpoints:
    """The `checkpoints/` folder of a run.

    A checkpoint is written into `checkpoints/.writing/` and moved to `checkpoints/checkpoint-STEP` in one rename; what is
    found under `.writing` after a crash is thrown away.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self.staging = folder / ".writing"
        shutil.rmtree(self.staging, ignore_errors=True)

    def steps(self) -> list[int]:
        """Steps that there is a whole checkpoint of, oldest first."""
        return sorted(int(path.name.removeprefix(PREFIX)) for path in self.folder.glob(PREFIX + "*"))

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.folder / f"{PREFIX}{step}"

    def last(self) -> Path | None:
        """The newest whole checkpoint."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def last_step(self) -> int:
        """The step of the newest whole checkpoint, 0 when there is none."""
        return max(self.steps(), default=0)

    def publish(self, step: int) -> None:
        """Move a finished checkpoint from the staging folder to its place, then remove the oldest beyond `keep`."""
        final = self.path(step)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(self.staging / final.name, final)
        shutil.rmtree(self.staging, ignore_errors=True)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old), ignore_errors=True)


def save_learned(captioner: Captioner, folder: Path) -> None:
    """Write what training changes: learning weights, and running statistics of modules."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in _learned(captioner).items()}, folder / WEIGHTS)


def load_learned(captioner: Captioner, folder: Path) -> None:
    """Take over what `save_learned` wrote. Raises `RunError` when the captioner is not the one that was saved."""
    check_fits(captioner, folder)
    saved = load_file(folder / WEIGHTS)
    with torch.no_grad():
        for name, tensor in _learned(captioner).items():
            tensor.copy_(saved[name])


def check_fits(captioner: Captioner, folder: Path) -> None:
    """Raise `RunError` unless a checkpoint holds just what this captioner learns: the same names in the same shapes."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        saved = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
    own = {name: tuple(tensor.shape) for name, tensor in _learned(captioner).items()}
    odd = sorted(name for name in saved.keys() | own.keys() if saved.get(name) != own.get(name))
    if odd:
        raise RunError(
            f"{folder}: was made by a captioner that learns other weights (first difference: {odd[0]}); "
            "go back to the model settings of this run, or begin anew with --overwrite"
        )


def _learned(captioner: Captioner) -> dict[str, torch.Tensor]:
    """Learning parameters and persistent buffers by name; these are the tensors themselves, not copies."""
    learned = {name: weight.data for name, weight in captioner.named_parameters() if weight.requires_grad}
    parameters = {name for name, _ in captioner.named_parameters(remove_duplicate=False)}
    buffers = {name: tensor for name, tensor in captioner.state_dict().items() if name not in parameters}
    return learned | buffers
