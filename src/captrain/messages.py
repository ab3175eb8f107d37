"""Messages while captrain works: short lines for people, on stderr, or in the output of a notebook's cell."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from captrain.notebook import in_notebook
from captrain.progress import printable

logger = logging.getLogger("captrain")


class Lines(logging.Handler):
    """One line per message. It looks the stream up each time, so that lines come above a live view and not into it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message; a failure to print does not stop the work."""
        try:
            print(self.format(record), file=sys.stdout if in_notebook() else sys.stderr, flush=True)
        except (OSError, ValueError):
            self.handleError(record)


class ShortLines(logging.Formatter):
    """`message`, or `warning: message`; coloured on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """One record on one line; a traceback, if there is one, follows below."""
        line = printable(record.getMessage())
        if record.levelno >= logging.WARNING:
            line = f"{record.levelname.lower()}: {line}"
            line = f"\x1b[33m{line}\x1b[0m" if sys.stderr.isatty() else line
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


@contextmanager
def spoken() -> Iterator[None]:
    """Show captrain's messages and progress in here, as the command line does, unless the program has its own logging.

    A level that somebody has given the logger `captrain` stays: `logging.getLogger("captrain").setLevel("WARNING")` is the
    command line's `--quiet`, `"DEBUG"` its `--verbose`. Messages go to existing handlers, else to stderr or the cell.
    Afterwards everything is restored.
    """
    level, handler = logger.level, Lines()
    handler.setFormatter(ShortLines())
    needs_handler = not logger.hasHandlers()
    if level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if needs_handler:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        if level == logging.NOTSET:
            logger.setLevel(level)


def speak(level: int) -> None:
    """Show captrain's messages from a level on for as long as this process lives: for the start of a worker process."""
    handler = Lines()
    handler.setFormatter(ShortLines())
    logger.handlers[:] = [handler]
    logger.setLevel(level)
