"""The live view of a training on a terminal; plain lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from rich.columns import Columns
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captrain.metrics.score import METRICS
from captrain.progress import Advance, live_view, printable, track
from captrain.records import Caption
from captrain.training.distributed.group import here
from captrain.training.loop.validation import Validation
from captrain.training.rows import Collator

logger = logging.getLogger(__name__)

SHOWN = ("validation_loss", "bleu_4", "rouge_l", "meteor", "spice", "cider")
SECONDS_OF_PACE = 20.0
GIB = 2**30


@dataclass
class Standing:
    """What the live view shows of a training, every value as text."""

    title: str = "train"
    step: dict[str, str] = field(default_factory=dict)
    speed: dict[str, str] = field(default_factory=dict)
    scores: dict[str, str] = field(default_factory=dict)
    caption: Text | None = None

    def __rich__(self) -> RenderableType:
        """A panel with a row for each value that is known."""
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", no_wrap=True)
        rows.add_column(overflow="fold")
        about = {"step": self.step, "speed": self.speed, "memory": memory_in_use(), "scores": self.scores}
        for name, values in about.items():
            if values:
                rows.add_row(name, _in_words(values))
        if self.caption is not None:
            rows.add_row("caption", self.caption)
        return Panel(rows, title=Text(self.title), title_align="left", border_style="dim")


def _in_words(values: dict[str, str]) -> Columns:
    """`name value` beside `name value`, never broken inside; names are dim."""
    parts = [Text.assemble((f"{name} ", "dim"), (value, "bold"), no_wrap=True) for name, value in values.items()]
    return Columns(parts, padding=(0, 3))


class Pace:
    """A rate per second, over about the last 20 seconds of training itself.

    >>> pace = Pace(now=0.0)
    >>> pace.add(10, now=1.0)
    >>> pace.add(10, now=2.0)
    >>> pace.a_second()
    10.0
    """

    def __init__(self, now: float) -> None:
        self.marks: deque[tuple[float, int]] = deque([(now, 0)])

    def add(self, count: int, now: float) -> None:
        """Count so many more at this moment."""
        self.marks.append((now, self.marks[-1][1] + count))
        while len(self.marks) > 2 and now - self.marks[0][0] > SECONDS_OF_PACE:
            self.marks.popleft()

    def pause(self, now: float) -> None:
        """Leave out the time since the last step, which went into something else, by moving all marks forward."""
        gap = now - self.marks[-1][0]
        self.marks = deque((moment + gap, count) for moment, count in self.marks)

    def a_second(self) -> float | None:
        """The rate; None until it is known."""
        (start, before), (end, after) = self.marks[0], self.marks[-1]
        return (after - before) / (end - start) if end > start else None


class LiveView(TrainerCallback):
    """Shows how many of all images were seen, and on a terminal the state of the training.

    Args:
        images: of an epoch. batch: images of a step. collator: it counts the captions.
        latest: the last validation; its first caption is shown.
    """

    def __init__(
        self,
        images: int,
        epochs: int,
        batch: int,
        collator: Collator,
        latest: Callable[[], Validation | None],
    ) -> None:
        self.images, self.epochs, self.batch = images, epochs, batch
        self.collator, self.latest = collator, latest
        self.standing = Standing()
        self.stack = ExitStack()
        self.seen = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start at the run's present step."""
        self.seen = self.first = self._images(state)
        self.begun = now = time.monotonic()
        self.image_pace, self.caption_pace, self.packed = Pace(now), Pace(now), self.collator.captions * here().size
        self._place(state)
        self.stack.enter_context(live_view(self.standing))
        self.advance: Advance = self.stack.enter_context(
            track("train", self.images * self.epochs - self.seen, timed=False)
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count one batch."""
        images, captions, now = self._images(state), self.collator.captions * here().size, time.monotonic()
        self.image_pace.add(images - self.seen, now)
        self.caption_pace.add(captions - self.packed, now)
        self.advance(images - self.seen)
        self.seen, self.packed = images, captions
        self._place(state)
        self.standing.speed = self._speed(now)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Show the loss of the last steps; with `-v` on a line of its own."""
        if "loss" not in logs:
            return
        self.standing.step = {
            "loss": f"{logs['loss']:.4f}",
            "learning rate": f"{logs.get('learning_rate', 0.0):.3g}",
            **({"gradient norm": f"{logs['grad_norm']:.3g}"} if "grad_norm" in logs else {}),
        }
        words = ", ".join(f"{name} {value}" for name, value in self.standing.step.items())
        logger.debug("epoch %.4g, step %d: %s", state.epoch, state.global_step, words)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the scores and a caption."""
        now = time.monotonic()
        self.image_pace.pause(now)
        self.caption_pace.pause(now)
        validation = self.latest()
        if validation is None:
            return
        self.standing.scores = {**shown_scores(validation), "epoch": f"{state.epoch:.4g}"}
        if validation.predictions:
            self.standing.caption = _caption(validation.predictions[0])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the view on the terminal."""
        self.close()

    def close(self) -> None:
        """Give the terminal back, however the training ended."""
        self.stack.close()

    def _place(self, state: TrainerState) -> None:
        epoch = min(int(state.epoch or 0) + 1, self.epochs)
        self.standing.title = f"epoch {epoch} of {self.epochs}, step {state.global_step} of {state.max_steps}"

    def _speed(self, now: float) -> dict[str, str]:
        """Rates of the last steps. The time left is estimated from the whole session, validation included."""
        images, captions = self.image_pace.a_second() or 0.0, self.caption_pace.a_second() or 0.0
        a_second = (self.seen - self.first) / max(now - self.begun, 1e-9)
        left = (self.images * self.epochs - self.seen) / max(a_second, 1e-9)
        return {"img/s": f"{images:.1f}", "captions/s": f"{captions:.1f}", "time left": clock_time(left)}

    def _images(self, state: TrainerState) -> int:
        """Images seen so far; the last batch of an epoch may be short."""
        steps = -(-self.images // self.batch)
        return state.global_step // steps * self.images + state.global_step % steps * self.batch


def shown_scores(validation: Validation) -> dict[str, str]:
    """The scores of a validation to show to people: the usual ones, and those of the user's metrics."""
    scores = validation.scores.items()
    return {name: f"{value:.4f}" for name, value in scores if name in SHOWN or name not in METRICS}


def _caption(caption: Caption) -> Text:
    """A generated caption and the id of its picture."""
    return Text.assemble((printable(caption.text) or "(nothing)", "bold"), (f"  {printable(caption.id)}", "dim"))


def clock_time(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock_time(59.6), clock_time(3725), clock_time(200_000)
    ('0:01:00', '1:02:05', '2 d 7:33:20')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hours}:{minutes:02}:{rest:02}"


def memory_in_use() -> dict[str, str]:
    """Memory of this process, and its peak on the GPU."""
    used = {"process": f"{psutil.Process().memory_info().rss / GIB:.2f} GiB"}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        used["GPU"] = f"{torch.cuda.memory_reserved() / GIB:.1f} of {total / GIB:.0f} GiB"
    return used
