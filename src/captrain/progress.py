"""How long work shows itself: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

logger = logging.getLogger("captrain")

Advance = Callable[[int], None]
SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def track(what: str, total: int, unit: str = "img") -> Iterator[Advance]:
    """Show progress of `total` units of work; call what it yields with how many more are done.

    Nothing is shown for no work, or when captrain runs quietly (`-q`).
    """
    if total == 0 or not logger.isEnabledFor(logging.INFO):
        yield lambda count: None
    elif sys.stderr.isatty():
        with _bar(unit) as progress:
            task = progress.add_task(what, total=total)
            yield lambda count: progress.advance(task, count)
    else:
        yield _lines(what, total, unit)


def _bar(unit: str) -> Progress:
    """A rich bar: what, bar, done of all, rate, time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """`112.3 img/s`, once it is known."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self.unit}/s" if speed else "")


def _lines(what: str, total: int, unit: str) -> Advance:
    """Plain lines, the last one when all is done."""
    start = last = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if count == 0 or (done < total and now - last < SECONDS_BETWEEN_LINES):
            return
        last = now
        rate = done / max(now - start, 1e-9)
        left = (total - done) / max(rate, 1e-9)
        logger.info("%s: %d/%d, %.1f %s/s, %.0f s left", what, done, total, rate, unit, left)

    return advance
