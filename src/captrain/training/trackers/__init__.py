"""Places that a run can be followed at: a plain dict from a name to where its tracker is, imported when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from captrain.errors import SettingsError
from captrain.training.trackers.base import TrackedRun, Tracker


@dataclass(frozen=True, slots=True)
class Place:
    """A tracker's class as `module:name`, the package that it needs, and the extra that installs it."""

    where: str
    package: str
    extra: str


TRACKERS = {
    "tensorboard": Place("captrain.training.trackers.tensorboard:TensorBoard", "tensorboard", "track"),
    "wandb": Place("captrain.training.trackers.wandb:WandB", "wandb", "wandb"),
    "mlflow": Place("captrain.training.trackers.mlflow:MLflow", "mlflow", "mlflow"),
}


def chosen(trackers: Sequence[str] | None) -> tuple[str, ...]:
    """The trackers of a run: those asked for, or TensorBoard where it is installed.

    Raises `SettingsError` for one whose package is missing.
    """
    if trackers is None:
        return ("tensorboard",) if _is_here("tensorboard") else ()
    for name in trackers:
        if not _is_here(TRACKERS[name].package):
            raise SettingsError(
                f"trackers: {name} needs the package {TRACKERS[name].package}, which is not here; "
                f"pip install 'captrain[{TRACKERS[name].extra}]', or leave it out of --trackers"
            )
    return tuple(dict.fromkeys(trackers))


def open_tracker(name: str, run: TrackedRun) -> Tracker:
    """The tracker of a name, at work."""
    module, _, kind = TRACKERS[name].where.partition(":")
    tracker: Tracker = getattr(importlib.import_module(module), kind)(run)
    return tracker


def _is_here(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
