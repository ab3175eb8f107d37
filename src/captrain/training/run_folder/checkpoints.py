"""Checkpoints are whole or not there: written under another name, renamed when complete; then the oldest is removed.

They hold more than Trainer's own state, so that a resumed run continues as if it had never stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from captrain.disk.folders import check_way, link_all, make_folders, put_back, remove, replace_folder, sync, sync_tree
from captrain.disk.writing import write_text
from captrain.errors import RunError
from captrain.models.checkpoint.weight_files import check_pickle, inside
from captrain.models.contract import CaptionerModel
from captrain.training.run_folder.place import OTHER_CHECKPOINT, WEIGHTS, find_checkpoint, whole_checkpoints

BEST = "best"  # the best model so far, within a checkpoint
STAGING, REPLACED = ".writing", "replaced-"


class Checkpoints:
    """The `checkpoints/` folder of a run.

    A checkpoint is written into `checkpoints/.writing/` and moved to `checkpoints/PREFIX-STEP` in one rename, once all of it
    is on the disk. A resumed run removes what a crash left under `.writing` (`drop_after`); merely listing the
    checkpoints changes nothing. Each also holds the best model of its time (linked, not copied), so that a run can
    go back to any of them.

    Args:
        best: files and folders of the best model so far; they become part of each checkpoint.
        logs: files that are flushed to disk with it: a resumed run needs their lines up to the checkpoint.
    """

    def __init__(
        self, folder: Path, keep: int, prefix: str = "checkpoint", best: Sequence[Path] = (), logs: Sequence[Path] = ()
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.prefix = prefix
        self.best = best
        self.logs = logs
        self.staging = folder / STAGING

    def steps(self) -> list[int]:
        """The steps of the whole checkpoints, oldest first."""
        return list(self._found())

    def path(self, step: int) -> Path:
        """The folder of a step's checkpoint, existing or not; earlier ones may have another prefix."""
        return self._found().get(step, self.folder / f"{self.prefix}-{step}")

    def last(self) -> Path | None:
        """The newest whole checkpoint."""
        found = self._found()
        return found[max(found)] if found else None

    def last_step(self) -> int:
        """The step of the newest whole checkpoint, 0 when there is none."""
        return max(self._found(), default=0)

    def find(self, wanted: str) -> Path:
        """The checkpoint of a step ("500") or in a folder. Raises `RunError` when this run has no such checkpoint."""
        return find_checkpoint(self.folder, wanted)

    def drop_after(self, chosen: Path | None) -> None:
        """Remove what a crash left half-written, and the checkpoints after the chosen step, newest first."""
        check_way(self.staging, self.folder.parent)
        remove(self.staging)
        for path in reversed(list(self._found().values())):
            if path == chosen:
                break
            self._remove(path)

    def publish(self, step: int) -> None:
        """Move a finished checkpoint from the staging folder to its place, then remove the oldest beyond `keep`."""
        written, final = self.staging / f"checkpoint-{step}", self.folder / f"{self.prefix}-{step}"
        link_all(self.best, written / BEST)
        for log in self.logs:
            sync(log)
        sync_tree(written)
        earlier = self.path(step)
        replace_folder(written, final, self.staging / f"{REPLACED}{final.name}")
        if earlier != final:
            self._remove(earlier)
        for old in self.steps()[: -self.keep]:
            self._remove(self.path(old))
        remove(self.staging)

    def _remove(self, checkpoint: Path) -> None:
        """Remove a checkpoint, renaming it first so that none is ever found with half of its files."""
        if checkpoint.is_dir():
            trash = make_folders(self.staging, self.folder.parent) / f"old-{checkpoint.name}"
            remove(trash)
            os.replace(checkpoint, trash)
            remove(trash)

    def _found(self) -> dict[int, Path]:
        """By step, oldest first, the whole checkpoints that are there, whatever their prefix."""
        return whole_checkpoints(self.folder)


def put_replaced_back(folder: Path) -> None:
    """Put back a checkpoint if its replacement by one of the same step was interrupted: it may be the only one."""
    for old in (folder / STAGING).glob(f"{REPLACED}*"):
        if old.is_dir() and not old.is_symlink():
            put_back(folder / old.name.removeprefix(REPLACED), old)


def save_learned(captioner: CaptionerModel, folder: Path) -> None:
    """Write what training changes: learning weights, and running statistics of modules."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in _learned(captioner).items()}, folder / WEIGHTS)


@contextmanager
def reading_state(folder: Path) -> Iterator[None]:
    """Reads a checkpoint's files safely: they must be in its folder, be whole, and unpack to no more than their size.

    torch's reader runs no code from them. Raises a one-line `RunError` for anything it refuses.
    """
    for path in sorted((*folder.glob("*.pt"), *folder.glob("*.pth"), *folder.glob("*.safetensors"))):
        check_pickle(inside(folder, path.name))
    try:
        yield
    except (
        SafetensorError,
        UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        pickled = isinstance(error, UnpicklingError)
        reason = (
            "it holds more than tensors" if pickled else (str(error).splitlines() or [type(error).__name__])[0][:200]
        )
        raise RunError(
            f"{folder}: damaged, or not written by captrain ({reason}); go back to an earlier one with --resume-from, or begin "
            "from scratch with --overwrite"
        ) from error


def load_learned(captioner: CaptionerModel, folder: Path) -> None:
    """Load what `save_learned` wrote. Raises `RunError` if the captioner is not the one that was saved."""
    check_checkpoint_fits(captioner, folder)
    with reading_state(folder):
        saved = load_file(folder / WEIGHTS)
    with torch.no_grad():
        for name, tensor in _learned(captioner).items():
            tensor.copy_(saved[name])


def check_checkpoint_fits(captioner: CaptionerModel, folder: Path) -> None:
    """Raise `RunError` unless a checkpoint is whole and holds exactly what this captioner learns, by names and shapes."""
    with reading_state(folder), safe_open(folder / WEIGHTS, framework="pt") as file:
        saved = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
    _check_state(folder)
    Running.load(folder)
    own = {name: tuple(tensor.shape) for name, tensor in _learned(captioner).items()}
    odd = sorted(name for name in saved.keys() | own.keys() if saved.get(name) != own.get(name))
    if odd:
        raise RunError(
            f"{folder}: was made by a captioner that learns other weights (first difference: {odd[0]}); "
            "go back to the model settings of this run, or begin from scratch with --overwrite"
        )


def _check_state(folder: Path) -> None:
    """Raise `RunError` unless a checkpoint states its step and its log."""
    path = folder / TRAINER_STATE_NAME
    with reading_state(folder):
        if not path.is_file():
            raise ValueError(f"{path.name} is missing")
        state = TrainerState.load_from_json(str(path))
        logged = state.log_history
        if not all(isinstance(step, int) and step >= 0 for step in (state.global_step, state.max_steps)):
            raise ValueError(f"{path.name} has no number of steps")
        if not isinstance(logged, list) or not all(isinstance(line, dict) for line in logged):
            raise ValueError(f"{path.name} has no list of what was logged")


def _learned(captioner: CaptionerModel) -> dict[str, torch.Tensor]:
    """Learning parameters and persistent buffers by name; these are the tensors themselves, not copies."""
    learned = {name: weight.data for name, weight in captioner.named_parameters() if weight.requires_grad}
    parameters = {name for name, _ in captioner.named_parameters(remove_duplicate=False)}
    buffers = {name: tensor for name, tensor in captioner.state_dict().items() if name not in parameters}
    return learned | buffers


FILE = "running.json"


@dataclass(slots=True)
class Running:
    """The state of a run within a line of metrics.jsonl, an epoch, and a series of left-out steps."""

    loss: float = 0.0
    """Sum of the losses of steps since the last line."""
    line_step: int = 0
    """Step of the last line."""
    steps: int = 0
    """Steps since the last line."""
    left_out: int = 0
    """Of those, how many were left out."""
    bad_steps: int = 0
    """Steps left out so far, because their loss or gradient was non-finite."""
    bad_in_a_row: int = 0
    """How many of the latest steps were left out in a row."""
    epoch_is_open: bool = False
    """Whether the evaluation and the checkpoint that end an epoch are still to be done."""

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        write_text(folder / FILE, json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Running:
        """Read it from a checkpoint. Raises `RunError` if its file is broken."""
        try:
            return TypeAdapter(cls).validate_json((folder / FILE).read_bytes(), strict=True)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"{folder / FILE}: can't be read ({reason}); {OTHER_CHECKPOINT}") from None
