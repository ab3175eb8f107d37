"""Tables of JSON lines: {"file_name": "images/dog.jpg", "captions": ["a dog runs", "a dog on grass"]}.

A folder with `metadata.jsonl` (and an optional column `split`), with one file per split (`train.jsonl`, `dev.jsonl`, or
`train/metadata.jsonl`), or with exactly one other table; or the path of a table. File names are relative to the table's
folder, or to `images/` in it, unless a root is given.

Every line is parsed before the first sample is given: errors should show before hours of training, not after.
In a table of up to 200,000 lines every image is looked for too, and missing ones are rejected. To look for millions of
files takes minutes (hours, on a network drive), so a larger table is believed: its images are taken to be where the first is
(beside it or in `images/`). One that turns out to be missing, or to be a link out of the folder, is a picture that
can't be read, rejected by what reads it. `captrain data check` reads them all.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from captrain.data.machine_captions import MACHINE, remark_on_machine
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers.columns import Columns, TableRow, plain_value
from captrain.data.readers.json_list import holds_talk
from captrain.data.readers.line_index import (
    BOM,
    LineIndex,
    blocks,
    has_more_lines,
    is_plain,
    opened_lines,
    parse_row,
    plain_names,
    rows,
)
from captrain.data.readers.tables import (
    ListedTable,
    TableFile,
    check_row_splits,
    has_tables,
    note_marked,
    one_table_each,
    tables_at,
    tables_in,
)
from captrain.data.samples import LazySamples, key_of
from captrain.errors import DataError
from captrain.limits import next_json_line
from captrain.records import Rejects, Sample, Stored, parse_json_line
from captrain.tabular.cells import no_caption, not_a_caption

logger = logging.getLogger(__name__)


SUFFIXES = (".jsonl", ".ndjson")
_WRITTEN = {"id", "text", "score"}  # what each line written by `captrain caption` and `evaluate` has

MOST_CHECKED = 200_000  # lines; images of larger tables are not looked for one by one


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that a table names and that must not be read."""

    path: Path
    reason: str

    def read(self) -> bytes:
        """Raise `OSError` with the reason."""
        raise OSError(self.reason)

    def __str__(self) -> str:
        return str(self.path)


class TableReader:
    """Reads one table: what its columns are, whether its images are looked for, and whose captions count."""

    def __init__(self, table: TableFile, columns: Columns, machine_captions: bool = True) -> None:
        self.table, self.columns, self.machine_captions = table, columns, machine_captions
        self.checked = not has_more_lines(table.path, MOST_CHECKED)
        self.beside = "" if self.checked else self._beside()

    def name(self, row: TableRow, where: str) -> str | None:
        """The name that makes the id of a row's image; None if it is looked for and not there."""
        if self.checked or not is_plain(row.image):
            return self.table.find(row.image, where)
        return self.beside + row.image

    def image(self, row: TableRow, name: str, where: str) -> Path | Stored:
        """Where a row's image is. Raises `DataError` if it was there and no longer exists."""
        try:
            found = self.table.find(row.image, where)
        except DataError as error:
            if self.checked:
                raise
            return Unreadable(self.table.root.folder / name, str(error))
        if found is None and self.checked:
            raise DataError(f"{where}: '{row.image}' has gone since the table was read")
        return self.table.root.image(found or name)

    def row_at(self, offset: int, number: int) -> TableRow:
        """The line at a byte offset."""
        # Opened again each time: processes must not share an open file, and opening costs little compared to a picture.
        with opened_lines(self.table.path) as file:
            file.seek(offset)
            return self.counted(parse_row(next_json_line(file), f"{self.table.path}:{number}", self.columns))

    def counted(self, row: TableRow) -> TableRow:
        """A row with the captions that count."""
        return row if self.machine_captions else row.by_persons()

    def _beside(self) -> str:
        """The folder, below the images' root, in which the first image is found: "images/", or "" for the root itself."""
        for block in blocks(self.table.path):
            for number, _, row in rows(block, self.columns, self.table.path):
                name, where = plain_value(row.image), f"{self.table.path}:{number}"
                found = self.table.root.exact(self.table.relative(name), where)
                # Images that are called otherwise than the table says can only be looked for.
                self.checked = not found and self.table.find(name, where) is not None
                return found.removesuffix(name) if found and found.endswith(f"/{name}") else ""
        return ""


class TableSamples(LazySamples):
    """Samples by the byte offsets of their lines. A sample's lines are parsed when it is asked for."""

    def __init__(
        self, reader: TableReader, offsets: np.ndarray, numbers: np.ndarray, starts: np.ndarray, keys: np.ndarray
    ) -> None:
        """Sample i has the lines starts[i] to starts[i + 1]; line j is at byte offsets[j] and is number numbers[j]."""
        self.reader = reader
        self.offsets, self.numbers, self.starts, self._keys = offsets, numbers, starts, keys

    def __len__(self) -> int:
        return len(self._keys)

    def keys(self) -> np.ndarray:
        return self._keys

    def sample_at(self, index: int) -> Sample:
        first, end = int(self.starts[index]), int(self.starts[index + 1])
        lines = [self.reader.row_at(int(self.offsets[line]), int(self.numbers[line])) for line in range(first, end)]
        table, number = self.reader.table, int(self.numbers[first])
        where = f"{table.path}:{number}"
        name = self.reader.name(lines[0], where) or plain_value(lines[0].image)
        image = self.reader.image(lines[0], name, where)
        captions = tuple(text for row in lines for text in row.captions)
        machine = tuple(maker for row in lines for maker in row.machine or ("",) * len(row.captions))
        source = f"{table.name}:{number}"
        return Sample(table.prefix + name, image, captions, source, machine=machine if any(machine) else ())


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a .jsonl file, or a folder with tables that can be told apart."""
    path = Path(source)
    try:
        if path.is_dir():
            return has_tables(path, tables(path, options))
        return path.suffix.lower() in SUFFIXES and path.is_file()
    except (OSError, ValueError):
        return False


def tables(folder: Path, options: ReadOptions = BY_LOOKING) -> list[ListedTable]:
    """The tables of images in a folder: there may be others, of scores say, and captions that captrain wrote."""
    columns = Columns(options.image_column, options.caption_column)

    def look(path: Path) -> tuple[bool, bool]:
        try:
            first = first_row(path)
        except DataError:
            return False, False
        return (False, False) if first.keys() >= _WRITTEN else columns.look(first)

    return tables_in(folder, SUFFIXES, look, lambda file: file.is_file() and not holds_talk(file, first_row, options))


def first_row(path: Path) -> dict[str, Any]:
    """The first line of a table."""
    with opened_lines(path) as file:
        return parse_json_line(next_json_line(file).removeprefix(BOM), str(path))


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All samples of a table or of a folder with tables, in the order of their first lines.

    Lines about the same image become one sample. Rejected are images that are missing or have no caption. Raises
    `DataError` for a line that is not a JSON object in UTF-8, has no file name or one that leaves the folder, and if
    nothing is left.
    """
    columns = Columns(options.image_column, options.caption_column)

    def rows_of(table: TableFile) -> dict[str, Sequence[Sample]]:
        known = columns.of(_columns_of(table, columns))
        return _read_table(TableReader(table, known, options.machine_captions), rejects, captioned)

    expected = 'expected lines like {"file_name": ..., "text": ...}'
    return one_table_each(source, tables_at(source, options, SUFFIXES, tables), rows_of, rejects, expected)


def _columns_of(table: TableFile, columns: Columns) -> list[str]:
    """The columns of the lines in a table's first megabyte. Raises `DataError` if a given one is not in its first line."""
    names: dict[str, None] = {}
    for block in islice(blocks(table.path), 1):
        for number, line in zip(block.numbers.tolist(), block.lines, strict=True):
            where = f"{table.path}:{number}"
            found = parse_json_line(line, where)
            if not names:
                table.columns = tuple(found)
                columns.check(table.columns, where)
            names.update(dict.fromkeys(found))
    return list(names)


def _read_table(reader: TableReader, rejects: Rejects, captioned: bool) -> dict[str, Sequence[Sample]]:
    table, index = reader.table, LineIndex()
    bare: dict[
        str, tuple[str, TableRow]
    ] = {}  # images with a line without caption → that line; another line may have one
    missing: set[str] = set()
    marked = 0
    for block in blocks(table.path):
        names = None if reader.checked else plain_names(block, reader.columns)
        if names is not None:
            index.extend(block, [table.prefix + reader.beside + name for name in names], table.split or "all")
            continue
        for number, offset, row in rows(block, reader.columns, table.path):
            where = f"{table.path}:{number}"
            name = reader.name(row, where)
            marked += row.marked
            if name is None:
                if row.image not in missing:
                    missing.add(row.image)
                    rejects.add(table.prefix + row.image, where, table.absence(row.image, where))
                continue
            if row.machine:
                remark_on_machine(rejects, table.prefix + name, where, row.machine)
            counted = reader.counted(row)
            if captioned and (row.odd or not row.captions):
                bare.setdefault(table.prefix + name, (where, row))
            if counted.captions or not captioned:
                index.add(offset, number, table.prefix + name, row.split or table.split or "all")
    _reject_bare(bare, index, rejects)
    note_marked(table.path, marked, rejects)
    if not index.names and rejects.remarked(MACHINE):
        logger.warning(
            "%s: captrain wrote all its captions, which count with --learn-from-machine-captions", table.path
        )
    check_row_splits(index.names, table)
    return {split: _gather(reader, index, lines) for split, lines in index.by_split().items()}


def _reject_bare(bare: dict[str, tuple[str, TableRow]], index: LineIndex, rejects: Rejects) -> None:
    captioned = set(index.keys) if bare else set()
    for name, (where, row) in bare.items():
        if key_of(name) not in captioned:
            rejects.add(name, where, no_caption(row.odd))
        for text in row.odd if key_of(name) in captioned else ():
            rejects.add(name, where, not_a_caption(text))


def _gather(reader: TableReader, index: LineIndex, lines: np.ndarray) -> TableSamples:
    """The samples of some lines."""
    offsets, numbers, keys = (np.array(values)[lines] for values in (index.offsets, index.numbers, index.keys))
    _, first, image = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first[image], kind="stable")  # lines of an image together, images by their first lines
    starts = np.flatnonzero(np.diff(first[image][order], prepend=-1))
    return TableSamples(reader, offsets[order], numbers[order], np.append(starts, len(order)), keys[order][starts])
