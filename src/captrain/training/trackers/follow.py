"""Gives a run's trackers what they show, and lets training go on when one of them dies."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captrain.data.decode import Size, decode
from captrain.errors import CaptrainError
from captrain.records import Sample, write_text
from captrain.settings.schema import Settings
from captrain.training.logbook import logged
from captrain.training.randomness import untouched_randomness
from captrain.training.trackers import open_tracker
from captrain.training.trackers.base import SampleCaption, TrackedRun, Tracker
from captrain.training.validate import Validation, spread

logger = logging.getLogger(__name__)

NOTES = "trackers.json"
LONGEST = 256  # pixels of a picture's longer side


class Following(TrainerCallback):
    """The trackers of a run.

    `trackers.json` in the run folder holds each tracker's own id of the run, so that the next sitting continues it, and the
    last steps that it was given, so that it is not given steps again that were trained again after an interruption.

    Args:
        names: of the trackers. folder: of the run. settings: the filled ones. samples: those whose captions are shown.
        latest: the last validation.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        settings: Settings,
        samples: Sequence[Sample],
        latest: Callable[[], Validation | None],
    ) -> None:
        self.names, self.folder, self.settings = names, folder, settings
        self.samples, self.latest = samples, latest
        self.pictures: list[Image | None] | None = None
        self.open: dict[str, Tracker] = {}
        self.before: dict[str, dict[str, Any]] = {}
        self.notes: dict[str, dict[str, Any]] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open them all, where an earlier sitting left them."""
        self.notes, self.before = _read_notes(self.folder), _read_notes(self.folder)
        for name in self.names:
            self._safely(name, partial(self._open, name, state.global_step))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Scalars under the names that `metrics.jsonl` has too."""
        if (found := logged(logs)) is None:
            return
        kind, values = found
        scalars = {f"{kind}/{name}": float(value) for name, value in values.items()}
        epoch = {"epoch": float(state.epoch or 0)}
        self._give(kind, state.global_step, lambda tracker, step: tracker.scalars(step, scalars | epoch))

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The fixed pictures with what is written of them now."""
        validation = self.latest()
        if validation is None or not self.open:
            return
        captions = self._captions(validation)
        self._give("samples", state.global_step, lambda tracker, step: tracker.samples(step, captions))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """All is written."""
        self.close(whole=True)

    def close(self, *, whole: bool = False) -> None:
        """Close what is open, however the training ended."""
        for name, tracker in list(self.open.items()):
            self._safely(name, partial(tracker.close, whole=whole))
        self.open.clear()

    def _open(self, name: str, step: int) -> None:
        chosen = self.settings.training
        tracker = open_tracker(
            name,
            TrackedRun(
                self.folder, chosen.project, chosen.run_name or self.folder.resolve().name,
                self.settings.model_dump(mode="json"), step, self.notes.get(name, {}).get("id"),
            ),
        )  # fmt: skip
        self.open[name] = tracker
        if tracker.id is not None:
            self._note(name, "id", tracker.id)

    def _give(self, kind: str, step: int, give: Callable[[Tracker, int], None]) -> None:
        """Give all trackers something of a step, unless an earlier sitting gave it to them."""
        for name, tracker in list(self.open.items()):
            if tracker.rewinds or step > self.before.get(name, {}).get(kind, -1):
                self._safely(name, partial(self._give_one, name, kind, tracker, step, give))

    def _give_one(
        self, name: str, kind: str, tracker: Tracker, step: int, give: Callable[[Tracker, int], None]
    ) -> None:
        give(tracker, step)
        if not tracker.rewinds:
            self._note(name, kind, step)

    def _note(self, name: str, what: str, value: Any) -> None:
        self.notes.setdefault(name, {})[what] = value
        write_text(self.folder / NOTES, json.dumps(self.notes, indent=2) + "\n")

    def _safely(self, name: str, call: Callable[[], None]) -> None:
        """Call a tracker; one that fails is dropped and named once. What it draws at random is not training's."""
        try:
            with untouched_randomness():
                call()
        except Exception as error:  # trackers raise whatever their libraries raise; none of it is worth a training
            self.open.pop(name, None)
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            logger.warning("%s: no longer followed there (%s); training goes on, metrics.jsonl has all", name, reason)

    def _captions(self, validation: Validation) -> list[SampleCaption]:
        """The fixed pictures with their captions of now; the pictures are decoded once."""
        chosen = spread(validation.predictions, self.settings.evaluation.samples)
        if self.pictures is None:
            self.pictures = [small_picture(sample) for sample in self.samples]
        return [
            SampleCaption(caption.id, caption.text, caption.references, picture)
            for caption, picture in zip(chosen, self.pictures, strict=True)
        ]


def small_picture(sample: Sample, longest: int = LONGEST) -> Image | None:
    """A sample's picture, at most `longest` pixels wide and high; None where it is not at hand."""

    def enough(size: Size) -> Size:
        scale = min(1.0, longest / max(size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    try:
        image = decode(sample.read(), 200_000_000, enough)
    except (CaptrainError, OSError):  # captions of a feature store, say, whose pictures are elsewhere
        return None
    image.thumbnail((longest, longest))
    return image


def _read_notes(folder: Path) -> dict[str, dict[str, Any]]:
    """What earlier sittings noted; nothing where there is no such file, or it is not what this class writes."""
    try:
        notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: of for name, of in notes.items() if isinstance(of, dict)} if isinstance(notes, dict) else {}
