"""The run folder: who may write into it, and how each file is written."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from captrain.data.splits import FILE as SPLITS
from captrain.disk.folders import (
    link_all,
    link_error,
    link_tree,
    make_folder,
    put_back,
    remove,
    replace_folder,
    sync_folder,
    sync_tree,
)
from captrain.disk.locks import locked_folders
from captrain.disk.temporary_files import clear_litter
from captrain.disk.writing import write_text
from captrain.errors import RunError
from captrain.models.checkpoint.folder import save_captioner
from captrain.models.contract import CaptionerModel
from captrain.records import Rejects, append_jsonl, drop_half_line, read_json, read_jsonl, write_jsonl
from captrain.training.run_folder.checkpoints import BEST, Running, put_replaced_back
from captrain.training.run_folder.place import (
    BEGUN,
    CHECKPOINTS,
    CLEARING,
    FINISHED,
    SETTINGS,
    RunPlace,
    RunRequest,
    nested_value,
    scores_in,
    told,
)
from captrain.version import __version__
from captrain.yaml_text import dump_yaml

SCORES = "scores.json"
LOGS = ("metrics.jsonl", "samples.jsonl")
MEASURED = ("predictions.jsonl", SCORES)
"""Captions and scores of the best model."""
OWN = (
    *LOGS, *MEASURED, SETTINGS, FINISHED, SPLITS, f"{SPLITS}.tmp", "rejected.jsonl", "report.html",
    "model", "model.new", "model.old", "base", ".base.new", "checkpoints", "evaluation",
    "tensorboard", "trackers.json", "wandb", "mlflow", "test", CLEARING,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What `settings.yaml` says of a run.

    Attributes:
        settings: by section, all of them. requested: what was asked for, as `RunRequest.to_dict` gives it.
        counts: of images and captions. fingerprints: of the model and each split. parameters: of each part of the model.
        device: on which it was computed.
    """

    settings: dict[str, Any]
    requested: dict[str, Any]
    counts: dict[str, int]
    fingerprints: dict[str, str]
    parameters: dict[str, dict[str, int]]
    device: str


class RunFolder(RunPlace):
    """The folder of one training. Models and logs are replaced in one rename; a crash leaves the old or the new, never half."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.model = path / "model"
        self.checkpoints = path / CHECKPOINTS

    def claim(self, request: RunRequest) -> list[str]:
        """Claim the folder: begin a run, or resume the one that is there.

        Returns and raises as `look` does.
        """
        changes = self.look(request)
        self._refuse_links()
        clear_litter(self.path)
        if self.is_being_cleared() or (request.overwrite and self.read_settings() is not None):
            evaluation = self.path / "evaluation"  # which another process may be writing
            with locked_folders([] if evaluation.is_symlink() else [evaluation], goes=True):
                self._clear()
        elif self.read_settings() is None:
            self._remove(BEGUN)
        make_folder(self.path)
        self._restore_model()
        put_replaced_back(self.checkpoints)
        return changes

    def write_settings(self, facts: RunFacts) -> None:
        """`settings.yaml`: everything needed to understand the run, and to repeat it."""
        content = {
            "captrain": {
                "version": __version__,
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "transformers": transformers.__version__,
                "platform": platform.platform(),
                "device": facts.device,
            },
            "settings": facts.settings,
            "requested": facts.requested,
            "data": facts.counts,
            "fingerprints": facts.fingerprints,
            "parameters": facts.parameters,
        }
        write_text(self.path / SETTINGS, dump_yaml(content))

    def filled_before(self, section: str, name: str) -> Any:
        """A setting as an earlier session of this run filled it in; None if there was no such session."""
        return nested_value(self.read_settings(), "settings", section, name)

    def check_same(self, counts: dict[str, int], marks: dict[str, str]) -> None:
        """Raise `RunError` unless sizes and fingerprints of data and frozen weights are those that the run began with."""
        found = self.read_settings()
        before = {name: nested_value(found, "data", name) for name in counts}
        marked = {name: nested_value(found, "fingerprints", name) for name in marks}
        changed = [
            f"{name} was {before[name]} and is {now}" for name, now in counts.items() if before[name] not in (None, now)
        ]
        changed += [f"{name}: other content" for name, now in marks.items() if marked[name] not in (None, now)]
        if changed:
            what = "model" if changed == ["model: other content"] else "data"
            raise RunError(
                f"{self.path}: the {what} has changed since this run began ({told(changed)}); "
                "--force to go on with what is there now, or --overwrite to begin from scratch"
            )

    def rewind(self, step: int, checkpoint: Path | None) -> None:
        """Go back to a checkpoint: drop log lines after its `step`, a later best model, and that model's test."""
        if self.finished() is not None:
            self._remove(["test", FINISHED])
        epoch_is_open = checkpoint is not None and Running.load(checkpoint).epoch_is_open
        for name in LOGS:
            path = self.path / name
            if path.is_file():
                drop_half_line(path)
                write_jsonl(path, [line for line in read_jsonl(path) if _came_before(line, step, epoch_is_open)])
        self._restore_best(None if checkpoint is None else checkpoint / BEST)

    def append(self, name: str, lines: list[dict[str, Any]]) -> None:
        """Add lines to a log. A non-finite value (the loss of left-out steps) becomes null."""
        append_jsonl(self.path / name, [{key: _plain(value) for key, value in line.items()} for line in lines])

    def best_files(self) -> list[Path]:
        """The files and folders of the best model."""
        return [self.model, *(self.path / name for name in MEASURED)]

    def log_files(self) -> list[Path]:
        """The logs that grow line by line."""
        return [self.path / name for name in LOGS]

    def save_model(self, captioner: CaptionerModel) -> None:
        """Replace `model/` by this captioner."""
        new = self.path / "model.new"
        remove(new)
        save_captioner(captioner, new)
        sync_tree(new)
        self._put_in_place(new)

    def _put_in_place(self, new: Path) -> None:
        """Move a folder to `model/`; only then is the old model removed."""
        replace_folder(new, self.model, self.path / "model.old")

    def save_base(self, captioner: CaptionerModel) -> None:
        """Write the untrained captioner to `base/`, in one rename."""
        self._put_base(lambda new: save_captioner(captioner, new))

    def copy_base(self, folder: Path) -> None:
        """Copy another run's base to `base/`, in one rename."""
        self._put_base(lambda new: link_tree(folder, new, copies=True))

    def _put_base(self, write: Callable[[Path], object]) -> None:
        """Write `base/`, whole or not at all."""
        new = self.path / ".base.new"
        remove(new)
        write(new)
        sync_tree(new)
        os.replace(new, self.base)
        sync_folder(self.path)

    def write_rejects(self, rejects: Rejects) -> Path | None:
        """Write `rejected.jsonl`, if anything was rejected."""
        path = self.path / "rejected.jsonl"
        if not rejects:
            remove(path)
            return None
        write_jsonl(path, rejects.lines)
        return path

    def rejected(self) -> tuple[int, Path | None]:
        """How many samples were rejected, and where they are listed."""
        path = self.path / "rejected.jsonl"
        return (sum(1 for _ in read_jsonl(path)), path) if path.is_file() else (0, None)

    def uncaptioned(self) -> int:
        """How many pictures were left out because they have no caption."""
        count = nested_value(self.read_settings(), "data", "uncaptioned")
        return count if isinstance(count, int) else 0

    def best(self) -> dict[str, Any]:
        """Scores, intervals and epoch of the best model, from when it was saved; empty before there is one."""
        path = self.path / SCORES
        return read_json(path) if path.is_file() else {}

    def best_scores(self) -> dict[str, float]:
        """The scores of the best model."""
        path = self.path / SCORES
        return scores_in(path) if path.is_file() else {}

    def seconds_so_far(self) -> float:
        """Seconds that earlier sessions of this run took, from the last line of its metrics."""
        path = self.path / "metrics.jsonl"
        lines = list(read_jsonl(path)) if path.is_file() else []
        seconds = lines[-1].get("seconds") if lines else None
        return float(seconds) if isinstance(seconds, int | float) else 0.0

    def finish(self, scores: dict[str, float]) -> None:
        """Mark the run as done."""
        write_text(self.path / FINISHED, json.dumps({"scores": scores}) + "\n")

    def finished(self) -> dict[str, float] | None:
        """The final scores of a run that is done."""
        path = self.path / FINISHED
        return scores_in(path) if path.is_file() else None

    def _refuse_links(self) -> None:
        """Raise `UserError` if something a run writes or removes is a link: the folder may come from somebody else."""
        for folder, ours in ((self.path, OWN), (self.checkpoints, None)):
            if folder.is_dir():
                with os.scandir(folder) as entries:
                    links = [entry for entry in entries if entry.is_symlink() and (ours is None or entry.name in ours)]
                if links:
                    raise link_error(folder / links[0].name)

    def _clear(self) -> None:
        """Remove what a run writes, and nothing else. The next command finishes an interrupted removal."""
        write_text(self.path / CLEARING, "")
        self._remove(OWN)

    def _remove(self, names: Iterable[str]) -> None:
        """Remove some of the files and folders in here."""
        for name in names:
            remove(self.path / name)

    def _restore_model(self) -> None:
        """Repair a `save_model` that was interrupted between its renames."""
        put_back(self.model, self.path / "model.old")
        self._remove(["model.new", "model.old"])

    def _restore_best(self, kept: Path | None) -> None:
        """Restore the best model from a checkpoint. A model that was never measured stays: it is the last one."""
        if kept is not None and (kept / self.model.name).is_dir():
            self._remove(["model.new"])
            link_all([kept / self.model.name], self.path / "model.new")
            self._put_in_place(self.path / "model.new" / self.model.name)
            self._remove(["model.new"])
        elif (self.path / SCORES).is_file():
            self._remove([self.model.name])
        self._remove(MEASURED)
        if kept is not None:
            link_all([kept / name for name in MEASURED], self.path)


def _came_before(line: dict[str, Any], step: int, epoch_is_open: bool) -> bool:
    """Whether a log line is older than a checkpoint of a step. While the epoch is open, its evaluation is still to come."""
    at = line.get("step")
    if not isinstance(at, int | float):  # not a line of a run; the report leaves it out too
        return False
    if at == step and epoch_is_open:
        return line.get("kind") == "train"
    return at <= step and line.get("kind") != "test"


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
