"""Turns an exception into one line on stderr and an exit code; for a wrong command line, with the nearest valid name."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)

from captrain.cli.app import COMMANDS, GROUPS
from captrain.cli.help import flags_by_command
from captrain.cli.logs import is_verbose, printable
from captrain.errors import CaptrainError, is_disk_full, nearest, reason_of
from captrain.training.distributed.processes import is_silent

FAILED, WRONG_USE, INTERRUPTED, TERMINATED = 1, 2, 130, 143


def report_failure(error: BaseException) -> int:
    """Say what went wrong, on one line (and where, when verbose and it is not the user's doing); returns the exit code.

    All processes of a training meet wrong use and signals: only one of them reports it.
    """
    line, code = explain(error)
    if is_verbose() and not isinstance(error, (CaptrainError, CycloptsError)):
        traceback.print_exception(error)
    if not (is_silent() and isinstance(error, (CycloptsError, CaptrainError)) and code != FAILED):
        print(f"error: {printable(line)}", file=sys.stderr)
    return code


class Terminated(KeyboardInterrupt):
    """SIGTERM: work ends as after Ctrl-C, and tidies up unfinished files."""


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
    """Report on one line that a library's thread has failed; with -v, where."""
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
    """Errors of the machine are reported as they are; any other error is a bug in captrain."""
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


def describe_misuse(error: CycloptsError) -> str:
    """One line about a command line that can't be understood."""
    for kind, describe in DESCRIPTIONS.items():
        if isinstance(error, kind):
            return describe(error)
    return str(error)


def _unknown_flag(error: UnknownOptionError) -> str:
    """A flag that this command does not have: a misspelt one, or another command's."""
    found = (error.token.keyword or error.token.value).split("=", 1)[0]
    return _unknown_flag_of(found, " ".join(error.command_chain or ()))


def _unknown_flag_of(found: str, command: str) -> str:
    known = flags_by_command()
    own = [
        *known.get(command, ()),
        "--help",
        "--help-all",
        "--verbose",
        "--quiet",
        *([] if command else ["--version", "--install-completion"]),
    ]
    owners = [f"captrain {name}" for name, flags in known.items() if found in flags]
    if owners:
        hint = f" It belongs to: {', '.join(owners)}."
    else:
        every = [flag for flags in known.values() for flag in flags]
        hint = nearest(found, [*own, *every])
    return f"unknown flag '{found}' of {_title(command)}.{hint} {_see_help(command)}"


def _unknown_command(error: UnknownCommandError) -> str:
    """A command that does not exist."""
    found = (error.unused_tokens or [""])[0]
    chain = " ".join(error.command_chain or ())
    if found.startswith("-"):
        return _unknown_flag_of(found.split("=", 1)[0], chain)
    known = list(GROUPS[chain][1]) if chain in GROUPS else [*COMMANDS, *GROUPS]
    return f"unknown command '{found}' of {_title(chain)}.{nearest(found, known)} Commands: {', '.join(known)}"


def _missing(error: MissingArgumentError) -> str:
    """An argument, or a flag's value, that was not given."""
    command = " ".join(error.command_chain or ())
    name = error.keyword or (error.argument.name if error.argument else "an argument")
    if name.startswith("-"):
        return f"{_title(command)}: found {name} without a value, expected one after it. {_see_help(command)}"
    return f"{_title(command)}: {name} is missing. {_see_help(command)}"


def _invalid(error: ValidationError) -> str:
    """A value that its setting does not take."""
    import pydantic

    from captrain.settings.load import first_problem

    if isinstance(error.__cause__, pydantic.ValidationError):
        place, complaint = first_problem(error.__cause__)
        return f"--{place[-1].replace('_', '-')}: {complaint}" if place else complaint
    value = error.argument.value if error.argument else error.value
    reason = error.exception_message.rstrip(".")
    return f"{_name(error)}: found {value!r}, which {reason[:1].lower()}{reason[1:]}"


def _not_converted(error: CoercionError) -> str:
    """A value of the wrong kind for a flag that is no setting."""
    if error.token is None or error.argument is None:
        return str(error)
    choices = error.argument.get_choices() or ()
    expected = f"one of {', '.join(choices)}" if choices else _kind(error.target_type)
    hint = nearest(error.token.value, choices)
    return f"{_name(error)}: found {error.token.value!r}, expected {expected}{'.' if hint else ''}{hint}"


def _kind(kind: Any) -> str:
    """A type in words.

    >>> _kind(int)
    'a whole number'
    """
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(
        kind, getattr(kind, "__name__", "another value")
    )


def _repeated(error: RepeatArgumentError) -> str:
    """A flag that was given twice."""
    return f"{error.token.keyword}: given more than once, expected once; leave out what you do not want"


def _too_much(error: UnusedCliTokensError) -> str:
    """Words that no argument takes."""
    command = " ".join(error.command_chain or ())
    return f"{_title(command)}: did not expect {' '.join(map(repr, error.unused_tokens or ()))}. {_see_help(command)}"


def _name(error: CycloptsError) -> str:
    """The flag or argument an error is about."""
    return error.argument.name if error.argument else _title(" ".join(error.command_chain or ()))


def _title(command: str) -> str:
    """`captrain train`, or `captrain`."""
    return f"captrain {command}".rstrip()


def _see_help(command: str) -> str:
    return f"See: {_title(command)} --help"


DESCRIPTIONS: dict[type[CycloptsError], Callable[[Any], str]] = {
    UnknownOptionError: _unknown_flag,
    UnknownCommandError: _unknown_command,
    MissingArgumentError: _missing,
    ValidationError: _invalid,
    CoercionError: _not_converted,
    RepeatArgumentError: _repeated,
    UnusedCliTokensError: _too_much,
}
