"""The sizes that the pages of a Parquet file unpack to, read from their headers before anything is decoded.

A page says in its header how many bytes it has unpacked, and values that repeat are stored in a dictionary once: 22 KB may
stand for gigabytes. pyarrow has no limit on either, and ends the process where the metadata of a column is damaged and it is
asked for it. So footer and headers are read here (Apache Parquet, `parquet.thrift`).

Parquet files describe themselves in Thrift's compact protocol. Only what is needed is read (`thrift-compact-protocol.md`
of Apache Thrift). No memory is reserved by what the bytes say of a length.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from captrain.errors import DataError
from captrain.limits import (
    LARGEST_GROUP,
    LARGEST_LISTS,
    LARGEST_PAGE,
    LARGEST_SLICE,
    MOST_EMPTY_ROWS,
    is_bomb,
)

LARGEST_FOOTER = 64 << 20  # bytes
LARGEST_HEADER = 1 << 20  # bytes of a page's header
_MAGIC = b"PAR1"
WIDEST = 16 << 10  # bytes of a value of a column whose values all have as many, the missing ones too
A_VALUE = 16  # bytes that a value of a list takes when it is decoded, beside its own
PICTURE = 64 << 10  # bytes; of a dictionary of larger values it is not looked how long they are
_BYTES, _FIXED = 6, 7  # the kind of columns of texts and pictures, and of values of one width
_DICTIONARY_PAGE, _DATA_PAGE, _DATA_PAGE_2 = 2, 0, 3
_BY_DICTIONARY, _BY_PREFIX = (2, 8), 7
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}

_COLUMN: Wanted = {3: {1: None, 3: [None], 4: None, 5: None, 7: None, 9: None, 11: None}}
_FOOTER: Wanted = {2: [{1: None, 2: None}], 3: None, 4: [{1: [_COLUMN], 3: None}]}
_PAGE: Wanted = {1: None, 2: None, 3: None, 5: {1: None, 2: None}, 7: {1: None}, 8: {1: None, 4: None}}


@dataclass(frozen=True, slots=True)
class Page:
    """A page: bytes unpacked and stored, how many values and how they are encoded, where its data begin."""

    unpacked: int
    stored: int
    values: int
    encoding: int
    start: int


@dataclass(slots=True)
class Chunk:
    """A column of one row group, with so many `values`: its pages of data, and its dictionary's."""

    path: str
    kind: int
    codec: int
    rows: int
    values: int
    stored: int
    pages: list[Page] = field(default_factory=list)
    dictionary: Page | None = None
    longest: int = 0
    """Bytes of the longest value in the dictionary, or more."""

    @property
    def is_flat(self) -> bool:
        """Whether each row has one value: a column of lists has more, or none."""
        return sum(page.values for page in self.pages) == self.rows

    @property
    def unpacked(self) -> int:
        """Bytes of all values, at most."""
        return sum(page.unpacked + A_VALUE * page.values + self._repeated(page, page.values) for page in self.pages)

    def most_in(self, count: int) -> int:
        """Bytes that any `count` neighbouring rows of a flat column decode to, at most."""
        most, end, held, rows = 0, 0, 0, 0
        for start, first in enumerate(self.pages):
            while end < len(self.pages) and (end == start or rows - first.values + 1 < count):
                held, rows = held + self._weight(end, count), rows + self.pages[end].values
                end += 1
            most = max(most, held)
            held, rows = held - self._weight(start, count), rows - first.values
        return most

    def _weight(self, number: int, count: int) -> int:
        page = self.pages[number]
        return page.unpacked + self._repeated(page, min(page.values, count))

    def _repeated(self, page: Page, values: int) -> int:
        """Bytes of values that stand in the page or the dictionary once, or share what they begin with."""
        if page.encoding in _BY_DICTIONARY:
            return self.longest * values
        return page.unpacked * values if page.encoding == _BY_PREFIX else 0


class Pages:
    """The row groups of a file: their rows, and what their columns unpack to.

    Raises `DataError` for a file with more rows than it has room for, `ValueError` for one that is broken.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            footer = _footer(opened, size)
        self.groups: list[dict[int, Any]] = footer.get(4, [])
        self.rows = _rows_in(self.groups)
        if sum(self.rows) > MOST_EMPTY_ROWS + size or min(self.rows, default=0) < 0:
            raise DataError(f"{file}: says that it has {sum(self.rows)} rows in {size} bytes, which is impossible")
        widths = _widths_in(footer.get(2, []))
        if max(widths, default=0) > WIDEST:
            raise DataError(f"{file}: has a column of values of {max(widths)} bytes each, over {WIDEST}")

    def slices(self, wanted: Sequence[str], most: int) -> Iterator[tuple[list[int], int]]:
        """Row groups that are decoded together, and how many rows of the wanted columns at a time, in bounded memory.

        Raises `DataError` for a column that unpacks to far more than it has on the disk.
        """
        together: list[int] = []
        weight = 0
        for group in range(len(self.groups)):
            rows, own = self.slice(group, wanted, most)
            if together and (rows < most or weight + own > LARGEST_SLICE):
                yield together, most
                together, weight = [], 0
            if rows < most:
                yield [group], rows
            else:
                together.append(group)
                weight += own
        if together:
            yield together, most

    def slice(self, group: int, wanted: Sequence[str], most: int) -> tuple[int, int]:
        """How many rows of a row group to decode at a time, and to how many bytes they unpack at most."""
        chunks = self.chunks(group, wanted)
        lists = sum(chunk.unpacked for chunk in chunks if not chunk.is_flat)
        flat = [chunk for chunk in chunks if chunk.is_flat]
        rows = most if lists <= LARGEST_SLICE else max(1, min(most, self.rows[group] * LARGEST_SLICE // lists))
        while (weight := sum(chunk.most_in(rows) for chunk in flat)) > LARGEST_SLICE and rows > 1:
            rows //= 2
        return rows, weight + lists

    def chunks(self, group: int, wanted: Sequence[str]) -> list[Chunk]:
        """Some columns of a row group, looked over. Raises as `slices` does."""
        found = []
        try:
            with self.file.open("rb") as opened:
                for column in self.groups[group].get(1, []):
                    chunk, start = _chunk(column.get(3, {}), self.rows[group])
                    if any(chunk.path == name or chunk.path.startswith(f"{name}.") for name in wanted):
                        self._look_over(opened, chunk, start, group)
                        found.append(chunk)
        except (IndexError, AttributeError, TypeError):  # a field of another kind than it should be
            raise ValueError(f"the headers of row group {group + 1} are broken") from None
        return found

    def _look_over(self, opened: BinaryIO, chunk: Chunk, start: int, group: int) -> None:
        where = f"{self.file}: row group {group + 1}, column {chunk.path[:80]}"
        for page in _pages(opened, chunk, start):
            if is_bomb(page.unpacked, page.stored, LARGEST_PAGE):
                raise DataError(
                    f"{where}: a page of {page.stored} bytes unpacks to {page.unpacked}, over {LARGEST_PAGE}"
                )
        if chunk.dictionary and chunk.kind == _BYTES and any(page.encoding in _BY_DICTIONARY for page in chunk.pages):
            chunk.longest = _longest(opened, chunk.dictionary, chunk.codec)
        pages = sum(page.unpacked for page in (chunk.dictionary, *chunk.pages) if page)
        if is_bomb(pages, chunk.stored, LARGEST_GROUP):
            raise DataError(f"{where}: unpacks to {pages} bytes, over {LARGEST_GROUP}; write smaller row groups")
        if not chunk.is_flat and chunk.unpacked > LARGEST_LISTS:
            raise DataError(
                f"{where}: its lists unpack to {chunk.unpacked} bytes, over {LARGEST_LISTS}; "
                "write the file with smaller row groups (row_group_size=1000)"
            )


def _rows_in(groups: Any) -> list[int]:
    """Rows of each row group. Raises `ValueError` if the footer has values of another kind."""
    try:
        return [int(group.get(3, 0)) for group in groups]
    except (AttributeError, TypeError):
        raise ValueError("its footer is broken") from None


def _widths_in(leaves: Any) -> list[int]:
    """Bytes of a value of each column of fixed width. Raises as `_rows_in` does."""
    try:
        return [int(leaf.get(2, 0)) for leaf in leaves if leaf.get(1) == _FIXED]
    except (AttributeError, TypeError):
        raise ValueError("its footer is broken") from None


def _footer(opened: BinaryIO, size: int) -> dict[int, Any]:
    opened.seek(max(0, size - 8))
    tail = opened.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length + 8 > size:
        raise ValueError("it has no footer")
    if length > LARGEST_FOOTER:
        raise ValueError(f"its footer has {length} bytes, over {LARGEST_FOOTER}")
    opened.seek(size - 8 - length)
    try:
        return Compact(opened.read(length)).struct(_FOOTER)
    except (IndexError, AttributeError, TypeError):
        raise ValueError("its footer is broken") from None


def _chunk(note: dict[int, Any], rows: int) -> tuple[Chunk, int]:
    """A column without its pages, and where they begin."""
    path = ".".join(part.decode("utf-8", "replace") for part in note.get(3, []))
    first, dictionary = note.get(9, 0), note.get(11, 0)
    start = dictionary if 0 < dictionary < first else first
    return Chunk(path, note.get(1, -1), note.get(4, 0), rows, note.get(5, 0), note.get(7, 0)), start


def _pages(opened: BinaryIO, chunk: Chunk, start: int) -> Iterator[Page]:
    """The pages of a column, which are put into it; no page's data are read."""
    at, end, seen = start, start + chunk.stored, 0
    while at < end and seen < chunk.values:
        header, at = _header(opened, at)
        kind, unpacked, stored = header.get(1), header.get(2, 0), header.get(3, 0)
        about = header.get({_DATA_PAGE: 5, _DATA_PAGE_2: 8, _DICTIONARY_PAGE: 7}.get(kind or 0, 0), {})
        if min(stored, unpacked, about.get(1, 0)) < 0 or at + stored > end:
            raise ValueError(f"a page at byte {at} is broken")
        page = Page(unpacked, stored, about.get(1, 0), about.get(4 if kind == _DATA_PAGE_2 else 2, 0), at)
        if kind == _DICTIONARY_PAGE:
            chunk.dictionary = page
        elif kind in (_DATA_PAGE, _DATA_PAGE_2):
            chunk.pages.append(page)
            seen += page.values
        yield page
        at += stored


def _header(opened: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """A page's header, and where its data begin."""
    for size in (512, LARGEST_HEADER):
        opened.seek(at)
        compact = Compact(opened.read(size))
        try:
            return compact.struct(_PAGE), at + compact.at
        except IndexError:
            continue
    raise ValueError(f"the header of a page at byte {at} is broken")


def _longest(opened: BinaryIO, page: Page, codec: int) -> int:
    """Bytes of the longest value in a dictionary; of the whole dictionary where it can't be told."""
    import pyarrow as pa

    if (codec and codec not in _CODECS) or page.unpacked > PICTURE * max(page.values, 1):
        return page.unpacked
    opened.seek(page.start)
    data: bytes | memoryview[int] = opened.read(page.stored)
    if codec:
        data = memoryview(pa.Codec(_CODECS[codec]).decompress(data, page.unpacked))
    at, longest = 0, 0
    for _ in range(page.values):
        length = int.from_bytes(data[at : at + 4], "little")
        longest, at = max(longest, length), at + 4 + length
        if at > len(data):
            return page.unpacked
    return longest


Wanted = Mapping[int, Any]
"""The fields of a struct that count: None for a value, a mapping for a struct, [None] or [mapping] for a list."""


class Compact:
    """Thrift's compact protocol, of which only wanted fields are kept. Raises `IndexError` if the bytes end too early."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self, wanted: Wanted, depth: int = 0) -> dict[int, Any]:
        """The wanted fields of a struct, by their numbers."""
        found: dict[int, Any] = {}
        number = 0
        if depth > 32:
            raise ValueError("it nests too deeply")
        while byte := self._byte():
            step = byte >> 4
            number = number + step if step else self._signed()
            kind = byte & 15
            if number in wanted:
                found[number] = self._value(kind, wanted[number], depth)
            else:
                self._value(kind, None, depth)
        return found

    def _value(self, kind: int, wanted: Any, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 8:
            return self._skip(self._number())
        if kind in (9, 10):
            return self._list(wanted, depth)
        if kind == 12:
            return self.struct(wanted if isinstance(wanted, Mapping) else {}, depth + 1)
        if kind in (3, 7):
            return self._skip(1 if kind == 3 else 8)
        raise ValueError(f"a field of unknown kind {kind}")

    def _list(self, wanted: Any, depth: int) -> list[Any]:
        byte = self._byte()
        count, kind = byte >> 4, byte & 15
        count = self._number() if count == 15 else count
        if count > len(self.data) - self.at:  # each takes a byte
            raise IndexError
        inner = wanted[0] if isinstance(wanted, list) else None
        if kind in (1, 2):
            self._skip(count)
            return []
        found = []
        for _ in range(count):
            value = self._value(kind, inner, depth + 1)
            if isinstance(wanted, list):
                found.append(value)
        return found

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _skip(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise IndexError
        self.at += count
        return self.data[self.at - count : self.at]

    def _number(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        return value | byte << shift

    def _signed(self) -> int:
        value = self._number()
        return value >> 1 ^ -(value & 1)
