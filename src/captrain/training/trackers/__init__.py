"""Trackers, by name; each is imported when it is asked for. A tracker shows scalars and sample captions of a run elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image

from captrain.errors import SettingsError


@dataclass(frozen=True, slots=True)
class TrackerPlace:
    """A tracker's class as `module:name`, the package that it needs, and the extra that installs it."""

    where: str
    package: str
    extra: str


TRACKERS = {
    "tensorboard": TrackerPlace("captrain.training.trackers.tensorboard:TensorBoard", "tensorboard", "track"),
    "wandb": TrackerPlace("captrain.training.trackers.wandb:WandB", "wandb", "wandb"),
    "mlflow": TrackerPlace("captrain.training.trackers.mlflow:MLflow", "mlflow", "mlflow"),
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
                f"trackers: {name} needs the package {TRACKERS[name].package}, which is not installed; "
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


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker is told of the run.

    `folder` is the run's own, `step` where it resumes (0 for a new run), `id` the tracker's own name of the run if an
    earlier session had one, and `settings` are the filled ones, by section.
    """

    folder: Path
    project: str
    name: str
    settings: Mapping[str, Any]
    step: int = 0
    id: str | None = None


@dataclass(frozen=True, slots=True)
class SampleCaption:
    """A written caption with its picture (RGB, small; None if it is not at hand) and its reference captions."""

    id: str
    text: str
    references: Sequence[str]
    picture: Image | None


class Tracker(Protocol):
    """A service or folder that shows the run. If it raises anything, training goes on without it.

    It is made with a `TrackedRun`. `id` is its name of the run; the next session continues under it. `rewinds` says that it
    forgets by itself the steps after the one where the run resumes; other trackers never get a step twice.
    """

    id: str | None
    rewinds: bool

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers at a step, by names such as `train/loss`, `validation/cider` and `test/cider`."""

    def samples(self, step: int, captions: Sequence[SampleCaption]) -> None:
        """The captions of the fixed pictures at a step."""

    def close(self, *, whole: bool) -> None:
        """Write what is still in memory. `whole`: the training was completed, not interrupted."""
