"""`captrain data check` and `captrain data formats`."""

from __future__ import annotations

import ast
import importlib.util
import json as json_format
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.api.checks import check_models
from captrain.api.data_check import Check, check_rejects_file, load_tokenizer, token_counter, words_kept
from captrain.api.options import how_to_read
from captrain.cli.arguments import AtLeastOne, Switch
from captrain.cli.flags import ReadingFlags, TrustFlags, trust
from captrain.cli.logs import quiet_libraries
from captrain.cli.show import exit_code, show_table

if TYPE_CHECKING:
    from captrain.data.check.captions import Lengths
    from captrain.data.check.check import Checked


REJECTS = Path("check-rejected.jsonl")


def check(
    data: str,
    /,
    *,
    rejects: Path | None = None,
    json: Switch = False,
    model: str | None = None,
    max_tokens: Annotated[int, Parameter(validator=Number(gte=2))] = 64,
    max_words: AtLeastOne = 100,
    min_edge: AtLeastOne = 64,
    max_pixels: AtLeastOne = 200_000_000,
    workers: AtLeastOne | None = None,
    reading: ReadingFlags = None,
    model_files: TrustFlags = None,
) -> int:
    """Check a data set and list what is wrong with it.

    Every picture is decoded and every caption is read. The exit code is 3 if something is wrong: it would be left out of a
    training, or harm it (a picture in two splits, garbled letters). With remarks only (small, rotated or repeated pictures,
    long captions) it is 0.

    Args:
        data: Data set: folder, table, shards.
        rejects: File for the problems and remarks, a JSON line each. Default: check-rejected.jsonl here, if something is wrong.
        json: Print one JSON object instead of tables.
        model: Check captions against the tokenizer of this checkpoint (run folder, model folder or hub id): list captions that
            are too long, and count words that it loses (unknown words, accents). Losing more than a tenth is wrong (nine tenths
            with a small vocabulary).
        max_tokens: Longest caption in tokens, end token included. Only with --model.
        max_words: Longest caption in words; longer ones get a remark.
        min_edge: Shortest edge of a picture in pixels; smaller ones get a remark.
        max_pixels: Largest picture in pixels; larger ones are wrong, as in training.
        workers: Threads that read and decode pictures. Default: one per core, at most 16.
    """
    trust(model_files)
    check_models(model if model and not Path(model, "tokenizer_config.json").is_file() else None)
    from captrain.data.check.check import CheckLimits, check_data
    from captrain.disk.locks import locked

    if rejects is not None:
        check_rejects_file(rejects)
    if model is not None:
        quiet_libraries()
    tokenizer = load_tokenizer(model) if model else None
    with nullcontext() if rejects is None else locked(rejects):
        found = check_data(
            data,
            **how_to_read(reading),
            limits=CheckLimits(max_pixels, min_edge, max_words, max_tokens),
            count_tokens=token_counter(tokenizer) if tokenizer else None,
            workers=workers,
        )
        words = words_kept(tokenizer, found) if tokenizer else None
        checked = Check(data, found, words, _write_rejects(found, rejects, data))
    if json:
        print(json_format.dumps(checked.to_dict(), ensure_ascii=False))
    else:
        _show(checked)
    return exit_code(checked.wrong)


def _write_rejects(found: Checked, wanted: Path | None, data: str) -> Path | None:
    """Write the list where it was asked for; else here, if something is wrong and here is not within the data set."""
    if wanted is None and (not found.wrong or _is_within(Path.cwd(), Path(data))):
        return None
    path = wanted or REJECTS
    found.write_rejects(path)
    return path


def _is_within(folder: Path, data: Path) -> bool:
    """Whether a folder is the data set's or below it: a list written there could be read as data the next time."""
    home = (data if data.is_dir() else data.parent).resolve()
    return data.exists() and (folder.resolve() == home or home in folder.resolve().parents)


def _show(checked: Check) -> None:
    show_table(checked.facts())
    _show_histogram("words", checked.found.words)
    _show_histogram("tokens", checked.found.tokens)
    problems = checked.problem_rows()
    if problems:
        print()
        show_table(list(_a_row_an_example(problems)), ("problem", "", "count", "examples"))
    print()
    if checked.words is not None and checked.words.is_refused:
        print("this tokenizer keeps too few of the words to learn from these captions: choose another --model")
    listed = checked.rejects_file
    where = f"; all are listed in {listed}" if listed else "; --rejects FILE lists them" if problems else ""
    print(f"{checked.summary()}{where}")


def _a_row_an_example(problems: list[tuple[str, str, str, list[str]]]) -> Iterator[tuple[str, str, str, str]]:
    """A row for each kind of problem, and one for each further example."""
    for title, grade, count, (first, *others) in problems:
        yield title, grade, count, first
        yield from (("", "", "", other) for other in others)


def _show_histogram(unit: str, lengths: Lengths | None) -> None:
    """A bar for each bin of lengths."""
    if lengths is None:
        return
    counts = [count for _, _, count in lengths.bins]
    rows = [
        (
            str(low) if low == high else f"{low} to {high}",
            f"{count / sum(counts):.1%}",
            "█" * round(30 * count / max(counts)),
        )
        for low, high, count in lengths.bins
    ]
    print()
    show_table(rows, (unit, "captions", ""))


WRITTEN_AS = {"jsonl": "metadata-jsonl"}  # where a form has different names in --format and in --to
HEADER = ("--format", "what it is", "written (--to)", "recognised by")


def formats() -> int:
    """List the data formats that can be read and written."""
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
