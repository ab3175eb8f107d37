"""Arrow's tables as a stranger's file holds them: rows in bounded memory, and a look at a file before it is mapped."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from captrain.errors import DataError
from captrain.limits import LARGEST_CELL, LONGEST_CAPTION, MOST_EMPTY_ROWS

LARGEST_MESSAGE = 64 << 20  # bytes of what describes a batch of rows
_CONTINUED = 0xFFFFFFFF
_DICTIONARY, _ROWS = 2, 3  # kinds of messages
_OVERLONG = "." * (LONGEST_CAPTION + 1)


def plain_rows(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of a batch as dictionaries. A cell over `LARGEST_CELL` is cut, but still counts as too long.

    >>> import pyarrow as pa
    >>> list(plain_rows(pa.record_batch({"text": ["a dog", None]})))
    [{'text': 'a dog'}, {'text': None}]
    """
    if _unfolded(batch) <= LARGEST_CELL:
        yield from batch.to_pylist()
    elif batch.num_rows > 1:
        middle = batch.num_rows // 2
        yield from plain_rows(batch.slice(0, middle))
        yield from plain_rows(batch.slice(middle))
    else:
        yield {name: _cell(batch.column(name)) for name in batch.schema.names}


def _unfolded(batch: Any) -> int:
    """Bytes of a batch's values, at most: a value in a dictionary may come in each row."""
    chunks = [chunk for column in batch.columns for chunk in getattr(column, "chunks", [column])]
    repeated = (len(chunk) * chunk.dictionary.nbytes for chunk in chunks if hasattr(chunk, "dictionary"))
    return int(batch.nbytes) + sum(repeated)


def _cell(column: Any) -> Any:
    """The only value of a column."""
    value = column[0]
    value = getattr(value, "value", value) if hasattr(value, "dictionary") else value
    if not hasattr(value, "as_buffer"):
        return value.as_py() if column.nbytes <= LARGEST_CELL else _OVERLONG
    found = value.as_buffer()
    if found is None or found.size <= LARGEST_CELL:
        return value.as_py()
    return found.slice(0, 4 * len(_OVERLONG)).to_pybytes().decode("utf-8", "ignore")[: len(_OVERLONG)]


def check_file(path: Path) -> None:
    """Look over an Arrow file or stream before its rows are mapped into memory: only the notes of its batches are read.

    Raises `DataError` for one whose buffers are compressed (nothing says to how much they unpack, and neither `datasets` nor
    captrain writes such), or that has more rows than room for them. Broken files are left to pyarrow to report.
    """
    size = os.stat(path).st_size
    rows = 0
    with path.open("rb") as file:
        try:
            for note in _notes(file, size):
                count, is_compressed = _batch(note)
                rows += count
                if is_compressed:
                    raise DataError(
                        f"{path}: its buffers are compressed, which is not read; write it without compression"
                    )
        except (struct.error, IndexError):
            return
    if rows > MOST_EMPTY_ROWS + size:
        raise DataError(f"{path}: says that it has {rows} rows in {size} bytes, which is impossible")


def _notes(file: BinaryIO, size: int) -> Iterator[bytes]:
    """What describes each batch, in Arrow's encapsulated messages; the batches themselves are passed over."""
    at = 8 if file.read(8).startswith(b"ARROW1") else 0
    while at + 8 <= size:
        file.seek(at)
        mark, length = struct.unpack("<II", file.read(8))
        if mark != _CONTINUED or not 0 < length <= LARGEST_MESSAGE:
            return
        note = file.read(length)
        yield note
        body = _number(note, _table(note, 0), 3, "<q")
        at += 8 + length + max(0, body)


def _batch(note: bytes) -> tuple[int, bool]:
    """How many rows a message's batch has, and whether its buffers are compressed."""
    message = _table(note, 0)
    kind = _number(note, message, 1, "<B")
    if kind not in (_DICTIONARY, _ROWS):
        return 0, False
    batch = _table(note, _place(note, message, 2))
    if kind == _DICTIONARY:
        batch = _table(note, _place(note, batch, 1))
    return max(0, _number(note, batch, 0, "<q")), _place(note, batch, 3) != 0


def _table(note: bytes, at: int) -> int:
    """Where a table of FlatBuffers begins, from the reference at a place."""
    return at + int(struct.unpack_from("<I", note, at)[0])


def _place(note: bytes, table: int, number: int) -> int:
    """Where a field of a table is, 0 if the table does not have it."""
    slots = table - int(struct.unpack_from("<i", note, table)[0])
    if slots < 0 or 4 + 2 * number >= struct.unpack_from("<H", note, slots)[0]:
        return 0
    offset = int(struct.unpack_from("<H", note, slots + 4 + 2 * number)[0])
    return table + offset if offset else 0


def _number(note: bytes, table: int, number: int, form: str) -> int:
    place = _place(note, table, number)
    return int(struct.unpack_from(form, note, place)[0]) if place else 0
