"""`captrain data check` and `captrain data formats`."""

from __future__ import annotations

import ast
import importlib.util
import json as json_format
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from captrain.api.checks import check_models
from captrain.cli.arguments import AtLeastOne, Switch
from captrain.cli.flags import ReadingFlags, TrustFlags, trust
from captrain.cli.show import exit_code, show_table
from captrain.errors import UserError

if TYPE_CHECKING:
    from captrain.data.check.captions import Lengths
    from captrain.data.check.check import Checked
    from captrain.models.vocabulary import RoundTrip


REJECTS = Path("check-rejected.jsonl")
SHOWN_WORDS = 12


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
    from captrain.data.read_options import BY_LOOKING, ReadOptions
    from captrain.disk.locks import locked

    if rejects is not None:
        _check_place(rejects)
    tokenizer = _load_tokenizer(model) if model else None
    with nullcontext() if rejects is None else locked(rejects):
        found = check_data(
            data,
            format=reading.format if reading else None,
            options=ReadOptions.of(reading) if reading else BY_LOOKING,
            limits=CheckLimits(max_pixels, min_edge, max_words, max_tokens),
            count_tokens=_token_counter(tokenizer) if tokenizer else None,
            workers=workers,
        )
        words = _round_trip(tokenizer, found) if tokenizer else None
        listed = _write_rejects(found, rejects, data)
    if json:
        about = {**found.to_dict(), **({"round_trip": words.to_dict()} if words else {})}
        print(json_format.dumps({**about, "rejects": listed and str(listed)}, ensure_ascii=False))
    else:
        _show(found, listed, words)
    return exit_code(found.wrong + (words is not None and words.is_refused))


def _load_tokenizer(model: str) -> Any:
    """The tokenizer of a checkpoint, with or without a model around it."""
    from captrain.cli.logs import quiet_libraries

    quiet_libraries()
    from captrain.models.checkpoint.located import find_model_folder
    from captrain.models.vocabulary import load_tokenizer

    is_tokenizer = Path(model, "tokenizer_config.json").is_file()
    return load_tokenizer(model if is_tokenizer else find_model_folder(model))


def _round_trip(tokenizer: Any, found: Checked) -> RoundTrip:
    """What the tokenizer keeps of the captions, by some of them."""
    from captrain.models.vocabulary import round_trip, spread_captions

    return round_trip(tokenizer, spread_captions(found.samples))


def _token_counter(tokenizer: Any) -> Callable[[list[str]], list[int]]:
    """Lengths of captions in tokens, the end token included, as training counts them."""

    def count(captions: list[str]) -> list[int]:
        ids = tokenizer(captions, add_special_tokens=False, verbose=False)["input_ids"]
        return [len(caption) + 1 for caption in ids]

    return count


def _write_rejects(found: Checked, wanted: Path | None, data: str) -> Path | None:
    """Write the list where it was asked for; else here, if something is wrong and here is not within the data set."""
    if wanted is None and (not found.wrong or _is_within(Path.cwd(), Path(data))):
        return None
    path = wanted or REJECTS
    found.write_rejects(path)
    return path


def _check_place(path: Path) -> None:
    """Raise `UserError` for a list in a folder that is not there."""
    if not path.absolute().parent.is_dir():
        raise UserError(f"--rejects {path}: the folder {path.parent} does not exist; expected a file in one that does")


def _is_within(folder: Path, data: Path) -> bool:
    """Whether a folder is the data set's or below it: a list written there could be read as data the next time."""
    home = (data if data.is_dir() else data.parent).resolve()
    return data.exists() and (folder.resolve() == home or home in folder.resolve().parents)


def _show(found: Checked, listed: Path | None, words: RoundTrip | None) -> None:
    show_table([*_facts(found), *_kept(words)])
    _show_histogram("words", found.words)
    _show_histogram("tokens", found.tokens)
    counts = found.findings.counts()
    if counts:
        print()
        show_table(_problem_rows(found, counts), ("problem", "", "count", "examples"))
    print()
    remarks = found.findings.count("remark")
    where = f"; all are listed in {listed}" if listed else "; --rejects FILE lists them" if counts else ""
    refused = words is not None and words.is_refused
    if refused:
        print("this tokenizer keeps too few of the words to learn from these captions: choose another --model")
    print(
        f"{found.wrong + refused or 'nothing'} wrong, {remarks or 'no'} {'remark' if remarks == 1 else 'remarks'}{where}"
    )


def _facts(found: Checked) -> list[tuple[str, str]]:
    fewest, mean, most = found.captions_per_image
    splits = ", ".join(f"{name} {count:,}" for name, count in found.splits.items() if name != "all")
    rows = [
        ("images", f"{found.images:,} ({splits})" if splits else f"{found.images:,}"),
        ("captions", f"{found.captions:,}, {mean:g} an image ({fewest} to {most})"),
    ]
    if found.size:
        rows.append(("median size", f"{found.size[0]} x {found.size[1]}"))
    for unit, lengths in (("words", found.words), ("tokens", found.tokens)):
        if lengths:
            summary = f"{lengths.shortest} to {lengths.longest}, median {lengths.median}, 95 % up to {lengths.most}"
            rows.append((f"{unit} a caption", summary))
    common = ", ".join(word for word, _ in found.common_words[:SHOWN_WORDS])
    return [*rows, ("vocabulary", f"{found.vocabulary:,} words; most common: {common}")]


def _kept(words: RoundTrip | None) -> list[tuple[str, str]]:
    """What a tokenizer keeps of the captions."""
    if words is None:
        return []
    return [
        ("words kept", "all" if not words.lost else f"not {words.told}"),
        *[("case", words.case_told)] * bool(words.case),
    ]


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


def _problem_rows(found: Checked, counts: dict[str, int]) -> list[tuple[str, str, str, str]]:
    """A row for each kind of problem and one for each further example."""
    from captrain.data.check.problems import KINDS

    rows = []
    examples = found.examples()
    for name, count in counts.items():
        kind = KINDS[name]
        first, *others = [f"{line['id']} {line['reason']}" for line in examples[name]]
        rows += [(kind.title, kind.grade, f"{count:,}", first), *(("", "", "", other) for other in others)]
    return rows


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
