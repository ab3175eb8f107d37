"""Entries of JSON, JSON lines, CSV and TSV files and of folders of .txt files, each with its place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captrain.disk.reading import UTF_8, mark_of, read_file
from captrain.disk.walking import LINKED_FOLDER, Folders
from captrain.disk.walking import FolderEntry as Listed
from captrain.errors import DataError, nearest
from captrain.records import parse_json, parse_json_line
from captrain.tabular.cells import CAPTION_COLUMNS, IMAGE_COLUMNS
from captrain.tabular.delimited import Delimited

KNOWN = {"id", "image_id", "candidate", "prediction", "reference", "references", *IMAGE_COLUMNS, *CAPTION_COLUMNS}
"""Usual names of columns; they show what separates cells."""
MAX_BYTES = 2**30
"""Files are held in memory as a whole; the captions of COCO take a tenth of this."""
MAX_TEXT_BYTES = 2**20
"""Of a .txt file: nobody describes a picture in a megabyte."""


@dataclass(frozen=True, slots=True)
class CaptionEntry:
    """`content` is a record (a dict), or else the value of the image `id`: its caption or captions."""

    where: str
    content: Any
    id: Any = None
    fault: str = ""


def read_entries(path: Path, *, lines: bool, follow_links: bool = False) -> list[CaptionEntry]:
    """All entries of a file or folder.

    Args:
        lines: each line of a .txt file is a caption of its own; otherwise the whole file is one caption.
        follow_links: links that leave a folder are read, and links to folders.

    A row of a table that has too few or too many cells is an entry with the reason as its `fault`. Raises `DataError`
    naming what can't be read and where.
    """
    try:
        if path.is_dir():
            return list(_text_files(path, lines, follow_links))
        return _file_entries(path)
    except OSError as error:
        raise DataError(f"{str(path)[:200]}: can't be read ({error.strerror})") from None


def _file_entries(path: Path) -> list[CaptionEntry]:
    if not path.exists():
        beside = os.listdir(path.parent) if path.parent.is_dir() else []
        raise DataError(f"{path}: not found.{nearest(path.name, beside)} Expected {_expected()}")
    if not path.is_file():
        raise DataError(f"{path}: is neither a file nor a folder; expected {_expected()}")
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{path}: unknown kind of file '{path.suffix}', expected {_expected()}")
    content = _bytes_of(path, MAX_BYTES)
    if not content.strip():
        raise DataError(f"{path}: is empty ({len(content)} bytes); expected captions")
    return list(read(path, content))


def _expected() -> str:
    return f"a file {', '.join(READERS)} or a folder of .txt files"


def _bytes_of(path: Path, limit: int) -> bytes:
    """A file's content, without a byte-order mark, in UTF-8 if the mark says another encoding."""
    size = path.stat().st_size
    if size > limit:
        raise DataError(f"{path}: has {size} bytes, over the limit of {limit}; split it")
    return _as_utf_8(read_file(path), path)


def _as_utf_8(content: bytes, path: Path) -> bytes:
    """Content in UTF-8 without a byte-order mark, whatever encoding its mark says; without one it is as it was."""
    mark, name = mark_of(content)
    if not mark or name == UTF_8:
        return content.removeprefix(mark)
    try:
        return content[len(mark) :].decode(name).encode("utf-8", "replace")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8, nor {name.upper()} as its mark says (byte {error.start}); save the file as UTF-8"
        ) from None


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None


def _json_entries(path: Path, content: bytes) -> Iterator[CaptionEntry]:
    """COCO results, COCO annotations, or an object from ids to captions."""
    value = _parsed(path, content)
    if isinstance(value, dict) and isinstance(value.get("annotations"), list):
        yield from _coco_annotations(path, value["annotations"])
    elif isinstance(value, dict):
        for id, captions in value.items():
            if isinstance(captions, dict):
                raise DataError(f"{path}: '{id:.80}' is an object, expected a caption or a list of captions")
            yield CaptionEntry(f"{path}: '{id:.80}'", captions, id)
    elif isinstance(value, list):
        yield from (CaptionEntry(f"{path}: entry {number}", record) for number, record in enumerate(value, start=1))
    else:
        raise DataError(f"{path}: found a JSON {type(value).__name__}, expected a list or an object of captions")


def _parsed(path: Path, content: bytes) -> Any:
    try:
        return parse_json(_decoded(content, path))
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deep; expected a list or an object of captions") from None
    except json.JSONDecodeError as error:
        lines = error.msg == "Extra data" and content.lstrip().startswith(b"{")
        hint = "; it looks like JSON lines: call it .jsonl" if lines else ""
        raise DataError(f"{path}: not valid JSON ({error}){hint}") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{path}: not valid JSON ({error})") from None


def _coco_annotations(path: Path, annotations: list[Any]) -> Iterator[CaptionEntry]:
    """In the order of the annotations' own ids, as published splits are made, where all have one."""
    entries = [
        CaptionEntry(f"{path}: annotation {number}", record) for number, record in enumerate(annotations, start=1)
    ]
    if all(isinstance(entry.content, dict) and isinstance(entry.content.get("id"), int) for entry in entries):
        entries.sort(key=lambda entry: entry.content["id"])
    yield from entries


def _json_line_entries(path: Path, content: bytes) -> Iterator[CaptionEntry]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            yield CaptionEntry(f"{path}:{number}", parse_json_line(line, f"{path}:{number}"))


def _table_entries(path: Path, content: bytes) -> Iterator[CaptionEntry]:
    """Rows of a CSV or TSV file, by its column names."""
    table = Delimited(path, KNOWN)
    width = len(table.header)
    for number, cells in table.rows():
        fault = ""
        if len(cells) > width:
            fault = "has more cells than there are columns; put quotes around captions with commas"
        elif len(cells) < width:
            fault = f"has no '{table.header[len(cells)]}' ({len(cells)} cells, {width} columns)"
        yield CaptionEntry(f"{path}:{number}", dict(zip(table.header, cells, strict=False)), fault=fault)


def _text_files(folder: Path, lines: bool, follow_links: bool) -> Iterator[CaptionEntry]:
    """Every .txt file below a folder; the id is its path below the folder without the suffix."""
    found = False
    for file, fault in _below(folder, follow_links):
        if fault:
            raise DataError(f"{file}: {fault}")
        text = _decoded(_bytes_of(file, MAX_TEXT_BYTES), file)
        found = True
        captions = [line.strip() for line in text.splitlines() if line.strip()]
        yield CaptionEntry(
            str(file), captions if lines else " ".join(captions), file.relative_to(folder).with_suffix("").as_posix()
        )
    if not found:
        raise DataError(f"{folder}: holds no .txt files; expected {_expected()}")


def _below(folder: Path, follow_links: bool) -> Iterator[tuple[Path, str]]:
    """The .txt files of a folder and its folders in order, without hidden ones, each with why it can't be read, or ""."""
    bound = os.path.join(os.path.realpath(folder), "")
    folders = Folders(
        folder, lambda path: follow_links or os.path.realpath(path).startswith(bound), follow=follow_links
    )
    left = [""]
    while left:
        prefix = left.pop()
        entries = folders.entries(prefix)
        left += [f"{prefix}{entry.name}/" for entry in reversed(entries) if entry.is_folder and not entry.fault]
        yield from ((folder / prefix / entry.name, entry.fault) for entry in entries if _may_be_text(entry))


def _may_be_text(entry: Listed) -> bool:
    return entry.name.lower().endswith(".txt") if not entry.is_folder else entry.fault == LINKED_FOLDER


READERS: dict[str, Callable[[Path, bytes], Iterable[CaptionEntry]]] = {
    ".json": _json_entries,
    ".jsonl": _json_line_entries,
    ".csv": _table_entries,
    ".tsv": _table_entries,
}
"""Suffix to the function that reads it."""
