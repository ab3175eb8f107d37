"""Pages that are written from the code, so that they cannot go stale: settings, commands, the Python API.

A page names what it wants in a line such as `<!-- generated: settings -->`; Sphinx puts the text there when it reads the page.
The functions that make the text return Markdown and need no Sphinx.
"""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import captrain
import captrain.errors
from captrain.cli.app import COMMANDS, CONFIG_COMMANDS, DATA_COMMANDS, FEATURES_COMMANDS, make_app
from captrain.settings.schema import Settings

if TYPE_CHECKING:
    from cyclopts import Argument
    from sphinx.application import Sphinx

MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
PANEL = re.compile(r"^\*\*(?P<title>[^*\n]+)\*\*:\n\n(?P<flags>(?:(?:\*|    ).*\n)+)", re.MULTILINE)
MEMBERS = ("   :members:", "   :show-inheritance:")
CONTRACT = ("CaptionerModel", "Captioner")
"""Names of the class of `captrain.models.contract` that families derive from; the first that is there is shown."""


def settings() -> str:
    """Every setting of a recipe by section: its name, its kind, its default, its flag, what it does."""
    flags = {argument.keys[-1]: argument for argument in _flags_of("config", "show") if argument.keys}
    lines = []
    for section, described in _sections().items():
        lines += [f"## `{section}`", "", described["description"], ""]
        panels = _by_panel(described["properties"], flags)
        for title, leaves in panels.items():
            if len(panels) > 1:
                lines += [f"### {title}", ""]
            for leaf in leaves:
                lines += [*_setting(leaf, described["properties"][leaf], flags.get(leaf)), ""]
    return "\n".join(lines)


def commands() -> str:
    """Every command with its arguments and flags; flags that are settings of a training are linked, not repeated."""
    app = make_app()
    groups = {"": COMMANDS, "data": DATA_COMMANDS, "features": FEATURES_COMMANDS, "config": CONFIG_COMMANDS}
    lines = []
    for group, members in groups.items():
        for name in members:
            path = [*group.split(), name]
            lines += [f"## captrain {' '.join(path)}", "", _command(app, path), ""]
    return "\n".join(lines)


def python() -> str:
    """Directives that document each public name in `captrain.__all__`, functions before classes."""
    things = {name: getattr(captrain, name) for name in captrain.__all__}
    functions = {name: ("autofunction",) for name, thing in things.items() if inspect.isfunction(thing)}
    classes = {name: ("autoclass", *_options(thing)) for name, thing in things.items() if inspect.isclass(thing)}
    lines = []
    for name, (directive, *options) in (functions | classes).items():
        lines += [f"## captrain.{name}", "", *_directive(directive, f"captrain.{name}", *options), ""]
    return "\n".join(lines)


def errors() -> str:
    """Directives that document every error of `captrain.errors`, in the order of the file, and none of its helpers."""
    kinds = [thing for thing in vars(captrain.errors).values() if inspect.isclass(thing)]
    ours = [kind for kind in kinds if issubclass(kind, Exception) and kind.__module__ == captrain.errors.__name__]
    return "\n".join(
        line
        for kind in ours
        for line in _directive("autoexception", f"captrain.errors.{kind.__name__}", "   :show-inheritance:")
    )


def contract() -> str:
    """The directive that documents the class which model families derive from."""
    module = importlib.import_module("captrain.models.contract")
    name = next(name for name in CONTRACT if hasattr(module, name))
    return "\n".join(_directive("autoclass", f"{module.__name__}.{name}", *MEMBERS))


def _sections() -> dict[str, dict[str, Any]]:
    """The JSON schema of each section of a recipe, by its name."""
    schema = Settings.model_json_schema()
    kinds = {section: field.annotation.__name__ for section, field in Settings.model_fields.items()}
    return {section: schema["$defs"][kind] for section, kind in kinds.items()}


def _flags_of(*path: str) -> list[Argument]:
    """The flags of one command."""
    app = make_app()
    for name in path:
        app = app[name]
    return list(app.assemble_argument_collection())


def _by_panel(leaves: Mapping[str, Any], flags: Mapping[str, Argument]) -> dict[str, list[str]]:
    """Settings of a section by the title under which the help lists them; settings without a flag come first."""
    panels: dict[str, list[str]] = {}
    first = flags[next(leaf for leaf in leaves if leaf in flags)].parameter.group
    for leaf in leaves:
        group = flags[leaf].parameter.group if leaf in flags else first
        panels.setdefault(group[-1].name, []).append(leaf)
    return panels


def _setting(leaf: str, described: Mapping[str, Any], flag: Argument | None) -> Iterator[str]:
    """One setting as an entry of a definition list."""
    facts = [kind_of(described)]
    if described.get("default") is not None:
        facts.append(f"default `{_yaml(described['default'])}`")
    facts.append(f"`{flag.names[0]}`" if flag is not None and flag.show else "recipes only")
    yield f"[`{leaf}`]{{#{leaf}}}"
    yield f": {' '.join(described.get('description', '').split())}<br>"
    yield f"  [{', '.join(facts)}]{{.facts}}"


def kind_of(described: Mapping[str, Any]) -> str:
    """What a setting may be, in words, from its JSON schema.

    >>> kind_of({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto", "type": "string"}, {"type": "null"}]})
    'whole number from 1, or `auto`'
    """
    if "anyOf" in described:
        kinds = dict.fromkeys(kind_of(one) for one in described["anyOf"] if one.get("type") != "null")
        return ", or ".join(kinds)
    if "enum" in described:
        return " \\| ".join(f"`{value}`" for value in described["enum"])
    if "const" in described:
        return f"`{described['const']}`"
    if "prefixItems" in described:
        return "list of " + " and ".join(kind_of(one) for one in described["prefixItems"])
    if "items" in described:
        return f"list of {kind_of(described['items'])}"
    names = {"integer": "whole number", "number": "number", "boolean": "`true` \\| `false`", "string": "text"}
    word = "path" if described.get("format") == "path" else names.get(described.get("type", ""), "section")
    return word + _bounds(described)


def _bounds(described: Mapping[str, Any]) -> str:
    """The range of a number, in words."""
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "up to", "exclusiveMaximum": "below"}
    return "".join(f" {word} {described[key]:g}" for key, word in words.items() if key in described)


def _yaml(value: Any) -> str:
    """A default as a recipe has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(_yaml, value))}]" if isinstance(value, list | tuple) else str(value) or '""'


def _command(app: Any, path: list[str]) -> str:
    """What cyclopts says of one command, with its flags of settings replaced by links to their descriptions."""
    command = app
    for name in path:
        command = command[name]
    text = command.generate_docs(output_format="markdown")
    text = re.sub(r"^# .*\n+", "", text)
    text = text.replace("```console\n", "```text\n", 1)
    text = re.sub(rf"(?<=```text\n){path[-1]}\b.*", _usage(command, path), text)
    if path not in (["train"], ["config", "show"]):
        return text
    return PANEL.sub(_linked, text)


def _usage(command: Any, path: list[str]) -> str:
    """The line of usage: the command, its arguments by name, those that may be left out in brackets."""
    words = ["captrain", *path]
    for argument in command.assemble_argument_collection():
        if argument.index is not None and argument.show:
            name = argument.names[0] + ("..." if argument.field_info.kind is inspect.Parameter.VAR_POSITIONAL else "")
            words.append(name if argument.required else f"[{name}]")
    return " ".join([*words, "[OPTIONS]"])


def _linked(panel: re.Match[str]) -> str:
    """A panel of flags, or a link to its settings where they are those of a training."""
    names = re.findall(r"^\* `--([\w-]+)", panel["flags"], re.MULTILINE)
    leaves = {leaf for described in _sections().values() for leaf in described["properties"]}
    if not names or any(name.replace("-", "_") not in leaves for name in names):
        return panel[0]
    links = ", ".join(f"[`--{name}`](settings.md#{name.replace('-', '_')})" for name in names)
    return f"**{panel['title']}**:\n\n{links}\n"


def _options(kind: type) -> tuple[str, ...]:
    """What to show of a class: its members, unless they are settings, and its bases, if it has any of its own."""
    if typing.is_typeddict(kind):
        return ()
    return MEMBERS if kind.__bases__ != (object,) else MEMBERS[:1]


def _directive(name: str, target: str, *options: str) -> list[str]:
    """An autodoc directive in Markdown."""
    return ["```{eval-rst}", f".. {name}:: {target}", *options, "```"]


PAGES: dict[str, Callable[[], str]] = {
    "settings": settings,
    "commands": commands,
    "python": python,
    "errors": errors,
    "contract": contract,
}


def _fill(app: Sphinx, name: str, source: list[str]) -> None:
    """Replace the markers in a page by what they name."""
    source[0] = MARKER.sub(lambda found: PAGES[found[1]](), source[0])


def _close_code(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Let code in a docstring end before a letter, as in `Callback`s, which reStructuredText does not see."""
    lines[:] = [re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx fill in pages as it reads them."""
    app.connect("source-read", _fill)
    app.connect("autodoc-process-docstring", _close_code)
    return {"version": captrain.__version__, "parallel_read_safe": True}
