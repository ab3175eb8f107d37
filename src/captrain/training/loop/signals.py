"""Stopping on SIGINT and SIGTERM: a training ends its step, saves a checkpoint, and says how to go on."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from captrain.errors import StoppedError

P = ParamSpec("P")
T = TypeVar("T")


class Stopped(KeyboardInterrupt):
    """Work ends because of a signal; `place` says where in the training, as text."""

    def __init__(self, number: int, place: str) -> None:
        super().__init__()
        self.number = number
        self.place = place


class Signals:
    """Catches SIGTERM and SIGINT.

    During a step a signal is only noted (`asked` is its number); everywhere else it raises `Stopped` at once, and so does a
    second one anywhere. `place` says where in the training that is.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.waits = False
        self.place = ""

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch both signals in this context. Only the main thread can; other threads change nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.asked, self.waits, self.place = 0, False, "before the first step"
        before = {number: signal.signal(number, self._arrives) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def waiting(self, waits: bool) -> Iterator[None]:
        """Whether signals in this context wait for the end of a step. If they don't, one that is waiting is raised at once."""
        before, self.waits = self.waits, waits
        try:
            if self.asked and not waits:
                raise Stopped(self.asked, self.place)
            yield
            if self.asked and not before:
                raise Stopped(self.asked, self.place)
        finally:
            self.waits = before

    def _arrives(self, number: int, frame: Any) -> None:
        """The handler that the system calls."""
        again, self.asked = bool(self.asked), number
        if again or not self.waits:
            raise Stopped(number, self.place)


SIGNALS = Signals()
"""One for the whole process, like the signal handlers themselves."""


def told_place(step: int, checkpoint: int) -> str:
    """The step of a training in words, and how much of it is saved.

    >>> told_place(12, 12), told_place(12, 10), told_place(3, 0)
    ('at step 12, which a checkpoint holds', 'at step 12; the last checkpoint is of step 10', 'at step 3, before any checkpoint')
    """
    if not checkpoint:
        return f"at step {step}, before any checkpoint"
    saved = ", which a checkpoint holds" if step == checkpoint else f"; the last checkpoint is of step {checkpoint}"
    return f"at step {step}{saved}"


def ends_on_signals(train: Callable[P, T]) -> Callable[P, T]:
    """Turn SIGTERM and SIGINT during a training into a `StoppedError` that says how to go on."""

    @functools.wraps(train)
    def stoppable(*args: P.args, **kwargs: P.kwargs) -> T:
        with SIGNALS.caught():
            try:
                return train(*args, **kwargs)
            except Stopped as stop:
                once = [f"--{name.replace('_', '-')}" for name in ("overwrite", "resume_from") if kwargs.get(name)]
                without = f", without {' and '.join(once)}," if once else ""
                name = signal.Signals(stop.number).name
                line = f"{name} stopped the training {stop.place}; the same command{without} goes on with it"
                raise StoppedError(line, stop.number) from None

    return stoppable
