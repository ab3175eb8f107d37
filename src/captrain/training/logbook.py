"""What a run writes down while it trains: `metrics.jsonl` and `samples.jsonl`, and a line for people at each evaluation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captrain.training.alarm import collapse
from captrain.training.live import shown_scores
from captrain.training.run_folder import RunFolder
from captrain.training.validate import Validation, spread

logger = logging.getLogger(__name__)

NAMES = {"grad_norm": "gradient_norm"}


def logged(logs: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """What a log of Trainer's holds, as the run's own: its kind (train or validation) and values by name.

    None for what is neither: Trainer sums a training up at its end.

    >>> logged({"loss": 2.5, "grad_norm": 0.1, "epoch": 1.0})
    ('train', {'loss': 2.5, 'gradient_norm': 0.1})
    >>> logged({"eval_cider": 0.9, "epoch": 1.0})
    ('validation', {'cider': 0.9})
    """
    validation = any(name.startswith("eval_") for name in logs)
    if not validation and "loss" not in logs:
        return None
    values = {NAMES.get(name, name).removeprefix("eval_"): value for name, value in logs.items() if name != "epoch"}
    return "validation" if validation else "train", values


class Logbook(TrainerCallback):
    """Writes `metrics.jsonl` and `samples.jsonl`; seconds go on counting over interruptions."""

    def __init__(
        self, run: RunFolder, seconds_before: float, samples: int, latest: Callable[[], Validation | None]
    ) -> None:
        self.run = run
        self.start = time.monotonic() - seconds_before
        self.samples = samples
        self.latest = latest
        self.alarmed = False

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """One line, under the names that the run folder's format has."""
        if (found := logged(logs)) is not None:
            kind, values = found
            self.run.append("metrics.jsonl", [{"kind": kind, **self._place(state), **values}])

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The captions of the fixed pictures; one of them is shown. An alarm, once, when captions collapse."""
        validation = self.latest()
        if validation is None:
            return
        chosen = spread(validation.predictions, self.samples)
        place = self._place(state)
        self.run.append("samples.jsonl", [{**place, **caption.to_dict()} for caption in chosen])
        scores = ", ".join(f"{name} {value}" for name, value in shown_scores(validation).items())
        logger.info("epoch %.4g, step %d: %s", state.epoch, state.global_step, scores)
        if chosen:
            logger.info("  %s: %s", chosen[0].id, chosen[0].text)
        if not self.alarmed and (trouble := _trouble(validation)):
            self.alarmed = True
            logger.warning("epoch %.4g: %s", state.epoch, trouble)

    def _place(self, state: TrainerState) -> dict[str, Any]:
        """Where in the run a line belongs."""
        seconds = round(time.monotonic() - self.start, 3)
        return {"step": state.global_step, "epoch": round(float(state.epoch or 0), 4), "seconds": seconds}


def _trouble(validation: Validation) -> str | None:
    """What is wrong with the captions of a validation as a whole."""
    return collapse(validation.predictions, validation.cut_off, validation.positions)
