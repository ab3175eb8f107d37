"""Tables of the library `datasets` as samples: which columns are pictures, captions and names, and rows read when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captrain.data.arrow import plain_rows
from captrain.data.gathered import Texts
from captrain.data.options import ReadOptions
from captrain.data.places import Root
from captrain.data.readers.columns import texts_of
from captrain.data.samples import LazySamples, key_of
from captrain.data.shards.tars import tidy
from captrain.disk.reading import read_file
from captrain.errors import DataError, nearest
from captrain.records import Rejects, Sample
from captrain.tabular.cells import CAPTION_COLUMNS, caption_columns, no_caption, not_a_caption, sifted

if TYPE_CHECKING:
    from datasets import Dataset

IMAGE_COLUMNS = ("image", "img", "picture", "photo", "jpg", "png")
ID_COLUMNS = ("file_name", "filename", "key", "__key__", "id", "image_id")

Sifted = tuple[tuple[str, ...], tuple[str, ...]]  # captions of a row, and what stands in their cells and is none

_ROWS = 1000  # looked through at a time


class Cell:
    """The picture in one row of a table, read when it is asked for."""

    def __init__(self, table: Dataset, row: int, label: str, roots: tuple[Root, ...]) -> None:
        self.table, self.row, self.label, self.roots = table, row, label, roots

    def read(self) -> bytes:
        """The encoded picture. Raises `OSError` if its row has none, or names a file outside the data set."""
        (value,) = self.table[self.row].values()
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            return read_file(self._file(value))
        raise OSError("holds no picture")

    def _file(self, name: str) -> Path:
        for root in self.roots:
            path = root.folder / name
            if root.holds(str(path)) and path.is_file():
                return path
        raise OSError(f"names a file that is not in the data set: {name[:200]}")

    def __str__(self) -> str:
        return self.label

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and other.label == self.label

    def __hash__(self) -> int:
        return hash(self.label)


class RowSamples(LazySamples):
    """Some rows of a table."""

    def __init__(self, table: ImageTable, rows: np.ndarray) -> None:
        self.table, self.rows = table, rows

    def __len__(self) -> int:
        return len(self.rows)

    def keys(self) -> np.ndarray:
        return np.array([key_of(self.table.id_of(int(row))) for row in self.rows], dtype=np.uint64)

    def sample_at(self, index: int) -> Sample:
        return self.table.sample(int(self.rows[index]))


class ImageTable:
    """One split: its picture column, its caption column, and what its rows are called."""

    def __init__(self, table: Dataset, name: str, prefix: str, roots: tuple[Root, ...], options: ReadOptions) -> None:
        self.name, self.prefix, self.roots = name, prefix, roots
        image = _image_column(table, options, name)
        captions = _caption_columns(table, options.caption_column, name)
        _check(table, [image, *captions], name)
        self.images = _undecoded(table, image).select_columns([image])
        self.captions = table.select_columns(captions) if captions else None
        self.ids = _ids(table)
        self.wanted = f"column '{captions[0]}'" if captions else f"a column {' or '.join(CAPTION_COLUMNS[:5])}"

    def id_of(self, row: int) -> str:
        return self.prefix + (self.ids[row] if self.ids is not None else str(row))

    def sample(self, row: int) -> Sample:
        label = f"{self.name}[{row}]"
        captions: tuple[str, ...] = ()
        if self.captions is not None:
            captions, _ = _texts(self.captions[row].values(), label)
        return Sample(self.id_of(row), Cell(self.images, row, label, self.roots), captions, label)

    def usable(self, rejects: Rejects, captioned: bool) -> np.ndarray:
        """The rows that make samples; the others go to `rejects`."""
        kept = []
        for row, (pictured, (captions, odd)) in enumerate(zip(self._pictured(), self._captions(), strict=True)):
            where = f"{self.name}[{row}]"
            if not pictured:
                rejects.add(self.id_of(row), where, "holds no picture")
            elif captioned and not captions:
                rejects.add(self.id_of(row), where, no_caption(odd))
            else:
                kept.append(row)
                for text in odd if captioned else ():
                    rejects.add(self.id_of(row), where, not_a_caption(text))
        return np.array(kept, dtype=np.int64)

    def _pictured(self) -> Iterator[bool]:
        """For each row whether it has a picture, without a copy of any."""
        for batch in self.images.with_format("arrow").iter(_ROWS):
            column = batch.column(0).combine_chunks()
            kinds = {kind.name for kind in column.type} if hasattr(column.type, "get_field_index") else set()
            fields = [column.field(kind) for kind in ("bytes", "path") if kind in kinds] or [column]
            whole = np.asarray(column.is_valid())
            yield from whole & np.any([np.asarray(field.is_valid()) for field in fields], axis=0)

    def _captions(self) -> Iterator[Sifted]:
        if self.captions is None:
            yield from (((), ()),) * len(self.images)
            return
        row = 0
        for batch in self.captions.with_format("arrow").iter(_ROWS):
            for values in plain_rows(batch):
                yield _texts(values.values(), f"{self.name}[{row}]")
                row += 1


def _check(table: Dataset, columns: list[str], name: str) -> None:
    """Raise `DataError` if a column's offsets lead out of its file: they are followed in memory, unchecked."""
    try:
        for column in columns:
            table.data.column(column).validate(full=True)
    except (ValueError, OSError) as error:
        raise DataError(f"{name}: its table is broken ({str(error).splitlines()[0][:200]}); write it again") from None


def _image_column(table: Dataset, options: ReadOptions, name: str) -> str:
    """The picture column: the named one, the one of the kind Image, or one with a usual name."""
    from datasets import Image

    images = [column for column, kind in table.features.items() if isinstance(kind, Image)]
    if not options.image_column and len(images) == 1:
        return images[0]
    usual = [column for column in IMAGE_COLUMNS if column in images] or list(IMAGE_COLUMNS)
    column = _named(table, options.image_column, usual, "pictures", name)
    if column is None:
        columns = ", ".join(table.column_names[:12]) or "none"
        raise DataError(f"{name}: no picture column (columns: {columns}); --image-column says which one it is")
    return column


def _named(table: Dataset, wanted: str, usual: Sequence[str], what: str, name: str) -> str | None:
    """The wanted column, or the first that has a usual name; None if there is none."""
    columns = table.column_names
    if wanted and wanted not in columns:
        hint = nearest(wanted, columns)
        raise DataError(f"{name}: no column '{wanted}' for {what} (columns: {', '.join(columns[:12])}).{hint}")
    return wanted or next((column for column in usual if column in columns), None)


def _undecoded(table: Dataset, column: str) -> Dataset:
    """The table with pictures as bytes or paths."""
    from datasets import Image

    return table.cast_column(column, Image(decode=False)) if isinstance(table.features[column], Image) else table


def _ids(table: Dataset) -> Texts | None:
    """What an id column calls the rows; None if there is none whose values are all there, different and plain names."""
    for column in ID_COLUMNS:
        kind = getattr(table.features.get(column), "dtype", "")
        if column in table.column_names and kind in ("string", "large_string", "int32", "int64", "uint32", "uint64"):
            _check(table, [column], column)
            ids, keys = Texts(), set()
            for batch in table.select_columns([column]).with_format("arrow").iter(_ROWS):
                for value in batch.column(0).to_pylist():
                    name = None if value is None else tidy(str(value))
                    if name is not None:
                        keys.add(key_of(name))
                        ids.append(name)
            if len(keys) == len(table):
                return ids
    return None


def _caption_columns(table: Dataset, wanted: str, name: str) -> list[str]:
    """The columns of captions, in their order; none if the table has none. Raises `DataError` for a wanted one it has not."""
    if wanted in table.column_names:
        return [wanted]
    found = caption_columns((wanted.lower(),) if wanted else CAPTION_COLUMNS, tuple(table.column_names))
    if wanted and not found:
        _named(table, wanted, (), "captions", name)
    return list(found)


def _texts(cells: Iterable[Any], where: str) -> Sifted:
    """The captions in the cells of a row, and what stands there and is none."""
    return sifted(text for cell in cells for text in texts_of(cell, "captions", where))
