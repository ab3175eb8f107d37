"""Tables of separated text: what separates cells, what a quotation mark means, and the rows, of any width.

In a table of commas or semicolons a cell that begins with a quotation mark is quoted, if the mark is closed right before a
separator or the line's end. Tables of tabs or bars are seldom quoted, so there the whole table decides: it is quoted if
every mark in it belongs to such a cell, and each quoted cell needs it (it holds a separator, a mark or a line break) or
is in a column that is quoted throughout. Otherwise marks are ordinary characters.

A quoted cell may go over several lines, but not over one that is a row by itself and names a picture: there a mark was left
open. Such a mark, and one that is closed too early, is a letter, and its line ends its row.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property, lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO, TypeVar

from captrain.disk.reading import encoding_of, open_file, unmarked
from captrain.errors import DataError
from captrain.limits import LARGEST_LINE, LONG_LINE, LONGEST_CAPTION
from captrain.tabular.cells import says_nothing

DELIMITERS = ",\t;|"
SELDOM_QUOTED = "\t|"
LONGEST_HEADER = 1 << 16  # characters
LONGEST_CELL = 1 << 17  # characters; a quoted cell that is not closed by then never is
ENOUGH = 3  # cells of a column, all quoted, from which on the table quotes that column; a quoted name of it is enough

_PICTURE = re.compile(r"\.(?:jpe?g?|jfif|mpo|png|webp|bmp|gif|tiff?|hei[cf]|avif)\s*$|^\s*https?://", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://\S+$", re.IGNORECASE)

Cell = tuple[str, bool]  # its text, and whether it is quoted
T = TypeVar("T")


class Delimited:
    """A table of separated text. Of names in its `header` that come twice, the second becomes "caption.1"."""

    def __init__(self, path: Path, known: Collection[str] = (), encoding: str = "") -> None:
        """`known`: names, in lower case, that columns usually have. `encoding`: "" for UTF-8;
        a byte-order mark goes before it.

        Raises `DataError` for what is not in the encoding.
        """
        self.path, self.encoding, self.delimiter = path, encoding, ""
        first = next(self._read(lambda lines: iter([next(lines, "")[:LONGEST_HEADER].rstrip("\r\n")])))
        self.delimiter = delimiter_of(first, known)
        self.header = distinct(cell.strip() for cell, _ in cells_of(first, self.delimiter))

    @cached_property
    def quoted(self) -> bool:
        """Whether quotation marks are punctuation. Of a table of tabs or bars all lines are looked at, the first time."""
        return self.delimiter not in SELDOM_QUOTED or self._looks_quoted()

    def rows(self, *, has_header: bool = True) -> Iterator[tuple[int, list[str]]]:
        """Number of the (last) line and cells of each row that is not blank, below the header if there is one."""
        for number, cells in self._read(self._rows):
            if any(cells) and not (has_header and number == 1):
                yield number, cells

    def _rows(self, lines: TextLines) -> Iterator[tuple[int, list[str]]]:
        for line in lines:
            if self.quoted and '"' in line:
                row = self._quoted_row(line, lines) or cells_of(line.rstrip("\r\n"), self.delimiter)
                yield lines.number, [text for text, _ in row]
            else:
                yield lines.number, line.rstrip("\r\n").split(self.delimiter)

    def _looks_quoted(self) -> bool:
        """Whether the marks in a table of tabs or bars are quotation."""
        counts: Counter[int] = Counter()  # of a column: cells that are quoted without need
        for number, row in self._read(self._marked_rows):
            if row is None or any('"' in text for text, is_quoted in row if not is_quoted):
                return False
            needless = [
                place for place, cell in enumerate(row) if cell[1] and not _needs_quotes(cell[0], self.delimiter)
            ]
            counts.update({place: ENOUGH if number == 1 else 1 for place in needless})
        return not counts or (min(counts.values()) >= ENOUGH and not self._has_bare(counts))

    def _marked_rows(self, lines: TextLines) -> Iterator[tuple[int, list[Cell] | None]]:
        for line in lines:
            if '"' in line:
                yield lines.number, self._quoted_row(line, lines)

    def _has_bare(self, columns: Collection[int]) -> bool:
        """Whether some columns hold text without quotation marks, below the header."""

        def bare(lines: TextLines) -> Iterator[bool]:
            for line in lines:
                row = (self._quoted_row(line, lines) if '"' in line else None) or cells_of(
                    line.rstrip("\r\n"), self.delimiter
                )
                if lines.number > 1:
                    yield any(
                        place in columns and not is_quoted and not says_nothing(text)
                        for place, (text, is_quoted) in enumerate(row)
                    )

        return any(self._read(bare))

    def _quoted_row(self, line: str, lines: TextLines) -> list[Cell] | None:
        """The cells of a row that begins with a line; None if a mark in it is left open or closed too early."""
        taken, text = [line], line
        while True:
            row = list(_cells(text.rstrip("\r\n"), self.delimiter))
            begun = next((at for (cell, quoted), at in row if not quoted and cell.lstrip(" ").startswith('"')), None)
            if begun is None:
                break
            more = lines.through('"', LONGEST_CELL - len(text)) if _OPEN.match(text, begun) else []
            if not more:
                break
            taken += more
            text += "".join(more)
        swallows = len(taken) > 1 and any(_swallows(cell, self.delimiter) for (cell, quoted), _ in row if quoted)
        if begun is not None or swallows:
            lines.give_back(taken[1:])
            return None
        return [cell for cell, _ in row]

    def _read(self, work: Callable[[TextLines], Iterator[T]]) -> Iterator[T]:
        """What some work makes of the lines. Raises `DataError` for what is not in the encoding, wherever that shows."""
        try:
            name = encoding_of(self.path, self.encoding)
            with TextIOWrapper(open_file(self.path), encoding=name, newline="") as file:
                yield from work(TextLines(unmarked(self._lines(file))))
        except OSError as error:
            raise DataError(f"{self.path}: can't be opened ({error.strerror})") from None
        except UnicodeError as error:
            name = encoding_of(self.path, self.encoding).removesuffix("-sig").upper()
            reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
            raise DataError(
                f"{self.path}: not {name} ({reason}); save the table as UTF-8 (in Excel: CSV "
                "UTF-8), or say what it is: --encoding"
            ) from None

    def _lines(self, file: TextIO) -> Iterator[str]:
        """The lines of a file, with their ends. Of cells that are too long for captions, what is too long is cut."""
        number, cells = 0, _long_cells(self.delimiter)
        while line := (more := file.readline(LONG_LINE)):
            number += 1
            while len(more) == LONG_LINE and not more.endswith("\n") and len(line) < LARGEST_LINE:
                more = file.readline(LONG_LINE)
                line = cells.sub(_cut, line + more)
            if len(line) >= LARGEST_LINE:
                raise DataError(f"{self.path}:{number}: over {LARGEST_LINE} characters long; expected a row a line")
            yield line


class TextLines:
    """The lines of a file, with their ends, and the `number` of the one given last. Lines can be given back."""

    def __init__(self, file: Iterable[str]) -> None:
        self._file, self._waiting, self.number = iter(file), deque[str](), 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._file)
        self.number += 1
        return line

    def through(self, mark: str, most: int) -> list[str]:
        """The lines up to the first that has a mark in it, and that one; those that there are, if there is none so near."""
        taken: list[str] = []
        while most > 0 and (line := next(self, None)) is not None:
            taken.append(line)
            most -= len(line)
            if mark in line:
                break
        return taken

    def give_back(self, lines: list[str]) -> None:
        """Give the last lines again."""
        self._waiting.extendleft(reversed(lines))
        self.number -= len(lines)


def cells_of(text: str, delimiter: str) -> list[Cell]:
    """The cells of a row that ends with its text; a mark that is left open, or closed too early, is a letter.

    >>> cells_of('a.jpg,"one, two","no entry" sign', ",")
    [('a.jpg', False), ('one, two', True), ('"no entry" sign', False)]
    """
    return [cell for cell, _ in _cells(text, delimiter)]


def _cells(text: str, delimiter: str) -> Iterator[tuple[Cell, int]]:
    """Cells, and where each begins."""
    quoted, at = _quoted_cell(delimiter), 0
    while True:
        if found := quoted.match(text, at):
            yield (found[1].replace('""', '"'), True), at
            at = found.end()
        else:
            end = text.find(delimiter, at)
            end = len(text) if end < 0 else end
            yield (text[at:end], False), at
            at = end
        if at >= len(text):
            return
        at += len(delimiter)


@lru_cache(maxsize=8)
def _quoted_cell(delimiter: str) -> re.Pattern[str]:
    return re.compile(rf' *"([^"]*(?:""[^"]*)*)" *(?={re.escape(delimiter)}|[\r\n]*\Z)')


@lru_cache(maxsize=8)
def _long_cells(delimiter: str) -> re.Pattern[str]:
    """Cells that are quoted, and others that are too long, perhaps cut at their ends; commas end them where nothing is known."""
    letter = rf'[^"\r\n{re.escape(delimiter or ",")}]'
    return re.compile(rf'"(?:[^"]++|"")++|(?<!{letter}){letter}{{{LONGEST_CAPTION + 1},}}+')


def _cut(cell: re.Match[str]) -> str:
    """A cell; the beginning of one that is longer than any caption."""
    text = cell[0]
    if len(text) <= 2 * LONGEST_CAPTION:  # each quotation mark in it is written twice
        return text
    return text[0] + text[1 : LONGEST_CAPTION + 2].replace('"', "'")


_OPEN = re.compile(r' *"[^"]*(?:""[^"]*)*\Z')  # a cell whose mark may be closed on a later line


def _swallows(cell: str, delimiter: str) -> bool:
    """Whether a quoted cell goes over lines that are rows: one of their cells names a picture."""
    lines = cell.splitlines()
    return len(lines) > 1 and any(
        _PICTURE.search(part) for line in lines if delimiter in line for part in line.split(delimiter)
    )


def _needs_quotes(cell: str, delimiter: str) -> bool:
    return any(mark in cell for mark in (delimiter, '"', "\n", "\r"))


def delimiter_of(line: str, known: Collection[str]) -> str:
    """What separates cells: that by which the first line has the most columns that count, then the most cells.

    >>> delimiter_of("file_name;text, or none", {"file_name"})
    ';'
    """

    def worth(delimiter: str) -> tuple[int, int]:
        cells = [cell.strip() for cell, _ in cells_of(line, delimiter)]
        return sum(cell.lower() in known or _ADDRESS.match(cell) is not None for cell in cells), len(cells)

    return max(DELIMITERS, key=worth)


def distinct(names: Iterable[str]) -> list[str]:
    """Names of columns, each once.

    >>> distinct(["image", "caption", "caption"])
    ['image', 'caption', 'caption.1']
    """
    found: dict[str, None] = {}
    counts: Counter[str] = Counter()
    for name in names:
        single = name
        while single in found:
            counts[name] += 1
            single = f"{name}.{counts[name]}"
        found[single] = None
    return list(found)
