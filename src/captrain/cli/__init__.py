"""The command line. A file holds the commands of one subject; what is heavy is imported when a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from captrain.manners import share_machine


def command() -> NoReturn:
    """The entry point of `captrain`: the words of this process are run, and it ends with their exit code."""
    share_machine()
    code = main()
    if "torch" not in sys.modules:  # no process of a group, which ends in a way of its own
        sys.exit(code)
    from captrain.training.distributed.processes import end_process

    end_process(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: words after the program's name. Default: those of this process.

    Returns:
        Exit code: 0 done, 1 failed work, 2 wrong use, 3 done with rejected samples, 130 interrupted,
        143 ended by SIGTERM.
    """
    _accept_any_character()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return 0
    except BaseException as error:
        from captrain.cli.failures import is_panic, report_failure

        if not isinstance(error, (Exception, KeyboardInterrupt)) and not is_panic(error):
            raise
        return report_failure(error)
    return code


def _run(words: list[str]) -> int:
    """Help, which needs nothing but its text, or a command."""
    from captrain.cli.help import asked_for, show_help, without_help

    if (page := asked_for(words)) is not None:
        show_help(words, page)
        return 0
    from captrain.cli.app import make_app
    from captrain.cli.failures import ended_by_sigterm, told_of_threads

    with ended_by_sigterm(), told_of_threads():
        code = make_app().meta(without_help(words), exit_on_error=False, print_error=False)
    return code if isinstance(code, int) else 0


def _accept_any_character() -> None:
    """Print what the terminal's encoding lacks as escapes: a file name must not end the work."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _forget_stdout() -> None:
    """The reader is gone (`captrain ... | head`): what is still buffered goes nowhere, without a complaint at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
