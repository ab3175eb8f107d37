"""From an exception to one line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cyclopts.exceptions import CycloptsError

from captrain.cli.logs import is_verbose, printable
from captrain.errors import CaptrainError, is_disk_full, reason_of
from captrain.training.distributed.processes import is_silent

FAILED, WRONG_USE, INTERRUPTED, TERMINATED = 1, 2, 130, 143


def report_failure(error: BaseException) -> int:
    """Say what went wrong, on one line (and where, when verbose and it is not the user's doing); returns the exit code.

    Of the processes of one training, all find wrong use and hear signals: one of them says so.
    """
    line, code = explain(error)
    if is_verbose() and not isinstance(error, (CaptrainError, CycloptsError)):
        traceback.print_exception(error)
    if not (is_silent() and isinstance(error, (CycloptsError, CaptrainError)) and code != FAILED):
        print(f"error: {printable(line)}", file=sys.stderr)
    return code


class Terminated(KeyboardInterrupt):
    """SIGTERM: work ends as after Ctrl-C, and tidies up what it was about to write."""


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let the first SIGTERM raise `Terminated` in here; a second one ends the process at once. Only the main thread can."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != process:  # a forked worker has nothing to tidy up
            os.kill(os.getpid(), number)
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def told_of_threads() -> Iterator[None]:
    """Say on one line that a library's thread has failed in here; with -v where."""
    before = threading.excepthook

    def tell(failed: threading.ExceptHookArgs) -> None:
        if is_verbose() or failed.exc_value is None:
            before(failed)
        else:
            print(f"warning: a thread failed: {printable(explain(failed.exc_value)[0])}", file=sys.stderr)

    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before


def explain(error: BaseException) -> tuple[str, int]:
    """What to say about an error, and the exit code.

    >>> from captrain.errors import DataError
    >>> explain(DataError("photos: no such folder"))
    ('photos: no such folder', 2)
    """
    if isinstance(error, CaptrainError):
        return str(error), error.exit_code
    if isinstance(error, CycloptsError):
        from captrain.cli.misuse import describe_misuse

        return describe_misuse(error), WRONG_USE
    if isinstance(error, Terminated):
        return "ended by SIGTERM", TERMINATED
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG and error.filename:
        return f"{error.filename}: has a name that is too long for the disk; choose a shorter one", WRONG_USE
    return _failed_work(error), FAILED


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust gave up: such an error is no `Exception`."""
    return type(error).__name__ == "PanicException"


def _failed_work(error: BaseException) -> str:
    """Errors of the machine are told as they are; any other one is a bug of ours."""
    if is_disk_full(error):
        place = getattr(error, "filename", None)
        return (
            f"the disk is full{f' (writing {place})' if place else ''}; free some space and run the same command again"
        )
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; try a smaller --batch-size"
    if reason := reason_of(error):
        return f"{getattr(error, 'filename', None) or 'a file could not be read or written'}: {reason}{_gone(error)}"
    if is_panic(error):
        return f"a library gave up ({' '.join(str(error).split())[:200]}); is the model's tokenizer.json whole?"
    hint = "" if is_verbose() else "; run again with -v to see where"
    return f"{type(error).__name__}: {error} (captrain did not expect this{hint})"


def _gone(error: BaseException) -> str:
    """A hint where the folder of a missing file is missing too: somebody removed it meanwhile."""
    if not isinstance(error, FileNotFoundError) or not isinstance(error.filename, str):
        return ""
    missing = [folder for folder in Path(error.filename).parents if not folder.exists()]
    return f" (the folder {missing[-1]} is gone; put it back, or begin again)" if missing else ""
