"""Tables of comma, semicolon, tab or bar separated values with a header: `file_name,text` as in a Hugging Face image folder.

A `.csv` or `.tsv` file; or a folder with `metadata.csv`, with one file a split (`train.csv`, `val.csv`), or with one such
file. Rows about the same image become one sample; a cell may hold several captions as a JSON list of strings.

A table of web addresses, with a column `url` or as Conceptual Captions is (`caption<TAB>url`, no header), is read with the
pictures that were downloaded from it, below --image-root or beside the table. Which file came from which address is told by
`<table>.map.tsv`, `map.tsv` (`url<TAB>file name`) or `map.json` (`{"url": "file name"}`) there. Without one, a picture has
the name that the address ends in; addresses that end alike can't be told apart, and their rows are rejected.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from captrain.data.readers import headerless
from captrain.data.readers.columns import CAPTION_COLUMNS, IMAGE_COLUMNS, Columns, listed, present, split_of
from captrain.data.readers.options import BY_LOOKING, ReadOptions
from captrain.data.readers.tables import Table, check_splits, gather, has_tables, one_table_each, tables_at
from captrain.data.readers.urls import URL_COLUMNS, UrlFiles, is_url
from captrain.errors import DataError
from captrain.records import Rejects, Sample

SUFFIXES = (".csv", ".tsv")
DELIMITERS = ",\t;|"
LONGEST_HEADER = 1 << 16  # characters

_EXAMPLE = "expected rows like file_name,text below a header"
_MAP_SUFFIX = ".map.tsv"


def recognises(source: str) -> bool:
    """Whether this is a .csv or .tsv file, or a folder with tables of images."""
    path = Path(source)
    try:
        if path.is_dir():
            return has_tables(path, SUFFIXES, _has_images, _is_kind)
        return path.suffix.lower() in SUFFIXES and path.is_file() and not headerless.recognises(source)
    except (OSError, ValueError):
        return False


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All samples of a table, or of a folder with tables, in the order in which images are first named.

    Rejected are images that are missing or have no caption. Raises `DataError` for a table without a column of images or
    of captions, a broken row, a name that leaves the folder, and if nothing is left.
    """
    columns = Columns(options.image_column, options.caption_column)

    def samples(table: Table) -> dict[str, Sequence[Sample]]:
        cells = Cells(table.path, columns)
        if cells.url:
            return _from_urls(table, cells, columns, rejects, captioned)
        cells.check(captioned)
        return gather(table, columns, cells.rows(), rejects, captioned)

    return one_table_each(
        source, tables_at(source, options, SUFFIXES, _has_images, _is_kind), samples, rejects, _EXAMPLE
    )


class Cells:
    """The header of a table, how its cells are separated, and its rows.

    `url` names the column of web addresses, if images are told by them; else it is "".
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path, self.columns = path, columns
        first = self._first_line()
        self.delimiter = _delimiter(first, columns)
        self.header = [name.strip() for name in next(_parsed(first, self.delimiter), [])]
        self.has_header = not _without_header(self.header)
        if not self.has_header:
            self.header = ["url" if is_url(cell) else "caption" for cell in self.header]
        urls = [name for name in present(URL_COLUMNS, tuple(self.header)) if name in self.header]
        self.url = urls[0] if urls and not self._names_images() else ""

    def check(self, captioned: bool) -> None:
        """Raise `DataError` if there is no column of images, or, where they are needed, of captions."""
        self.columns.check(self.header, f"{self.path}:1")
        if not self._names_images():
            raise DataError(self.columns.no_image(self.header, f"{self.path}:1"))
        if captioned and not present(self.columns.captions, tuple(self.header)):
            raise DataError(
                f"{self.path}:1: no column of captions (columns: {listed(self.header)}); "
                f"expected {', '.join(CAPTION_COLUMNS[:3])}, or --caption-column to say which it is"
            )

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line number and cells by column of each row that is not blank."""
        width = len(self.header)
        with self._opened() as file:
            lines = csv.reader(file, delimiter=self.delimiter)
            try:
                for cells in lines:
                    if (lines.line_num == 1 and self.has_header) or not any(cells):
                        continue
                    if len(cells) != width:
                        raise DataError(self._odd_row(lines.line_num, len(cells)))
                    yield lines.line_num, {name: _value(cell) for name, cell in zip(self.header, cells, strict=True)}
            except csv.Error as error:
                limit = csv.field_size_limit()
                raise DataError(
                    f"{self.path}:{lines.line_num}: not a row of a table ({error}); "
                    f"expected cells of up to {limit} characters, with quotes that are closed"
                ) from None
            except UnicodeDecodeError as error:
                raise DataError(_not_unicode(self.path, error)) from None

    def _odd_row(self, number: int, found: int) -> str:
        return (
            f"{self.path}:{number}: {found} cells, expected {len(self.header)} ({listed(self.header)}); "
            "put quotes around a caption that has the separator in it"
        )

    def _names_images(self) -> bool:
        return bool(present(self.columns.images, tuple(self.header)))

    def _first_line(self) -> str:
        with self._opened() as file:
            try:
                return str(file.readline(LONGEST_HEADER))
            except UnicodeDecodeError as error:
                raise DataError(_not_unicode(self.path, error)) from None

    def _opened(self) -> Any:
        try:
            return self.path.open(encoding="utf-8-sig", newline="")
        except OSError as error:
            raise DataError(f"{self.path}: can't be opened ({error.strerror})") from None


def _not_unicode(path: Path, error: UnicodeDecodeError) -> str:
    return f"{path}: not UTF-8 ({error.reason}); save the table as UTF-8 (in Excel: CSV UTF-8)"


def _parsed(line: str, delimiter: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader([line], delimiter=delimiter)
    except csv.Error:
        return


def _delimiter(first: str, columns: Columns) -> str:
    """What separates cells: that by which the first line has the most columns that count, then the most cells."""
    known = {*columns.images, *columns.captions, *IMAGE_COLUMNS, *CAPTION_COLUMNS, *URL_COLUMNS}

    def worth(delimiter: str) -> tuple[int, int]:
        cells = [cell.strip() for cell in next(_parsed(first, delimiter), [])]
        return sum(cell in known or cell.lower() in known or is_url(cell) for cell in cells), len(cells)

    return max(DELIMITERS, key=worth)


def _without_header(cells: list[str]) -> bool:
    """Whether a first line is a row already, of a caption and a web address."""
    return len(cells) == 2 and sum(map(is_url, cells)) == 1


def _value(cell: str) -> str | list[Any]:
    """A cell, or the strings in it where it is a JSON list of them.

    >>> _value('["a dog", "a cat"]'), _value("[sic] a dog")
    (['a dog', 'a cat'], '[sic] a dog')
    """
    text = cell.strip()
    if text.startswith('["') and text.endswith('"]'):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if all(isinstance(part, str) for part in found):
            return list(found)
    return text


def _from_urls(
    table: Table, cells: Cells, columns: Columns, rejects: Rejects, captioned: bool
) -> dict[str, Sequence[Sample]]:
    """The samples of a table of web addresses."""
    columns.check(cells.header, f"{table.path}:1")
    files = UrlFiles(table, (str(values[cells.url]) for _, values in cells.rows()))
    gathered = table.gathered()
    for number, values in cells.rows():
        where = f"{table.path}:{number}"
        url = str(values[cells.url])
        name, fault = files.find(url)
        if name:
            split = split_of(values, where) or table.split or "all"
            gathered.add(name, columns.texts(values, where), number, rejects, split)
        else:
            rejects.add(table.prefix + url, where, fault)
    check_splits(gathered.names, table)
    return gathered.samples(rejects, captioned=captioned)


def _is_kind(path: Path) -> bool:
    if not path.is_file() or headerless.recognises(str(path)):
        return False
    return not path.name.endswith(_MAP_SUFFIX) and path.name != "map.tsv"


def _has_images(path: Path) -> bool:
    """Whether a table has a column of images, or is one of web addresses."""
    try:
        cells = Cells(path, Columns())
        if not cells.url:
            cells.check(captioned=False)
    except DataError:
        return False
    return True
