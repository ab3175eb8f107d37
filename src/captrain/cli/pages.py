"""The help of all commands, as data: `help.json`, from which help is printed without importing any command.

`python -m captrain.cli.pages` writes it again, and the recipes' JSON schema with it, after a flag or a setting has changed.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import App, Argument

from captrain.api.recipes import recipe_schema
from captrain.cli.app import COMMANDS, EVERYWHERE, GROUPS, make_app, plain_default
from captrain.cli.help import FILE, Flag, Page

SCHEMA = Path("recipes") / "recipe.schema.json"
LONGEST_CHOICES = 24  # letters of choices that stand behind the flag itself
VALUES = {int: "N", float: "X", Path: "PATH"}


def pages() -> dict[str, Page]:
    """The help page of each command by its name; that of captrain itself has the name "".

    >>> pages()["data get"]["usage"]
    'captrain data get NAME [FOLDER]'
    """
    app = make_app()
    found = {"": _page_of_commands("", str(app.help), {name: line for name, (_, line) in COMMANDS.items()})}
    found[""]["commands"] |= {name: line for name, (line, _) in GROUPS.items()}
    for name in COMMANDS:
        found[name] = _page(name, app[name], app)
    for group, (line, commands) in GROUPS.items():
        found[group] = _page_of_commands(group, line, {name: line for name, (_, line) in commands.items()})
        for name in commands:
            found[f"{group} {name}"] = _page(f"{group} {name}", app[group][name], app)
    return found


def texts() -> dict[str, str]:
    """The generated files: each by its path below the repository's root."""
    place = (Path("src") / "captrain" / "cli" / FILE.name).as_posix()
    return {
        place: "{\n" + ",\n".join(f"{json.dumps(name)}: {_lines(page)}" for name, page in pages().items()) + "\n}\n",
        SCHEMA.as_posix(): json.dumps(recipe_schema(), indent=2) + "\n",
    }


def _lines(page: Page) -> str:
    """A page as JSON, one line per flag, so that a change is one line too."""
    parts = [
        f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in page.items() if key != "flags"
    ]
    flags = ",\n  ".join(json.dumps(flag, ensure_ascii=False) for flag in page["flags"])
    return "{\n " + ",\n ".join([*parts, f'"flags": [\n  {flags}\n ]' if flags else '"flags": []']) + "\n}"


def _page_of_commands(name: str, about: str, commands: dict[str, str]) -> Page:
    usage = " ".join(filter(None, ("captrain", name, "COMMAND ...")))
    return {"usage": usage, "about": [about], "commands": commands, "arguments": [], "flags": []}


def _page(name: str, command: App, app: App) -> Page:
    """The help of one command's function: its docstring, arguments and flags."""
    arguments = [
        argument
        for argument in command.assemble_argument_collection(
            default_parameter=app.default_parameter, parse_docstring=True
        )
        if argument.show and argument.parse
    ]
    positional = [argument for argument in arguments if not argument.name.startswith("-")]
    usage = ["captrain", name, *map(_usage, positional)]
    return {
        "usage": " ".join(usage),
        "about": _about(command),
        "commands": {},
        "arguments": [(argument.name, _one_line(argument.parameter.help)) for argument in positional],
        "flags": [_flag(argument) for argument in arguments if argument.name.startswith("-")],
    }


def _about(command: App) -> list[str]:
    """The paragraphs of a docstring before its `Args:`."""
    doc = inspect.getdoc(command.default_command) or ""
    return [_one_line(paragraph) for paragraph in doc.partition("\nArgs:")[0].strip().split("\n\n")]


def _usage(argument: Argument) -> str:
    """`DATA`, `[OUT]`, `IMAGES ...`."""
    name = f"{argument.name} ..." if argument.token_count()[1] else argument.name
    return name if argument.required else f"[{name}]"


def _flag(argument: Argument) -> Flag:
    off = [name for name in argument.negatives if name.startswith("--")]
    names = [name for name in argument.names if name not in off]
    groups: Any = argument.parameter.group
    group = next(iter(groups))
    return {
        "names": names,
        "off": off[0] if off else "",
        "value": "" if argument.hint is bool else _value(argument),
        "text": _text(argument),
        "section": getattr(group, "name", str(group)),
    }


def _value(argument: Argument) -> str:
    """What a flag takes, in one word: its choices if they are few and short, else the kind of value.

    >>> _kind(int | None), _kind(tuple[str, ...]), _kind(tuple[float, float] | None)
    ('N', 'TEXT ...', 'X X')
    """
    choices = "|".join(argument.get_choices() or ())
    if choices and len(choices) <= LONGEST_CHOICES and not argument.token_count()[1]:
        return f"{choices}|N" if int in _members(argument.hint) else choices
    return _kind(argument.hint)


def _members(kind: Any) -> list[Any]:
    """The members of a union, without `None` and without what pydantic adds."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [member for part in get_args(kind) for member in _members(part) if member is not type(None)]
    return [kind]


def _kind(kind: Any) -> str:
    first = _members(kind)[0]
    if get_origin(first) in (tuple, list):
        inner = [_kind(member) for member in get_args(first) if member is not Ellipsis]
        return " ".join(inner) if len(inner) > 1 else f"{inner[0]} ..."
    return "CHOICE" if get_origin(first) is Literal else VALUES.get(first, "TEXT")


def _text(argument: Argument) -> str:
    """The help text, the choices that are not behind the flag, and the default if the text does not state it."""
    text = _one_line(argument.parameter.help)
    choices = argument.get_choices() or ()
    if choices and "CHOICE" in _value(argument):
        text += f" [{', '.join(choices)}]"
    default = argument.field_info.default
    told = (
        any(default is nothing for nothing in (None, False, inspect.Parameter.empty))
        or argument.parameter.show_default is False
    )
    shown = None if told else plain_default(default)
    return f"{text} [default: {shown}]" if shown is not None and not re.search(r"\bDefault: \S+$", text) else text


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def everywhere(app: App) -> list[Flag]:
    """The flags of every command."""
    flags = map(_flag, app.meta.assemble_argument_collection(parse_docstring=True))
    return [flag for flag in flags if flag["section"] == EVERYWHERE.name]


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[3]
    for place, text in texts().items():
        (root / place).write_text(text, encoding="utf-8")
        print(place)
