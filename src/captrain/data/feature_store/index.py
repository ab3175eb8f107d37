"""The index of a shard: an Arrow file with a row an image, in the order of the features, memory-mapped."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captrain.data.samples import key_of
from captrain.errors import DataError

COLUMNS = ("id", "captions", "source", "offset", "content", "key")


class Entry(NamedTuple):
    """What is known of one image beside its features. `content` is the key of its encoded bytes, 32 hexadecimal digits."""

    id: str
    captions: tuple[str, ...]
    source: str
    content: str


@dataclass(slots=True)
class IndexRows:
    """Rows of an index that is being made."""

    entries: list[Entry] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.entries)

    def captions(self) -> int:
        """How many captions."""
        return sum(len(entry.captions) for entry in self.entries)

    def bare(self) -> int:
        """How many images without captions."""
        return sum(not entry.captions for entry in self.entries)

    def to_bytes(self) -> bytes:
        """The Arrow file: the same bytes for the same rows."""
        import pyarrow as pa

        entries = self.entries
        columns = [
            pa.array([entry.id for entry in entries], pa.string()),
            pa.array([entry.captions for entry in entries], pa.list_(pa.string())),
            pa.array([entry.source for entry in entries], pa.string()),
            pa.array(np.arange(len(entries), dtype=np.uint32)),
            pa.array([bytes.fromhex(entry.content) for entry in entries], pa.binary(16)),
            pa.array(np.array([key_of(entry.id) for entry in entries], dtype=np.uint64)),
        ]
        batch = pa.record_batch(columns, names=list(COLUMNS))
        file = io.BytesIO()
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        return file.getvalue()


class Index:
    """An index to read from: columns `id`, `captions`, `source` (and `content`, `key`) of one Arrow table."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns = columns

    @classmethod
    def open(cls, path: Path, where: str, rows: int) -> Index:
        """Map an Arrow file. Raises `DataError` if it is broken or does not have `rows` rows."""
        import pyarrow as pa

        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all().combine_chunks()
            table.validate(full=True)  # offsets that lead out of the file would be followed, unchecked
            columns = {name: _only_chunk(table.column(name)) for name in COLUMNS}
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{where}: not an index that can be read ({reason}); encode its source again") from None
        if table.num_rows != rows:
            raise DataError(
                f"{where}: has {table.num_rows} rows, its manifest says {rows}; they are not of one store, encode again"
            )
        return cls(columns)

    def entry(self, row: int) -> Entry:
        """One image."""
        content = self.columns["content"][row].as_py() if "content" in self.columns else b""
        captions = self.columns["captions"][row].as_py() or ()
        return Entry(
            self.columns["id"][row].as_py(), tuple(captions), self.columns["source"][row].as_py(), content.hex()
        )

    def keys(self) -> np.ndarray:
        """`key_of` each id (rows,), uint64."""
        if "key" in self.columns:
            return np.asarray(self.columns["key"])
        return np.array([key_of(str(id)) for id in self.columns["id"].to_pylist()], dtype=np.uint64)

    def counts(self) -> np.ndarray:
        """Captions of each image (rows,)."""
        return np.diff(np.asarray(self.columns["captions"].offsets))


def _only_chunk(column: Any) -> Any:
    """A column of one record batch as a plain array."""
    import pyarrow as pa

    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
