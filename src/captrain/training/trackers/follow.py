"""Feeds a run's trackers; training goes on when one of them fails."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captrain.data.decode import Size, decode
from captrain.disk.writing import write_text
from captrain.errors import CaptrainError
from captrain.memory_budget import counted
from captrain.models.contexts import untouched_randomness
from captrain.picture_memory import MAX_PIXELS
from captrain.records import Sample, read_jsonl
from captrain.training.loop.validation import Validation, spread_evenly
from captrain.training.run_folder.logbook import logged
from captrain.training.trackers import SampleCaption, TrackedRun, Tracker, open_tracker

logger = logging.getLogger(__name__)

NOTES = "trackers.json"
METRICS = "metrics.jsonl"
PLACE = ("kind", "step", "epoch", "seconds")
LONGEST = 256  # pixels of a picture's longer side


class Following(TrainerCallback):
    """The trackers of a run.

    `trackers.json` in the run folder holds each tracker's own id of the run, so that the next session continues it, and the
    last steps that it was given, so that steps trained again after an interruption are not sent twice.

    A run that goes back on purpose repeats steps that a tracker already has. TensorBoard forgets these by itself. W&B and
    MLflow never forget: a new run begins there, and gets all steps again.

    Args:
        names: of the trackers. run: what each tracker is told at the start. samples: the pictures whose captions are shown.
        latest: the last validation. goes_back: whether the steps from here on may differ from those of an earlier session.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: TrackedRun,
        samples: Sequence[Sample],
        latest: Callable[[], Validation | None],
        goes_back: bool = False,
    ) -> None:
        self.names, self.run, self.folder, self.goes_back = names, run, run.folder, goes_back
        self.samples, self.latest = samples, latest
        self.pictures: list[Image | None] | None = None
        self.open: dict[str, Tracker] = {}
        self.before: dict[str, dict[str, Any]] = {}
        self.notes: dict[str, dict[str, Any]] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open all trackers where an earlier session left them."""
        self.notes, self.before = _read_notes(self.folder), _read_notes(self.folder)
        for name in self.names:
            self._safely(name, partial(self._open, name, state.global_step))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Scalars under the same names as in `metrics.jsonl`."""
        if (found := logged(logs)) is None:
            return
        kind, values = found
        scalars = {f"{kind}/{name}": float(value) for name, value in values.items()}
        epoch = {"epoch": float(state.epoch or 0)}
        self._give(kind, state.global_step, lambda tracker, step: tracker.scalars(step, scalars | epoch))

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The fixed pictures with their present captions."""
        validation = self.latest()
        if validation is None or not self.open:
            return
        captions = self._captions(validation)
        self._give("samples", state.global_step, lambda tracker, step: tracker.samples(step, captions))

    def tested(self, step: int, scores: Mapping[str, float]) -> None:
        """The scores of the final test, at the run's last step."""
        scalars = {f"test/{name}": value for name, value in scores.items()}
        self._give("test", step, lambda tracker, at: tracker.scalars(at, scalars))

    @contextmanager
    def until_done(self) -> Iterator[None]:
        """Follow the run in this context. A run that ends early is marked as such if the tracker can do so."""
        whole = False
        try:
            yield
            whole = True
        finally:
            for name, tracker in list(self.open.items()):
                self._safely(name, partial(tracker.close, whole=whole))
            self.open.clear()

    def _open(self, name: str, step: int) -> None:
        """Open a tracker where it was left, or from scratch if it has steps that the run no longer has."""
        run, before = self.run, self.before.get(name, {})
        from_scratch = self.goes_back and any(at > step for kind, at in before.items() if kind != "id")
        if from_scratch:
            run, before = replace(run, name=f"{run.name} from step {step}"), {}
        tracker = open_tracker(name, replace(run, step=step, id=before.get("id")))
        self.open[name] = tracker
        if from_scratch:
            self.before[name], self.notes[name] = {}, {}
        if tracker.id is not None:
            self._note(name, "id", tracker.id)
        if from_scratch:
            self._retell(tracker)

    def _retell(self, tracker: Tracker) -> None:
        """Send a tracker the scalars of all steps so far."""
        path = self.folder / METRICS
        for line in read_jsonl(path) if path.is_file() else ():
            values = {f"{line['kind']}/{key}": value for key, value in line.items() if key not in PLACE}
            known = {key: float(value) for key, value in values.items() if value is not None}
            tracker.scalars(line["step"], known | {"epoch": float(line["epoch"])})

    def _give(self, kind: str, step: int, give: Callable[[Tracker, int], None]) -> None:
        """Send all trackers something of a step, unless an earlier session sent it."""
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
        """Call a tracker; one that fails is dropped and named once. Its random numbers do not disturb training's."""
        try:
            with untouched_randomness():
                call()
        except Exception as error:  # trackers raise anything that their libraries raise; none of it may end a training
            self.open.pop(name, None)
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            logger.warning("%s: no longer followed there (%s); training goes on, metrics.jsonl has all", name, reason)

    def _captions(self, validation: Validation) -> list[SampleCaption]:
        """The fixed pictures with their present captions; the pictures are decoded once."""
        chosen = spread_evenly(validation.predictions, len(self.samples))
        if self.pictures is None:
            self.pictures = [small_picture(sample) for sample in self.samples]
        return [
            SampleCaption(caption.id, caption.text, caption.references, picture)
            for caption, picture in zip(chosen, self.pictures, strict=True)
        ]


@counted()
def small_picture(sample: Sample, longest: int = LONGEST) -> Image | None:
    """A sample's picture, at most `longest` pixels wide and high; None if it is not at hand."""

    def enough(size: Size) -> Size:
        scale = min(1.0, longest / max(size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    try:
        image = decode(sample.read(), MAX_PIXELS, enough)
    except (CaptrainError, OSError):  # for instance captions of a feature store, whose pictures are elsewhere
        return None
    image.thumbnail((longest, longest))
    return image


def _read_notes(folder: Path) -> dict[str, dict[str, Any]]:
    """What earlier sessions noted; nothing if there is no such file, or if this class did not write it."""
    try:
        notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: of for name, of in notes.items() if isinstance(of, dict)} if isinstance(notes, dict) else {}
