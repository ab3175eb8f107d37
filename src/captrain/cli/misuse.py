"""What to say when a command line can't be understood: what was found, what was expected, the nearest valid name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pydantic
from cyclopts import App
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

from captrain.cli.app import COMMANDS, CONFIG_COMMANDS, DATA_COMMANDS, FEATURES_COMMANDS, make_app
from captrain.errors import nearest
from captrain.settings.load import first_problem

GROUPS = {"config": CONFIG_COMMANDS, "data": DATA_COMMANDS, "features": FEATURES_COMMANDS}
"""Commands that have commands of their own."""


def describe_misuse(error: CycloptsError) -> str:
    """One line about a command line that can't be understood."""
    for kind, describe in DESCRIPTIONS.items():
        if isinstance(error, kind):
            return describe(error)
    return str(error)


def flags_by_command() -> dict[str, list[str]]:
    """Every command ("config show") with its flags.

    >>> "--rank" in flags_by_command()["train"], "--rank" in flags_by_command()["data get"]
    (True, False)
    """
    app = make_app()
    found = {name: _flags(app[name]) for name in COMMANDS}
    return found | {
        f"{group} {name}": _flags(app[group][name]) for group, commands in GROUPS.items() for name in commands
    }


def _flags(app: App) -> list[str]:
    """Flags of one command."""
    arguments = app.assemble_argument_collection()
    return [name for argument in arguments for name in argument.names if name.startswith("--")]


def _unknown_flag(error: UnknownOptionError) -> str:
    """A flag that this command does not have: a misspelt one, or another command's."""
    found = (error.token.keyword or error.token.value).split("=", 1)[0]
    return _unknown_flag_of(found, " ".join(error.command_chain or ()))


def _unknown_flag_of(found: str, command: str) -> str:
    known = flags_by_command()
    own = [*known.get(command, ()), "--help", "--verbose", "--quiet", *([] if command else ["--version"])]
    owners = [f"captrain {name}" for name, flags in known.items() if found in flags]
    if owners:
        hint = f" It belongs to: {', '.join(owners)}."
    else:
        every = [flag for flags in known.values() for flag in flags]
        hint = nearest(found, [*own, *every])
    return f"unknown flag '{found}' of {_title(command)}.{hint} {_see_help(command)}"


def _unknown_command(error: UnknownCommandError) -> str:
    """A command that is not there."""
    found = (error.unused_tokens or [""])[0]
    chain = " ".join(error.command_chain or ())
    if found.startswith("-"):
        return _unknown_flag_of(found.split("=", 1)[0], chain)
    known = GROUPS.get(chain, [*COMMANDS, *GROUPS])
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
