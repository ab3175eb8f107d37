"""Tables of comma, semicolon, tab or bar separated values with a header: `file_name,text` as in a Hugging Face image folder.

A `.csv` or `.tsv` file; or a folder with `metadata.csv`, with one file per split (`train.csv`, `val.csv`), or with one such
file. Rows about the same image become one sample; a cell may hold several captions as a list of strings, written as JSON or
Python does. `captrain.tabular.delimited` says what a quotation mark means.

A table of web addresses, with a column `url` or as Conceptual Captions is (`caption<TAB>url`, no header), is read with the
pictures that were downloaded from it, below --image-root or beside the table. Which file came from which address is stated in
`<table>.map.tsv`, `map.tsv` (`url<TAB>file name`) or `map.json` (`{"url": "file name"}`) there. Without one, a picture has
the name that the address ends in; addresses that end alike can't be told apart, and their rows are rejected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers import headerless
from captrain.data.readers.columns import Columns, listed_columns, present, split_of
from captrain.data.readers.tables import (
    ListedTable,
    TableFile,
    check_row_splits,
    gather,
    has_tables,
    one_table_each,
    tables_at,
    tables_in,
)
from captrain.data.readers.urls import URL_COLUMNS, UrlFiles, is_url
from captrain.errors import DataError
from captrain.records import Rejects, Sample
from captrain.tabular.cells import CAPTION_COLUMNS, IMAGE_COLUMNS
from captrain.tabular.delimited import Delimited

SUFFIXES = (".csv", ".tsv")

APOSTROPHE = "apostrophe"
"""The column that says, by a 1, that the captions of a row got an apostrophe before them, against spreadsheets."""

_EXAMPLE = "expected rows like file_name,text below a header"
_MAP_SUFFIX = ".map.tsv"


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a .csv or .tsv file, or a folder with tables of images."""
    path = Path(source)
    try:
        if path.is_dir():
            return has_tables(path, tables(path, options))
        return path.suffix.lower() in SUFFIXES and path.is_file() and not headerless.recognises(source)
    except (OSError, ValueError):
        return False


def tables(folder: Path, options: ReadOptions = BY_LOOKING) -> list[ListedTable]:
    """The tables of images in a folder."""
    columns = Columns(options.image_column, options.caption_column)
    return tables_in(folder, SUFFIXES, lambda path: _look(path, columns, options.encoding), _is_kind)


def first_row(path: Path) -> dict[str, Any]:
    """The columns of a table, without values."""
    return dict.fromkeys(Cells(path, Columns()).header)


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All samples of a table, or of a folder with tables, in the order in which images are first named.

    Rejected are images that are missing or have no caption, and rows with too few or too many cells. Raises `DataError` for
    a table without a column of images or of captions, a name that leaves the folder, and if nothing is left.
    """
    columns = Columns(options.image_column, options.caption_column)

    def samples(table: TableFile) -> dict[str, Sequence[Sample]]:
        cells = Cells(table.path, columns, options.encoding)
        if cells.url:
            return _from_urls(table, cells, columns, rejects, captioned)
        cells.check(captioned)
        return gather(table, columns, cells.rows(rejects), rejects, captioned)

    return one_table_each(source, tables_at(source, options, SUFFIXES, tables), samples, rejects, _EXAMPLE)


class Cells:
    """The header of a table and its rows, as values by column.

    `url` names the column of web addresses, if images are identified by them; else it is "".
    """

    def __init__(self, path: Path, columns: Columns, encoding: str = "") -> None:
        given = [name.lower() for name in (columns.given_image, columns.given_caption) if name]
        known = {*IMAGE_COLUMNS, *CAPTION_COLUMNS, *URL_COLUMNS, *given}
        self.path, self.table = path, Delimited(path, known, encoding)
        self.has_header = not _without_header(self.table.header)
        self.header = self.table.header
        if not self.has_header:
            self.header = ["url" if is_url(cell) else "caption" for cell in self.header]
        self.columns = columns.of(self.header)
        urls = [name for name in present(URL_COLUMNS, tuple(self.header)) if name in self.header]
        self.url = urls[0] if urls and not self._names_images() else ""

    def check(self, captioned: bool) -> None:
        """Raise `DataError` if there is no column of images, or, where they are needed, of captions."""
        self.columns.check(self.header, f"{self.path}:1")
        if not self._names_images():
            raise DataError(self.columns.no_image(self.header, f"{self.path}:1"))
        if captioned and not self.columns.decided:
            raise DataError(
                f"{self.path}:1: no column of captions (columns: {listed_columns(self.header)}); "
                f"expected {', '.join(CAPTION_COLUMNS[:3])}, or --caption-column to say which it is"
            )

    def rows(self, rejects: Rejects) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line number and cells by column of each row. One with another number of cells, or without a name, is rejected."""
        width, images = len(self.header), present(self.columns.images, tuple(self.header))
        for number, cells in self.table.rows(has_header=self.has_header):
            fault = self._odd_row(len(cells)) if len(cells) != width else ""
            values = dict(zip(self.header, map(str.strip, cells), strict=False))
            if not fault and not self.url and not any(values.get(name) for name in images):
                fault = f"is a row of no file name in '{images[0]}'"
            if fault:
                rejects.add(f"{self.path.name}:{number}", f"{self.path}:{number}", fault)
            else:
                yield number, self._bare(values) if values.get(APOSTROPHE) == "1" else values

    def _bare(self, values: dict[str, Any]) -> dict[str, Any]:
        """A row whose captions have an apostrophe before them, without it."""
        return {name: text.removeprefix("'") if name in self.columns.decided else text for name, text in values.items()}

    def _odd_row(self, found: int) -> str:
        count = f"{found} cells, expected {len(self.header)} ({listed_columns(self.header)})"
        hint = "; put quotes around a caption that has the separator in it" if found > len(self.header) else ""
        return f"is a row of {count}{hint}"

    def _names_images(self) -> bool:
        return any(name in self.header for name in present(self.columns.images, tuple(self.header)))


def _without_header(cells: list[str]) -> bool:
    """Whether a first line is a row already, of a caption and a web address."""
    return len(cells) == 2 and sum(map(is_url, cells)) == 1


def _from_urls(
    table: TableFile, cells: Cells, columns: Columns, rejects: Rejects, captioned: bool
) -> dict[str, Sequence[Sample]]:
    """The samples of a table of web addresses."""
    columns.check(cells.header, f"{table.path}:1")
    files = UrlFiles(table, (str(values[cells.url]) for _, values in cells.rows(Rejects())))
    columns, gathered = cells.columns, table.gathered()
    for number, values in cells.rows(rejects):
        where = f"{table.path}:{number}"
        url = str(values[cells.url])
        name, fault = files.find(url)
        if name:
            split = split_of(values, where) or table.split or "all"
            captions, odd = columns.texts(values, where)
            gathered.add(name, captions + odd, number, rejects, split)
        else:
            rejects.add(table.prefix + url, where, fault)
    check_row_splits(gathered.names, table)
    return gathered.samples(rejects, captioned=captioned)


def _is_kind(path: Path) -> bool:
    if not path.is_file() or headerless.recognises(str(path)):
        return False
    return not path.name.endswith(_MAP_SUFFIX) and path.name != "map.tsv"


def _look(path: Path, columns: Columns, encoding: str) -> tuple[bool, bool]:
    """Whether a table has a column of images, or is one of web addresses; and whether it has one of captions."""
    cells = cells_in_any_encoding(path, columns, encoding)
    if cells is None:
        return False, False
    images, captions = columns.look(dict.fromkeys(cells.header), names_only=True)
    return images or bool(cells.url), captions


def cells_in_any_encoding(path: Path, columns: Columns, encoding: str = "") -> Cells | None:
    """A table for a look at its header: usual names are ASCII, which most encodings share, and reading says what is wrong."""
    for name in (encoding, "latin-1"):
        try:
            return Cells(path, columns, name)
        except DataError:
            continue
    return None
