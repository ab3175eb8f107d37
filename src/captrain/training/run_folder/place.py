"""A run folder before anything is written: does it hold another run, a checkpoint to go back to, other people's files?

Says which settings may change when a run resumes, and what changing the others would do. Loads no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captrain.disk.locks import FOLDER_LOCK
from captrain.disk.temporary_files import TEMPORARY
from captrain.errors import RunError
from captrain.models.checkpoint.located import EXTRAS
from captrain.records import read_json
from captrain.yaml_text import read_yaml_file

SETTINGS = "settings.yaml"
FINISHED = "finished.json"
CHECKPOINTS = "checkpoints"
CLEARING = ".captrain-clearing"
"""An empty file: the run in this folder is being removed. This file goes last, so that the next command can finish a removal."""
BEGUN = ("base", ".base.new", f"{SETTINGS}.tmp")
"""What a run leaves behind if it ended before it wrote its settings."""
WEIGHTS = "learned.safetensors"
"""The file that every whole checkpoint has."""
NAME = re.compile(r".+-(\d{1,18})")
OTHER_CHECKPOINT = "go back to another checkpoint (--resume-from STEP), or begin from scratch with --overwrite"
"""What to do where a checkpoint is broken."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a training was asked to do in a run folder.

    Attributes:
        source: the data set; None if the settings name several.
        settings: by section, those that differ from their defaults.
        resume: there has to be a run. overwrite: begin from scratch. force: go on although settings, data or model have changed.
    """

    source: str | None
    settings: Mapping[str, Any]
    resume: bool = False
    overwrite: bool = False
    force: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As `settings.yaml` has it: the source, then the settings by section."""
        return {"source": self.source and str(Path(self.source)), **self.settings}


class RunPlace:
    """The folder that a training will write into, examined but not changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.base = path / "base"

    def is_finished(self) -> bool:
        """Whether the run in this folder is done."""
        return (self.path / FINISHED).is_file() and not self.is_being_cleared()

    def is_being_cleared(self) -> bool:
        """Whether the removal of a run here was interrupted."""
        return (self.path / CLEARING).is_file()

    def look(self, request: RunRequest) -> list[str]:
        """The changed settings of the run in this folder that change its result; there are none unless `force` allows them.

        Raises `RunError` when the folder holds a run of such other settings or data (unless `force` or `overwrite`), when it
        holds no run and `resume` asks for one, or when it holds other people's files.
        """
        found, changes = self.read_settings(), []
        if found is None:
            self._check_own()
            if request.resume:
                raise RunError(
                    f"{self.path}: holds no run to go on with; leave --resume or --resume-from out to begin one"
                )
        elif not request.overwrite:
            changes = harmful_changes(found["requested"], request.to_dict())
        if changes and not request.force:
            raise RunError(
                f"{self.path}: holds another run ({told(changes)}); choose another folder, "
                "--force to go on with it all the same, or --overwrite to begin from scratch"
            )
        return changes

    def read_settings(self) -> dict[str, Any] | None:
        """`settings.yaml` of the run in this folder; None if there is no run, or if no run wrote the file."""
        if self.is_being_cleared():
            return None
        path = self.path / SETTINGS
        try:
            content = read_yaml_file(path)
        except (OSError, ValueError):
            return None
        ours = isinstance(content, dict) and isinstance(content.get("requested"), dict)
        return content if ours else None

    def _check_own(self) -> None:
        """Raise `RunError` if there is no run and the folder holds more than a run that ended early leaves behind."""
        if not self.path.exists() or self.is_being_cleared():
            return
        if not self.path.is_dir():
            raise RunError(f"{self.path}: is a file; choose a new or empty folder for the run")
        names = sorted(entry.name for entry in self.path.iterdir())
        foreign = [name for name in names if name not in (*BEGUN, FOLDER_LOCK) and not TEMPORARY.fullmatch(name)]
        if self.base.exists() and not (self.base / EXTRAS).is_file():
            foreign.append(self.base.name)
        if foreign:
            listed = ", ".join(foreign[:3])
            raise RunError(f"{self.path}: holds other files ({listed}); choose a new or empty folder for the run")


def scores_in(path: Path) -> dict[str, float]:
    """The scores in a file that a run wrote. Raises `UserError` if it is broken."""
    scores = read_json(path).get("scores")
    if not isinstance(scores, dict) or not all(isinstance(score, int | float) for score in scores.values()):
        raise RunError(f"{path}: holds no scores, expected what a run writes; remove it, or copy it again")
    return dict(scores)


def nested_value(content: Any, *names: str) -> Any:
    """The value at a path of names in a file's content; None if it is missing or has another form.

    >>> nested_value({"data": {"train": 3}}, "data", "train"), nested_value({"data": [3]}, "data", "train")
    (3, None)
    """
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def check_switches(path: Path, resume: bool, overwrite: bool) -> None:
    """Raise `RunError` for flags that ask for both: resume the run, and begin from scratch."""
    if resume and overwrite:
        raise RunError(
            f"{path}: found both --resume (or --resume-from) and --overwrite, expected one: "
            "go on with the run or begin from scratch"
        )


def whole_checkpoints(folder: Path) -> dict[int, Path]:
    """By step, oldest first, the whole checkpoints that are in a folder, whatever their prefix."""
    paths = folder.glob("*/" + WEIGHTS)
    named = ((NAME.fullmatch(path.parent.name), path.parent) for path in paths)
    return dict(sorted((int(match[1]), path) for match, path in named if match))


def find_checkpoint(folder: Path, wanted: str) -> Path:
    """The checkpoint of a step ("500") or in a folder. Raises `RunError` if there is no such checkpoint."""
    found = whole_checkpoints(folder)
    if wanted.isdecimal() and int(wanted) in found:
        return found[int(wanted)]
    for path in found.values():
        if wanted == path.name or Path(wanted).absolute().resolve() == path.resolve():
            return path
    steps = ", ".join(str(step) for step in found) or "none"
    raise RunError(f"{folder}: holds no checkpoint {wanted!r}; there are those of steps: {steps}")


WITHOUT_EFFECT = (
    "distributed", "model.device", "data.cache_features", "data.keep", "data.memory_budget", "data.workers",
    "data.accept_lost_words",
    "evaluation.samples",
    "training.checkpoint_every", "training.checkpoint_every_epochs", "training.checkpoint_prefix",
    "training.keep_checkpoints", "training.log_every", "training.max_bad_steps",
    "training.trackers", "training.project", "training.run_name",
)  # fmt: skip
"""Settings, and sections of them, that say where and how a run is computed and watched, not what comes out of it."""

CONSEQUENCES = {
    "source": "the data would differ",
    "model": "the model would differ",
    "data": "other pictures or captions would be learned",
    "training": "its steps would differ",
    "generation": "its captions would differ, and so the best model",
    "evaluation": "another model might be the best",
}
"""By section, what a change of its settings does to a run that has begun."""

MOST_NAMED = 3


def harmful_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The settings that differ and decide what is learned or which model is best, each with its effect.

    Args:
        before: the non-default settings when the run began, by section. now: the same for this call.

    >>> harmful_changes({"source": "photos", "training": {"epochs": 5}}, {"source": "photos", "training": {"epochs": 9}})
    ['training.epochs was 5 and is 9: its steps would differ']
    >>> harmful_changes({"source": "photos"}, {"source": "photos", "training": {"log_every": 1}})
    []
    """
    old, new = _flat(before), _flat(now)
    names = [name for name in dict.fromkeys([*new, *old]) if old.get(name) != new.get(name)]
    return [
        f"{name} was {old.get(name, 'the default')} and is {new.get(name, 'the default')}: {_consequence(name)}"
        for name in names
        if not {name, name.split(".")[0]}.intersection(WITHOUT_EFFECT)
    ]


def told(changes: list[str]) -> str:
    """The first few changes, for one line.

    >>> told(["a", "b", "c", "d", "e"])
    'a; b; c; and 2 more'
    """
    more = len(changes) - MOST_NAMED
    return "; ".join(changes[:MOST_NAMED] + ([f"and {more} more"] if more > 0 else []))


def _consequence(name: str) -> str:
    """What a change of a setting does."""
    return CONSEQUENCES.get(name.split(".")[0], "its result would differ")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `section.key`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
