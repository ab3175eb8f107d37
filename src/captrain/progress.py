"""Progress of long work: a live view with bars on a terminal and in a notebook, a plain line now and then elsewhere.

`printable` makes any text safe to show on a terminal.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from captrain.notebook import NotebookBars, in_notebook

logger = logging.getLogger("captrain")

Advance = Callable[[int], None]
SECONDS_BETWEEN_LINES = 10.0
REFRESHES_A_SECOND = 4

_shown: list[Progress] = []  # the bars of the live view that is shown; there is one at most


@contextmanager
def track(what: str, total: int, unit: str = "img", timed: bool = True) -> Iterator[Advance]:
    """Show progress of `total` units of work; call what it yields with how many more are done.

    Within a `live_view` the bar is part of it, without rate and time left unless it is `timed`: the view's head may know them
    better. Nothing is shown for no work, or when captrain runs quietly (`-q`).
    """
    if total == 0 or not logger.isEnabledFor(logging.INFO):
        yield lambda count: None
    elif _shown:
        with _bar(_shown[0], what, total, unit if timed else "") as advance:
            yield advance
    elif on_terminal():
        progress = _bars()
        with _live(progress), _bar(progress, what, total, unit, stays=True) as advance:
            yield advance
    elif in_notebook():
        bars = NotebookBars(*_columns())
        with _drawn(bars), _bar(bars, what, total, unit, stays=True) as advance:
            yield advance
    else:
        yield _lines(what, total, unit)


@contextmanager
def live_view(head: RenderableType) -> Iterator[None]:
    """Keep `head` at the bottom of the terminal, with a bar below it for each work that is tracked meanwhile.

    Log lines appear above. In a notebook the same is part of the cell's output. Elsewhere, where captrain runs quietly, or a
    view already exists, nothing is shown.
    """
    is_terminal = on_terminal()
    if _shown or not (is_terminal or in_notebook()) or not logger.isEnabledFor(logging.INFO):
        yield
        return
    progress = _bars() if is_terminal else NotebookBars(*_columns(), head=head)
    _shown.append(progress)
    try:
        with _live(Group(head, progress)) if is_terminal else _drawn(progress):
            yield
    finally:
        _shown.clear()


@contextmanager
def _drawn(bars: Progress) -> Iterator[None]:
    """Bars in a notebook, from their beginning to their end."""
    assert isinstance(bars, NotebookBars)
    bars.draw()
    try:
        yield
    finally:
        bars.draw()


def on_terminal() -> bool:
    """Whether stderr is a terminal that a view can be drawn on again and again."""
    return sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal


def _live(view: RenderableType) -> Live:
    """A view on stderr. What goes to stdout is moved above it only where both are the same terminal."""
    return Live(
        view,
        console=Console(stderr=True),
        refresh_per_second=REFRESHES_A_SECOND,
        redirect_stdout=sys.stdout.isatty(),
    )


def _bars() -> Progress:
    """Bars on a terminal."""
    return Progress(*_columns())


def _columns() -> tuple[ProgressColumn, ...]:
    """Rows of: what, bar, done of all, rate, time left."""
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        _TimeLeft(),
    )


@contextmanager
def _bar(progress: Progress, what: str, total: int, unit: str, stays: bool = False) -> Iterator[Advance]:
    """One row of bars, taken away when the work is done unless it `stays`."""
    task = progress.add_task(what, total=total, unit=unit)
    try:
        yield lambda count: progress.advance(task, count)
    finally:
        if not stays:
            progress.remove_task(task)


class _TimeLeft(TimeRemainingColumn):
    """Time left, of what has a rate."""

    def render(self, task: Task) -> Text:
        """`0:01:25`."""
        return super().render(task) if task.fields["unit"] else Text("")


class _Rate(ProgressColumn):
    """Units a second, of what is counted in units."""

    def render(self, task: Task) -> Text:
        """`112.3 img/s`, once it is known."""
        speed, unit = task.finished_speed or task.speed, task.fields["unit"]
        return Text(f"{speed:.1f} {unit}/s" if speed and unit else "")


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


def printable(text: str) -> str:
    """Text on one line, with anything that could steer a terminal (in a file name, for example) as escapes.

    >>> printable("a\\n  b"), printable("\\x1b[31mred")
    ('a b', '\\\\x1b[31mred')
    """
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line)
