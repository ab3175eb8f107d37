"""Pictures that are in the rows of Parquet files: where each is, its captions, and how its bytes are read when asked for."""

from __future__ import annotations

import os
import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captrain.data.caption_buffers import FlatTexts
from captrain.data.parquet_pages import Pages
from captrain.data.readers.columns import TableRow
from captrain.data.samples import LazySamples, key_of
from captrain.errors import DataError
from captrain.limits import MOST_KEPT
from captrain.records import Rejects, Sample
from captrain.tabular.cells import no_caption, not_a_caption

BUFFER = 1 << 20  # bytes of a file that are read at a time
MOST_AT_ONCE = 64  # pictures decoded at a time


@dataclass(frozen=True, slots=True)
class RowImage:
    """The picture of one row of a Parquet file: `row` counts from 0 within its row group."""

    file: Path
    leaf: str
    group: int
    row: int

    def read(self) -> bytes:
        """The encoded picture. Raises `OSError` if the row has none or the file can't be read."""
        value = _KEPT.value(self.file, self.leaf, self.group, self.row)
        found = value.get("bytes") if isinstance(value, dict) else value
        if not found or not isinstance(found, bytes):
            raise OSError(f"row {self.row + 1} of row group {self.group + 1} holds no picture")
        return found

    def __str__(self) -> str:
        return f"{self.file}/{self.group}/{self.row}"


@dataclass(frozen=True)
class PictureColumn:
    """A file, its column of pictures, and how many rows there are up to the end of each row group."""

    file: Path
    leaf: str
    ends: list[int]

    def image(self, row: int) -> RowImage:
        """The picture of a row, counted from 0."""
        group = bisect_right(self.ends, row)
        return RowImage(self.file, self.leaf, group, row - (self.ends[group - 1] if group else 0))


class Embedded:
    """Collects rows that hold pictures, some 40 bytes and the captions a row; every row is a sample."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources: list[PictureColumn] = []
        self.origins = array("I")  # of a row: its source
        self.rows = array("Q")  # and its place in it
        self.splits = array("b")
        self.split_names: list[str] = []
        self.names, self.captions = FlatTexts(), FlatTexts()
        self.caption_ends = array("Q", [0])
        self.odd: dict[int, tuple[str, ...]] = {}  # row → its texts that are no captions

    def open(self, file: Path, leaf: str, ends: list[int]) -> int:
        """Begin a file; returns its number."""
        self.sources.append(PictureColumn(file, leaf, ends))
        return len(self.sources) - 1

    def add(self, origin: int, number: int, row: TableRow, split: str) -> None:
        """The row with a number, from 1, of a file."""
        if split not in self.split_names:
            self.split_names.append(split)
        file = self.sources[origin].file
        self.origins.append(origin)
        self.rows.append(number - 1)
        self.splits.append(self.split_names.index(split))
        self.names.append(row.image or f"{file.relative_to(self.folder).with_suffix('').as_posix()}/{number}")
        for caption in row.captions:
            self.captions.append(caption)
        self.caption_ends.append(len(self.captions))
        if row.odd:
            self.odd[len(self.rows) - 1] = row.odd

    def samples(self, rejects: Rejects, *, captioned: bool = True) -> dict[str, Sequence[Sample]]:
        """Samples by split, in the order of their rows."""
        keys = np.fromiter((key_of(name) for name in self.names), np.uint64, len(self.names))
        copies = _copies(keys)
        usable = np.ones(len(keys), dtype=bool)
        if captioned:
            usable = np.diff(np.array(self.caption_ends, dtype=np.int64)) > 0
            for row in np.flatnonzero(~usable).tolist():
                rejects.add(self.names[row], self.where(row), no_caption(self.odd.get(row, ())))
            for row in filter(usable.__getitem__, self.odd):
                for text in self.odd[row]:
                    rejects.add(self.names[row], self.where(row), not_a_caption(text))
        splits = np.array(self.splits)
        chosen = {name: np.flatnonzero(usable & (splits == place)) for place, name in enumerate(self.split_names)}
        return {name: EmbeddedSamples(self, rows, copies[rows]) for name, rows in chosen.items() if len(rows)}

    def where(self, row: int) -> str:
        """A row's file and number, for people."""
        return f"{self.sources[self.origins[row]].file}:{self.rows[row] + 1}"


class EmbeddedSamples(LazySamples):
    """Some of the rows that were collected, made into samples when they are asked for."""

    def __init__(self, embedded: Embedded, rows: np.ndarray, copies: np.ndarray) -> None:
        """`copies[i]` says how many rows before had the name that row i has."""
        self.embedded, self.rows, self.copies = embedded, rows, copies

    def __len__(self) -> int:
        return len(self.rows)

    def keys(self) -> np.ndarray:
        return np.fromiter((key_of(self._id(index)) for index in range(len(self))), np.uint64, len(self))

    def sample_at(self, index: int) -> Sample:
        embedded, row = self.embedded, int(self.rows[index])
        ends = embedded.caption_ends
        captions = tuple(embedded.captions[place] for place in range(ends[row], ends[row + 1]))
        source = embedded.sources[embedded.origins[row]]
        place = f"{source.file.relative_to(embedded.folder).as_posix()}:{embedded.rows[row] + 1}"
        return Sample(self._id(index), source.image(embedded.rows[row]), captions, place)

    def _id(self, index: int) -> str:
        name, copies = self.embedded.names[int(self.rows[index])], int(self.copies[index])
        return f"{name}#{copies + 1}" if copies else name


def _copies(keys: np.ndarray) -> np.ndarray:
    """How many equal keys come before each.

    >>> _copies(np.array([7, 5, 7, 7], dtype=np.uint64)).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(keys, kind="stable")
    places = np.arange(len(keys))
    firsts = np.flatnonzero(np.diff(keys[order], prepend=keys[order][:1] + np.uint64(1)))
    copies = np.empty(len(keys), dtype=np.int64)
    copies[order] = places - np.repeat(firsts, np.diff(np.append(firsts, len(keys))))
    return copies


class _Reading:
    """The pictures of a row group, read forward a slice at a time; the last ones are kept, so that rows read in order, or
    from a group that is not large, are read once."""

    def __init__(self, file: Path, leaf: str, group: int) -> None:
        import pyarrow.parquet as pq

        pages = Pages(file)
        self.most = max(MOST_KEPT, *(chunk.stored for chunk in pages.chunks(group, [leaf])), 0)
        self.opened = pq.ParquetFile(file, buffer_size=BUFFER)
        self.rows, _ = pages.slice(group, [leaf], MOST_AT_ONCE)
        self.group, self.leaf = group, leaf
        self.begin()

    def begin(self) -> None:
        """Read from the first row on."""
        self.left = self.opened.iter_batches(self.rows, [self.group], [self.leaf], use_threads=False)
        self.slices: deque[Any] = deque()
        self.first = self.end = self.bytes = 0

    def value(self, row: int) -> Any:
        """The picture's bytes in a row. Raises `IndexError` if there is no such row."""
        if row < self.first:
            self.begin()
        while row >= self.end:
            column = next(self.left).column(0)
            self.slices.append(column)
            self.end += len(column)
            self.bytes += column.nbytes
            while self.bytes > self.most and len(self.slices) > 1:
                gone = self.slices.popleft()
                self.first += len(gone)
                self.bytes -= gone.nbytes
        return self.slices[(row - self.first) // self.rows][(row - self.first) % self.rows].as_py()


class _Kept:
    """The row groups whose pictures were read last."""

    def __init__(self) -> None:
        self.readings: OrderedDict[tuple[Path, str, int, int, int], _Reading] = OrderedDict()
        self.lock = threading.Lock()

    def value(self, file: Path, leaf: str, group: int, row: int) -> Any:
        """The picture's bytes in a row, from memory or, if it is not there or the file has changed, from the file.

        Raises `OSError` if it can't be read.
        """
        import pyarrow as pa

        # An open file must not be shared by processes, so a process that was forked opens its own.
        place = (file, leaf, group, file.stat().st_mtime_ns, os.getpid())
        with self.lock:
            try:
                if place not in self.readings:
                    self.readings[place] = _Reading(file, leaf, group)
                self.readings.move_to_end(place)
                found = self.readings[place].value(row)
            except (pa.ArrowException, ValueError, OverflowError, MemoryError, StopIteration, DataError) as error:
                self.readings.pop(place, None)
                raise OSError(f"row group {group + 1} can't be read ({' '.join(str(error).split())[:200]})") from None
            while len(self.readings) > 1 and sum(reading.bytes for reading in self.readings.values()) > MOST_KEPT:
                self.readings.popitem(last=False)
            return found


_KEPT = _Kept()
