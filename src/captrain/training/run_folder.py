"""The run folder: who may write into it, and what is written how."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml

from captrain.errors import RunError
from captrain.models.bundle import EXTRAS, save_captioner
from captrain.models.captioner import Captioner
from captrain.records import Rejects, append_jsonl, drop_half_line, read_jsonl, write_jsonl, write_text
from captrain.settings.schema import Settings
from captrain.version import __version__

SETTINGS = "settings.yaml"
FINISHED = "finished.json"
LOGS = ("metrics.jsonl", "samples.jsonl")
OWN = (
    *LOGS, SETTINGS, FINISHED, "rejected.jsonl", "predictions.jsonl", "scores.json", "report.html",
    "model", "model.new", "model.old", "base", ".base.new", "checkpoints", "tensorboard", "evaluation",
)  # fmt: skip
BEGUN = ("base", ".base.new", f"{SETTINGS}.tmp")
"""What there may be of a run that was ended before its settings were written."""


class RunFolder:
    """One training's folder. Models and logs are replaced in one rename; a crash leaves the old or the new, never half."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model"
        self.base = path / "base"
        self.checkpoints = path / "checkpoints"

    def claim(self, settings: Settings, data: str | None, resume: bool, overwrite: bool) -> None:
        """Make the folder ours: begin a run, or go on with the same one.

        Raises `RunError` when it holds a run of other settings or data (unless `resume` or `overwrite`), or other people's files.
        """
        if resume and overwrite:
            raise RunError(
                f"{self.path}: found both --resume and --overwrite, expected one: go on with the run or begin anew"
            )
        found, requested = self._read_settings(), self._requested(settings, data)
        if found is None:
            self._drop_beginnings()
        elif overwrite:
            self._clear()
        elif found["requested"] != requested:
            if not resume:
                changed = _first_difference(found["requested"], requested)
                raise RunError(
                    f"{self.path}: holds another run ({changed}); choose another folder, "
                    "--resume to go on with it, or --overwrite to begin anew"
                )
            (self.path / FINISHED).unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        self._restore_model()

    def write_settings(
        self,
        requested: Settings,
        resolved: Settings,
        data: str | None,
        counts: dict[str, int],
        parameters: Any,
        device: str,
    ) -> None:
        """`settings.yaml`: everything needed to understand the run, and to repeat it."""
        content = {
            "captrain": {
                "version": __version__,
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "transformers": transformers.__version__,
                "platform": platform.platform(),
                "device": device,
            },
            "settings": resolved.model_dump(mode="json"),
            "requested": self._requested(requested, data),
            "data": counts,
            "parameters": parameters,
        }
        write_text(self.path / SETTINGS, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def check_data(self, counts: dict[str, int]) -> None:
        """Raise `RunError` unless the data is as large as when the run began: its steps and epochs would mean something else."""
        before = (self._read_settings() or {}).get("data", {})
        for name, now in counts.items():
            if before.get(name, now) != now:
                raise RunError(
                    f"{self.path}: the data has changed since this run began ({name} was {before[name]} and is {now}); "
                    "--resume to go on with what is there now, or --overwrite to begin anew"
                )

    def rewind_logs(self, step: int) -> None:
        """Forget log lines after `step`: the run goes on from there and writes them again."""
        for name in LOGS:
            path = self.path / name
            if path.is_file():
                drop_half_line(path)
                write_jsonl(path, [line for line in read_jsonl(path) if line["step"] <= step])

    def append(self, name: str, lines: list[dict[str, Any]]) -> None:
        """Add lines to a log."""
        append_jsonl(self.path / name, lines)

    def save_model(self, captioner: Captioner) -> None:
        """Replace `model/` by this captioner."""
        new, old = self.path / "model.new", self.path / "model.old"
        shutil.rmtree(new, ignore_errors=True)
        save_captioner(captioner, new)
        shutil.rmtree(old, ignore_errors=True)
        if self.model.exists():
            os.replace(self.model, old)
        os.replace(new, self.model)
        shutil.rmtree(old, ignore_errors=True)

    def save_base(self, captioner: Captioner) -> None:
        """Write the untrained captioner to `base/`, in one rename."""
        new = self.path / ".base.new"
        shutil.rmtree(new, ignore_errors=True)
        save_captioner(captioner, new)
        os.replace(new, self.base)

    def write_rejects(self, rejects: Rejects) -> Path | None:
        """`rejected.jsonl`, if anything was."""
        path = self.path / "rejected.jsonl"
        if not rejects:
            path.unlink(missing_ok=True)
            return None
        write_jsonl(path, rejects.lines)
        return path

    def rejected(self) -> tuple[int, Path | None]:
        """How many samples were rejected, and where they are listed."""
        path = self.path / "rejected.jsonl"
        return (sum(1 for _ in read_jsonl(path)), path) if path.is_file() else (0, None)

    def best_scores(self) -> dict[str, float]:
        """Scores of the best model, as they were when it was saved."""
        path = self.path / "scores.json"
        return dict(json.loads(path.read_text())["scores"]) if path.is_file() else {}

    def seconds_so_far(self) -> float:
        """Seconds that earlier sittings of this run took, by the last line of its metrics."""
        path = self.path / "metrics.jsonl"
        lines = list(read_jsonl(path)) if path.is_file() else []
        return float(lines[-1]["seconds"]) if lines else 0.0

    def finish(self, scores: dict[str, float]) -> None:
        """Mark the run as done."""
        write_text(self.path / FINISHED, json.dumps({"scores": scores}) + "\n")

    def finished(self) -> dict[str, float] | None:
        """The final scores of a run that is done."""
        path = self.path / FINISHED
        return dict(json.loads(path.read_text())["scores"]) if path.is_file() else None

    def _requested(self, settings: Settings, data: str | None) -> dict[str, Any]:
        """What was asked for, without what was left at its default; the source is null where the settings name several."""
        return {"source": data and str(Path(data)), **settings.model_dump(mode="json", exclude_defaults=True)}

    def _read_settings(self) -> dict[str, Any] | None:
        """`settings.yaml` of the run that is here, if there is one; a file of that name that no run wrote is none."""
        path = self.path / SETTINGS
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return None
        ours = isinstance(content, dict) and isinstance(content.get("requested"), dict)
        return content if ours else None

    def _drop_beginnings(self) -> None:
        """Where there is no run yet: remove what one left that was ended at once. Anything else belongs to other people."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise RunError(f"{self.path}: is a file; choose a new or empty folder for the run")
        names = sorted(entry.name for entry in self.path.iterdir())
        foreign = [name for name in names if name not in BEGUN]
        if self.base.exists() and not (self.base / EXTRAS).is_file():
            foreign.append(self.base.name)
        if foreign:
            listed = ", ".join(foreign[:3])
            raise RunError(f"{self.path}: holds other files ({listed}); choose a new or empty folder for the run")
        self._remove(BEGUN)

    def _clear(self) -> None:
        """Remove what a run writes, and nothing else; its settings last, so that an interrupted removal can be repeated."""
        self._remove([name for name in OWN if name != SETTINGS])
        (self.path / SETTINGS).unlink()

    def _remove(self, names: Iterable[str]) -> None:
        """Remove some of the files and folders in here."""
        for name in names:
            path = self.path / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _restore_model(self) -> None:
        """Repair a `save_model` that was cut off between its renames."""
        old = self.path / "model.old"
        if old.exists() and not self.model.exists():
            os.replace(old, self.model)


def _first_difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """One setting that differs, for people: `training.epochs is 5 there and 9 here`."""
    old, new = _flat(before), _flat(now)
    for name in [*new, *old]:
        if old.get(name) != new.get(name):
            return f"{name} is {old.get(name, 'the default')} there and {new.get(name, 'the default')} here"
    return "other settings"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `section.key`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
