"""Where the lines of a JSONL table are, and which image each is about, found at a million lines a second or so.

Lines are parsed a block at a time: joined by commas, a block is one JSON list. A block whose rows all have the same
columns, a plain file name and a caption is taken as it is; of any other, each line is looked at by itself.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from captrain.data.machine_captions import LINE_KEY
from captrain.data.readers.columns import SPLIT_COLUMN, Columns, TableRow, present
from captrain.data.samples import key_of
from captrain.disk.reading import open_file
from captrain.errors import DataError
from captrain.limits import LARGEST_LINE, LONG_LINE, LONGEST_CAPTION, shortened
from captrain.records import parse_json, parse_json_line
from captrain.tabular.cells import MARKS, says_nothing

SLOW_COLUMNS = {SPLIT_COLUMN, LINE_KEY, *MARKS}  # a block whose rows have one is looked at row by row
BLOCK = 1 << 20  # bytes parsed at a time

BOM = b"\xef\xbb\xbf"
_NOT_PLAIN = re.compile(r"^(?:[/.]|$)|/(?:[/.]|$)|[\\:\0]|[\ud800-\udfff]", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """Some lines of a table that are not blank: the number and byte offset of each."""

    lines: list[bytes]
    numbers: np.ndarray
    offsets: np.ndarray


class LineIndex:
    """Of each line: its byte offset and number, the key of the image it is about, its split. 25 bytes a line."""

    def __init__(self) -> None:
        self.offsets, self.numbers, self.keys = array("Q"), array("Q"), array("Q")
        self.splits = array("b")
        self.names: list[str] = []  # of the splits, in order of appearance

    def add(self, offset: int, number: int, sample_id: str, split: str) -> None:
        """One line."""
        self.offsets.append(offset)
        self.numbers.append(number)
        self.keys.append(key_of(sample_id))
        self.splits.append(self._place_of(split))

    def extend(self, block: Block, ids: Sequence[str], split: str) -> None:
        """A block of lines, all of one split."""
        self.offsets.frombytes(block.offsets.astype(np.uint64).tobytes())
        self.numbers.frombytes(block.numbers.astype(np.uint64).tobytes())
        digests = b"".join([blake2b(sample_id.encode(), digest_size=8).digest() for sample_id in ids])  # as `key_of`
        self.keys.frombytes(np.frombuffer(digests, ">u8").astype(np.uint64).tobytes())
        self.splits.extend([self._place_of(split)] * len(ids))

    def _place_of(self, split: str) -> int:
        if split not in self.names:
            self.names.append(split)
        return self.names.index(split)

    def by_split(self) -> dict[str, np.ndarray]:
        """The positions of each split's lines."""
        splits = np.array(self.splits)
        return {name: np.flatnonzero(splits == place) for place, name in enumerate(self.names)}


def opened_lines(table: Path) -> BinaryIO:
    """A table, to be read as bytes. Raises `DataError` if it can't be opened."""
    try:
        return open_file(table)
    except OSError as error:
        raise DataError(f"{table}: can't be opened ({error.strerror})") from None


def has_more_lines(table: Path, than: int) -> bool:
    """Whether a table has more than so many line ends; read no further than need be."""
    count = 0
    with opened_lines(table) as file:
        while count <= than and (chunk := file.read(BLOCK)):
            count += chunk.count(b"\n")
    return count > than


def blocks(table: Path) -> Iterator[Block]:
    """A table's lines, a megabyte or so at a time; overlong texts in them are cut. Raises `DataError` for a line that is far
    too long even so."""
    number, offset, rest, cut = 1, 0, b"", 0
    with opened_lines(table) as file:
        while chunk := file.read(BLOCK):
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:
                _check_length(lines[0], table, number)
                yield _block(lines, number, offset, cut)
                number, offset = number + len(lines), offset + sum(map(len, lines)) + len(lines) + cut
                cut = 0
            if len(rest) > LONG_LINE:
                kept = shortened(rest)
                cut, rest = cut + len(rest) - len(kept), kept
            _check_length(rest, table, number)
    if rest:
        yield _block([rest], number, offset, cut)


def _check_length(line: bytes, table: Path, number: int) -> None:
    if len(line) >= LARGEST_LINE:
        raise DataError(f"{table}:{number}: over {LARGEST_LINE} bytes long; expected one JSON object a line")


def _block(lines: list[bytes], number: int, offset: int, cut: int) -> Block:
    """Lines that begin at an offset; of the first, some bytes are cut."""
    lengths = np.fromiter(map(len, lines), np.int64, len(lines)) + 1
    lengths[0] += cut
    offsets = offset + np.cumsum(lengths) - lengths
    numbers = np.arange(number, number + len(lines))
    if offset == 0 and lines[0].startswith(BOM):
        lines[0] = lines[0][len(BOM) :]
    if all(map(bytes.strip, lines)):
        return Block(lines, numbers, offsets)
    kept = np.array([bool(line.strip()) for line in lines])
    return Block([line for line in lines if line.strip()], numbers[kept], offsets[kept])


def rows(block: Block, columns: Columns, table: Path) -> Iterator[tuple[int, int, TableRow]]:
    """Number, byte offset and content of each line."""
    for number, offset, line in zip(block.numbers.tolist(), block.offsets.tolist(), block.lines, strict=True):
        yield number, offset, parse_row(line, f"{table}:{number}", columns)


def parse_row(line: bytes, where: str, columns: Columns) -> TableRow:
    """One line of a table.

    >>> parse_row(b'{"file_name": "a.jpg", "text": "a dog ", "split": "dev"}', "train.jsonl:1", Columns())
    TableRow(image='a.jpg', captions=('a dog',), split='validation')
    """
    return columns.row(parse_json_line(line.removeprefix(BOM), where), where)


def plain_names(block: Block, columns: Columns) -> list[str] | None:
    """The image names of a block in which every row is as simple as can be; None if one is not.

    Simple rows have the columns of the first, a caption of a person, no split, and a name that needs no look at the disk
    to be known to be below the folder (links apart).
    """
    values = _objects(block.lines)
    if not values:
        return None
    first = values[0].keys()
    images, captions = present(columns.images, tuple(first)), columns.decided or columns.captions_in(tuple(first))
    if not images or len(captions) != 1 or first & SLOW_COLUMNS or any(row.keys() != first for row in values):
        return None
    if images[0] not in first or captions[0] not in first:  # a nested column
        return None
    names = [row[images[0]] for row in values]
    return names if _are_plain(names) and all(_has_caption(row[captions[0]]) for row in values) else None


def _objects(lines: list[bytes]) -> list[dict[str, Any]] | None:
    """The lines' objects, parsed at once; None if a line is not valid by itself (no string goes over a line's end)."""
    try:
        values = parse_json((b"[" + b",\n".join(lines) + b"]").decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return values if len(values) == len(lines) and all(type(value) is dict for value in values) else None


def _are_plain(names: list[Any]) -> bool:
    if not all(type(name) is str for name in names):
        return False
    joined = "\n".join(names)
    return joined.count("\n") == len(names) - 1 and is_plain(joined)


def is_plain(name: str) -> bool:
    """Whether a name, by its letters alone, is that of something below a folder, spelled the one usual way.

    >>> [is_plain(name) for name in ("a/b.jpg", "../b.jpg", "/b.jpg", "a//b.jpg", "C:/b.jpg")]
    [True, False, False, False, False]
    """
    return _NOT_PLAIN.search(name) is None


def _has_caption(value: Any) -> bool:
    if type(value) is str:
        if len(value) > LONGEST_CAPTION or says_nothing(value):
            return False
        return value.lstrip()[:1] not in ("[", "(")  # perhaps a list written out as text
    return type(value) is list and bool(value) and all(type(text) is str and _has_caption(text) for text in value)
