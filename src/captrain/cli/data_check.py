"""`captrain data check` and `captrain data formats`."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.api.data_check import Check
from captrain.api.data_check import check as check_data
from captrain.api.data_sets import formats as known_formats
from captrain.cli.arguments import AtLeastOne, Switch
from captrain.cli.flags import ReadingFlags, TrustFlags, given, trusted
from captrain.cli.show import exit_code, show_table

if TYPE_CHECKING:
    from captrain.data.check.captions import Lengths


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
    how = given(reading=reading)["reading"] | trusted(model_files)
    how |= {"max_tokens": max_tokens, "max_words": max_words, "min_edge": min_edge, "max_pixels": max_pixels}
    checked = check_data(data, rejects=rejects, model=model, workers=workers, **how)
    if rejects is None and checked.found.wrong and not _is_within(Path.cwd(), Path(data)):
        checked = checked.write(REJECTS)
    if json:
        print(json_format.dumps(checked.to_dict(), ensure_ascii=False))
    else:
        _show(checked)
    return exit_code(checked.wrong)


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


HEADER = ("--format", "what it is", "written (--to)", "recognised by")


def formats() -> int:
    """List the data formats that can be read and written."""
    show_table([(form.name, form.about, form.written_as, form.recognised_by) for form in known_formats()], HEADER)
    return 0
