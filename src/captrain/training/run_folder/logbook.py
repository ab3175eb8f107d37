"""The logs of a run, `metrics.jsonl` and `samples.jsonl`, and a log line at each evaluation.

Warns when captions collapse: one caption for all pictures, or captions that never end.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captrain.records import Caption
from captrain.training.loop.live_view import shown_scores
from captrain.training.loop.validation import Validation, spread_evenly
from captrain.training.run_folder.folder import RunFolder

logger = logging.getLogger(__name__)

NAMES = {"grad_norm": "gradient_norm"}


def logged(logs: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """A log of Trainer in the run's own terms: its kind (train or validation) and values by name.

    None for anything else, such as Trainer's summary at the end.

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
    """Writes `metrics.jsonl` and `samples.jsonl`; seconds are counted over all sessions."""

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
        """Write one line, under the names of the run folder's format."""
        if (found := logged(logs)) is not None:
            kind, values = found
            self.run.append("metrics.jsonl", [{"kind": kind, **self._place(state), **values}])

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the captions of the fixed pictures, and log one of them. Warn once if captions collapse."""
        validation = self.latest()
        if validation is None:
            return
        chosen = spread_evenly(validation.predictions, self.samples)
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
        """The place of a line in the run."""
        seconds = round(time.monotonic() - self.start, 3)
        return {"step": state.global_step, "epoch": round(float(state.epoch or 0), 4), "seconds": seconds}


def _trouble(validation: Validation) -> str | None:
    """The problem with the captions of a validation as a whole, if there is one."""
    return collapse(validation.predictions, validation.cut_off, validation.positions)


FEWEST = 10  # captions; among fewer, some may be alike by chance
ALIKE = 0.8  # share of pictures with one and the same caption
DISTINCT = 0.02  # different captions over pictures
ENDLESS = 0.9  # share of captions that the limit of tokens cut off

HELP = (
    "What usually helps: a lower --learning-rate, --label-smoothing 0.1, a look at the data (captrain data check), "
    "the --prompt that the model was trained with"
)
HELP_ENDLESS = (
    "If your captions are longer than that, {longer}; if not, what usually helps: "
    "a lower --learning-rate, more epochs, captions that --max-tokens does not cut, a look at the data (captrain data check)"
)


def collapse(written: Sequence[Caption], cut_off: int, positions: str | None = None) -> str | None:
    """What is wrong with written captions as a whole, and what usually helps; None while they look alive.

    Args:
        written: a caption for each validation picture, with its references. cut_off: how many of them never ended.
        positions: a description of the decoder's positions, if these cut captions off.

    Captions may well be alike if the references are: then nothing is reported. Fewer than ten captions are not judged.

    >>> dogs = [Caption(str(number), "a dog", references=(f"a dog with {number} bones",)) for number in range(20)]
    >>> collapse(dogs, cut_off=0)[:58]
    "captions collapse: 20 of 20 pictures get the caption 'a do"
    >>> collapse(dogs[:5], cut_off=0)
    """
    count = len(written)
    if count < FEWEST:
        return None
    if cut_off >= ENDLESS * count:
        longer = "take a model with more positions" if positions else "raise --max-new-tokens"
        limit = f"the end of the decoder's positions ({positions})" if positions else "--max-new-tokens"
        return (
            f"captions do not end: {cut_off} of {count} were cut off at {limit}. {HELP_ENDLESS.format(longer=longer)}"
        )
    texts = Counter(caption.text for caption in written)
    known = Counter(caption.references[0] for caption in written if caption.references)
    [(commonest, often)] = texts.most_common(1)
    if often >= ALIKE * count and _share(known) < often / count / 2:
        said = "no words at all" if not commonest else f"the caption '{commonest}'"
        return f"captions collapse: {often} of {count} pictures get {said}. {HELP}"
    if len(texts) <= DISTINCT * count and len(known) > 5 * len(texts):
        return f"captions collapse: {count} pictures get only {len(texts)} different captions. {HELP}"
    return None


def _share(known: Counter[str]) -> float:
    """The share of the commonest text; 0 without texts."""
    return max(known.values(), default=0) / max(known.total(), 1)
