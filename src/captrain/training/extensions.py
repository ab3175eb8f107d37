"""What a Python program adds to a training: its own callbacks and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captrain.metrics.own import Metric
from captrain.training.distributed.group import here
from captrain.training.loop.validation import Validation
from captrain.training.run_folder.logbook import logged

EVENTS = ("on_start", "on_log", "on_epoch", "on_end")
"""The methods of a captrain callback; it has at least one of them (see `captrain.api.training.Callback`)."""


@dataclass(frozen=True, slots=True)
class Extensions:
    """`callbacks`: transformers' `TrainerCallback`s, objects with some of EVENTS, or functions, which serve as `on_epoch`.

    `metrics`: functions by the name of their score.
    """

    callbacks: Sequence[Any] = ()
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    def trainer_callbacks(self, run: Path, latest: Callable[[], Validation | None]) -> list[TrainerCallback]:
        """The callbacks as transformers' Trainer takes them; `latest` gives the last validation."""
        return [_as_trainers(callback, run, latest) for callback in self.callbacks]


NOTHING = Extensions()


def _as_trainers(callback: Any, run: Path, latest: Callable[[], Validation | None]) -> TrainerCallback:
    if isinstance(callback, type):
        callback = callback()
    if isinstance(callback, TrainerCallback):
        return callback
    events = {name: getattr(callback, name) for name in EVENTS if hasattr(callback, name)}
    return _Adapter(events or {"on_epoch": callback}, run, latest)


class _Adapter(TrainerCallback):
    """Calls a captrain callback, in the first of several processes only."""

    def __init__(
        self, events: Mapping[str, Callable[..., Any]], run: Path, latest: Callable[[], Validation | None]
    ) -> None:
        self.events, self.run, self.latest = events, run, latest
        self.stops = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._call("on_start", self.run)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if (found := logged(logs)) is not None and found[0] == "train":
            self._call("on_log", state.global_step, dict(found[1]))

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        validation = self.latest()
        if validation is not None:
            self._end_epoch(state, control, dict(validation.scores), list(validation.predictions))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.eval_strategy == "no":
            self._end_epoch(state, control, {}, [])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        validation = self.latest()
        self._call("on_end", {} if validation is None else dict(validation.scores))

    def _end_epoch(self, state: TrainerState, control: TrainerControl, *what: Any) -> None:
        stops = here().from_first(self._call("on_epoch", round(float(state.epoch or 0), 4), *what) is True)
        if stops:
            control.should_training_stop = control.should_save = True

    def _call(self, event: str, *what: Any) -> Any:
        if event in self.events and here().is_first:
            return self.events[event](*what)
        return None
