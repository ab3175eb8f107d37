"""One tree of errors. Every message is one line: what was found, what was expected, what to do next.

Exit codes of the command line: 0 done, 1 failed work, 2 wrong use, 3 done with rejected samples, 128 + N stopped by signal N.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
LONGEST_MESSAGE = 2000
"""Characters; a longer message is cut in the middle, because the next step is at the end."""


class CaptrainError(Exception):
    """Any error that captrain raises on purpose. `exit_code` is what the command line returns.

    A name from a file may hold line breaks, or be a megabyte long; the message is still one readable line.

    >>> str(CaptrainError("found 'a\\nb'")), len(str(CaptrainError("unknown key " + 70_000 * "x")))
    ("found 'a b'", 2000)
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        line = " ".join(str(message).splitlines())
        half = LONGEST_MESSAGE // 2
        super().__init__(line if len(line) <= LONGEST_MESSAGE else f"{line[: half - 5]} ... {line[-half:]}")


class UserError(CaptrainError):
    """The command, the settings or the input are wrong; nothing was started."""

    exit_code = 2


class SettingsError(UserError):
    """A setting is unknown, of the wrong kind, or contradicts another."""


class DataError(UserError):
    """A data set is missing, broken, or holds nothing that can be used."""


class PictureError(CaptrainError):
    """One picture can't be used. Raised a picture at a time, so that callers can reject it and go on."""


class ModelError(UserError):
    """A model folder or hub id can't be loaded, or does not fit what was asked of it."""


class RunError(UserError):
    """A run folder is taken, missing or belongs to other settings."""


class BusyError(UserError):
    """Another process is writing the same place; the same command works once it is done."""


class TrainingError(CaptrainError):
    """Training stopped (non-finite loss, full disk); everything saved before is intact."""


class StoppedError(CaptrainError):
    """A signal ended the work (Ctrl-C, SIGTERM), and it can go on; the exit code is 128 plus the signal's number."""

    def __init__(self, message: object, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = 128 + signal

    def __reduce__(self) -> tuple[type[StoppedError], tuple[str, int]]:
        """Pickling, from one process to another."""
        return StoppedError, (str(self), self.signal)


def reason_of(error: BaseException) -> str:
    """Why a file could not be read or written, in words; "" if the error is about something else.

    Libraries in other languages report it without a number, torch without a reason.

    >>> reason_of(OSError(28, "No space left on device")), reason_of(RuntimeError("Quota exceeded (os error 122)"))
    ('the disk is full: No space left on device', 'Quota exceeded (os error 122)')
    >>> reason_of(RuntimeError("basic_ios::clear: iostream error"))
    'the disk did not take it: it is full, over a quota, or failing'
    """
    first = (str(error).splitlines() or [""])[0]
    if is_disk_full(error):
        return "the disk is full: No space left on device"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "iostream error" in first or "inline_container" in first:  # torch's writer of archives
        return "the disk did not take it: it is full, over a quota, or failing"
    return first if "(os error " in first else ""


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one that led to it, means a full disk."""
    link: BaseException | None = error
    while link is not None:
        if (isinstance(link, OSError) and link.errno in NO_SPACE) or "No space left on device" in str(link):
            return True
        link = link.__cause__ or link.__context__
    return False


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or nothing.

    >>> nearest("bacth_size", ["batch_size", "epochs"])
    " Did you mean 'batch_size'?"
    >>> nearest("zzz", ["batch_size", "epochs"])
    ''
    """
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def nearest_path(path: Path, siblings: Iterable[Path]) -> str:
    """A hint that names the sibling whose last part is closest, or nothing; folders that all of them share do not count.

    >>> nearest_path(Path("runs/fisrt"), [Path("runs/first"), Path("runs/b")])
    " Did you mean 'runs/first'?"
    >>> nearest_path(Path("runs/zzz"), [Path("runs/first"), Path("runs/b")])
    ''
    """
    by_name = {sibling.name: sibling for sibling in siblings}
    matches = difflib.get_close_matches(path.name, list(by_name), n=1)
    return f" Did you mean '{by_name[matches[0]]}'?" if matches else ""
