"""`captrain data formats`: what the docstrings of readers and writers say, without importing what those need."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from captrain.cli.show import show_table

WRITTEN_AS = {"jsonl": "metadata-jsonl"}  # where a form has different names in --format and in --to
HEADER = ("--format", "what it is", "written (--to)", "found by looking")


def formats() -> int:
    """List the forms of data that are read and written."""
    show_table(format_rows(), HEADER)
    return 0


def format_rows() -> list[tuple[str, str, str, str]]:
    """Name, description, name to write it by ("" if it is only read), and how it is recognised, of each form."""
    from captrain.data.readers import READERS
    from captrain.data.writers import WRITERS

    rows = []
    for name, form in READERS.items():
        module = _parsed(form.module)
        written = WRITTEN_AS.get(name, name)
        rows.append((name, _first_line(module), written if written in WRITERS else "", _recognised(module)))
    return rows


def _parsed(place: str) -> ast.Module:
    spec = importlib.util.find_spec(place)
    assert spec is not None and spec.origin is not None, place
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _recognised(module: ast.Module) -> str:
    """What the docstring of `recognises` says, without its first words.

    >>> _recognised(ast.parse('def recognises():\\n    "Whether this is a folder: any."'))
    'a folder: any'
    """
    functions = (node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "recognises")
    line = _first_line(next(functions))
    for words in ("Whether this is ", "Whether this names ", "Whether a source is ", "Whether "):
        line = line.removeprefix(words)
    return line


def _first_line(node: ast.Module | ast.FunctionDef) -> str:
    paragraph = (ast.get_docstring(node) or "").split("\n\n", 1)[0]
    return " ".join(paragraph.split()).removesuffix(".")
