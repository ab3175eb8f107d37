"""From an exception to one line on stderr and an exit code."""

from __future__ import annotations

import sys
import traceback

from cyclopts.exceptions import CycloptsError

from captrain.cli.logs import is_verbose, printable
from captrain.errors import CaptrainError, is_disk_full, reason_of
from captrain.training.distributed.environment import is_silent

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


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
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    return _failed_work(error), FAILED


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
        return f"{getattr(error, 'filename', None) or 'a file could not be read or written'}: {reason}"
    hint = "" if is_verbose() else "; run again with -v to see where"
    return f"{type(error).__name__}: {error} (captrain did not expect this{hint})"
