"""Help, printed from `help.json` so that it comes at once: no command, no settings and no library is imported for it.

`--help` shows what most people need; `--help-all` everything, or the sections and flags that are named after it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from captrain.errors import UserError, nearest

FILE = Path(__file__).with_name("help.json")
SHORT, ALL = ("--help", "-h"), "--help-all"
QUIETLY = ("-v", "--verbose", "-q", "--quiet")  # may stand before the command
WIDEST = 100  # columns of text that are pleasant to read
NAMES = 28  # columns of a flag's name and value
GROUPS = ("", "config", "data", "features")  # without a subcommand, they list the subcommands
OWN = "Options"  # the section of a command's own flags

COMMON = {
    "train": (
        "recipe", "dry-run", "resume", "overwrite", "model", "encoder", "decoder", "method", "rank", "device", "prompt",
        "validation-data", "cache-features", "epochs", "batch-size", "learning-rate", "seed", "beams", "metric", "devices",
    ),
    "caption": (
        "output", "extension", "existing", "engine", "devices", "batch-size", "device", "beams", "max-new-tokens",
        "min-new-tokens", "sample",
    ),
    "evaluate": (
        "recipe", "split", "limit", "output", "tokenize", "json", "batch-size", "device", "beams", "max-new-tokens", "format",
    ),
    "encode": (
        "encoder", "vectors", "image-size", "uncaptioned", "batch-size", "workers", "device", "precision", "redo-changed",
        "engine", "address", "format",
    ),
    "config show": ("recipe",),
}  # fmt: skip
"""Commands with many flags, and those of them that `--help` shows; of all others it shows every flag."""
OTHER_WORDS = {
    "optimisation": "training",
    "optimization": "training",
    "devices": "several devices",
    "lavis": "training",
}


class Flag(TypedDict):
    """One flag: its names, the one that turns it off, what value it takes, its text, and its section."""

    names: list[str]
    off: str
    value: str
    text: str
    section: str


class Page(TypedDict):
    """The help of a command."""

    usage: str
    about: list[str]
    commands: dict[str, str]
    arguments: list[tuple[str, str]]
    flags: list[Flag]


EVERYWHERE: tuple[tuple[str, str], ...] = (
    ("-h, --help", "Show this help."),
    ("-v, --verbose", "Say more, and show where an error arose."),
    ("-q, --quiet", "Say nothing but warnings and errors."),
)
OF_CAPTRAIN = (
    ("--version", "Show the version."),
    ("--install-completion", "Complete commands and flags with Tab in this shell (bash, zsh, fish, PowerShell)."),
)


def asked_for(words: Sequence[str]) -> str | None:
    """The help page that a command line asks for; None if it asks for none, or names no command.

    >>> asked_for(["train", "photos", "--help"]), asked_for(["-v", "data", "get", "-h"]), asked_for(["train", "photos"])
    ('train', 'data get', None)
    """
    said = words[: words.index("--")] if "--" in words else words
    names, pages = _names(said), load_pages()
    if not any(word in (*SHORT, ALL) for word in said) and (len(names) < len(said) or " ".join(names) not in GROUPS):
        return None
    page = " ".join(names[:2] if names[:1] and names[0] in GROUPS else names[:1])
    return page if page in pages else None


def without_help(words: Sequence[str]) -> list[str]:
    """A command line that asks for help on a command that does not exist, as if it asked for that command alone."""
    end = words.index("--") if "--" in words else len(words)
    return [word for word in words[:end] if word not in (*SHORT, ALL)] + list(words[end:])


def show_help(words: Sequence[str], page: str) -> None:
    """Print a help page: the short one, or with `--help-all` the whole one or the sections and flags that are named.

    Raises `UserError` for a word that names neither.
    """
    width = min(shutil.get_terminal_size().columns, WIDEST)
    wanted = words[words.index(ALL) + 1 :] if ALL in words else None
    print("\n".join(lines_of(page, wanted, width)))


def load_pages() -> dict[str, Page]:
    """All help pages by command."""
    pages: dict[str, Page] = json.loads(FILE.read_text(encoding="utf-8"))
    return pages


def flags_by_command() -> dict[str, list[str]]:
    """Every command ("config show") with its flags.

    >>> "--rank" in flags_by_command()["train"], "--rank" in flags_by_command()["data get"]
    (True, False)
    """
    return {
        name: [word for flag in page["flags"] for word in (*flag["names"], flag["off"]) if word.startswith("--")]
        for name, page in load_pages().items()
        if not page["commands"]
    }


def lines_of(name: str, wanted: Sequence[str] | None, width: int) -> Iterator[str]:
    """The lines of a page. `wanted`: None for the short page, no words for the whole one, words for parts of it."""
    page = load_pages()[name]
    command = f"captrain {name}".rstrip()
    if wanted:
        yield from _sections(_chosen(page, wanted, command), width)
        return
    flags = page["flags"] if wanted is not None else _common(page, name)
    yield from (f"{_bold('Usage:')} {page['usage']}{' [flags]' * bool(flags)}", "")
    for paragraph in page["about"]:
        yield from (*textwrap.wrap(paragraph, width), "")
    yield from _table("Commands", page["commands"].items(), width)
    yield from _table("Arguments", page["arguments"], width)
    yield from _sections(flags, width, one="" if wanted is not None else "Flags")
    yield from _table("Everywhere", (*EVERYWHERE, *(() if name else OF_CAPTRAIN)), width)
    if len(flags) < len(page["flags"]):
        yield from _rest(page, command, width)
    elif page["commands"]:
        yield f"{command} COMMAND --help says more of a command."


def _names(words: Iterable[str]) -> list[str]:
    """The words before the first flag: the command, and what follows it."""
    names = []
    for word in words:
        if word in QUIETLY:
            continue
        if word.startswith("-"):
            break
        names.append(word)
    return names


def _common(page: Page, name: str) -> list[Flag]:
    """The flags on the short page."""
    if name not in COMMON:
        return page["flags"]
    places = {f"--{flag}": place for place, flag in enumerate(COMMON[name])}
    return sorted(
        (flag for flag in page["flags"] if flag["names"][0] in places), key=lambda flag: places[flag["names"][0]]
    )


def _chosen(page: Page, wanted: Sequence[str], command: str) -> list[Flag]:
    """The flags of the sections that words name, or those with the words in their own names."""
    chosen = []
    for word in wanted:
        said = OTHER_WORDS.get(word.casefold(), word.casefold())
        found = [flag for flag in page["flags"] if said in flag["section"].casefold()]
        found = found or [flag for flag in page["flags"] if any(said.lstrip("-") in name for name in flag["names"])]
        if not found:
            sections = list(dict.fromkeys(flag["section"].casefold() for flag in page["flags"]))
            hint = nearest(said, [*sections, *(flag["names"][0][2:] for flag in page["flags"])])
            raise UserError(f"{command} {ALL}: no section or flag '{word}'.{hint} Sections: {'; '.join(sections)}")
        chosen += [flag for flag in found if flag not in chosen]
    return chosen


def _rest(page: Page, command: str, width: int) -> Iterator[str]:
    """How to see the flags that the short page leaves out."""
    counts: dict[str, int] = {}
    for flag in page["flags"]:
        counts[flag["section"]] = counts.get(flag["section"], 0) + 1
    sections = ", ".join(f"{section.casefold()} ({count})" for section, count in counts.items() if section != OWN)
    yield f"{_bold('More')}: {command} {ALL} shows all {len(page['flags'])} flags; with a word after it,"
    yield "those of a section, or those with the word in their name. Sections:"
    yield from textwrap.wrap(sections, width, initial_indent="  ", subsequent_indent="  ")


def _sections(flags: Sequence[Flag], width: int, one: str = "") -> Iterator[str]:
    """Flags by section, or all in `one`."""
    for section in [one] if one else list(dict.fromkeys(flag["section"] for flag in flags)):
        rows = [
            (_heading(flag), _brief(flag["text"]) if one else flag["text"])
            for flag in flags
            if one or flag["section"] == section
        ]
        yield from _table("Flags" if section == OWN else section, rows, width)


def _brief(text: str) -> str:
    """A help text's first sentence, with its choices and default.

    >>> _brief("The score (LAVIS: cider). It decides. Default: all. [a, b]")
    'The score (LAVIS: cider). Default: all. [a, b]'
    """
    said, bracket, marks = text.partition(" [")
    first, *others = re.split(r"(?<=\.) (?=[A-Z`0-9])", said)
    return " ".join([first, *(sentence for sentence in others if sentence.startswith("Default: "))]) + bracket + marks


def _heading(flag: Flag) -> str:
    """`--rank N`, `--[no-]dora`.

    >>> _heading(Flag(names=["--dora"], off="--no-dora", value="", text="", section=""))
    '--[no-]dora'
    """
    names = ", ".join(flag["names"])
    if flag["off"] and not flag["value"] and len(flag["names"]) == 1 and flag["off"] == f"--no-{names[2:]}":
        return f"--[no-]{names[2:]}"
    off = f", {flag['off']}" if flag["off"] else ""
    return f"{names} {flag['value']}".rstrip() + off


def _table(title: str, rows: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    """A heading and rows of a name and what it is; a name that is too long has a line of its own."""
    rows = list(rows)
    if not rows:
        return
    yield _bold(title)
    indent = min(NAMES, max(len(name) for name, _ in rows)) + 4
    for name, text in rows:
        lines = textwrap.wrap(text, max(width - indent, 20), break_on_hyphens=False) or [""]
        head = f"  {name}"
        if len(head) + 2 > indent:
            yield head
        else:
            yield (head.ljust(indent) + lines.pop(0)).rstrip()
        yield from (" " * indent + line for line in lines if line)
    yield ""


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text
