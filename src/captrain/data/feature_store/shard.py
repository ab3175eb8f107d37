"""The two files of a shard, both memory-mapped: an Arrow index with one row per image, and the features in the same order.

The features are one tensor in a safetensors file, written and mapped without torch.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captrain.data.arrow import check_file
from captrain.data.feature_store.layout import FeaturesNote
from captrain.data.samples import key_of
from captrain.disk.reading import open_file
from captrain.errors import DataError

COLUMNS = {
    "id": "string",
    "captions": "list<item: string>",
    "source": "string",
    "offset": "uint32",
    "content": "fixed_size_binary[16]",
    "key": "uint64",
}
"""Names and types of the columns."""


class IndexEntry(NamedTuple):
    """What is known of one image besides its features. `content` is the key of its encoded bytes, 32 hexadecimal digits."""

    id: str
    captions: tuple[str, ...]
    source: str
    content: str


@dataclass(slots=True)
class IndexRows:
    """Rows of an index that is being made."""

    entries: list[IndexEntry] = field(default_factory=list)

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


class ShardIndex:
    """An index to read from: columns `id`, `captions`, `source` (and `content`, `key`) of one Arrow table.

    A column is read, and checked, when it is first asked for: opening an index costs the same whatever the size of its captions.
    """

    def __init__(self, columns: dict[str, Any], where: str = "") -> None:
        self.columns = columns
        self.where = where
        self._checked: dict[str, Any] = {}

    @classmethod
    def open(cls, path: Path, where: str, rows: int) -> ShardIndex:
        """Map an Arrow file. Raises `DataError` if it is broken or does not have `rows` rows."""
        import pyarrow as pa

        try:
            check_file(path)
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
            table.validate()
            columns = {name: table.column(name) for name in COLUMNS}
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise _broken(where, error) from None
        found = {name: str(column.type) for name, column in columns.items()}
        if found != COLUMNS:
            raise _broken(where, f"its columns are {found}, expected {COLUMNS}")
        if any(column.num_chunks > 1 for column in columns.values()):
            raise _broken(where, "it is in several pieces, expected one")
        if table.num_rows != rows:
            raise DataError(
                f"{where}: has {table.num_rows} rows, its manifest says {rows}; they are not of one store, encode again"
            )
        return cls(columns, where)

    def entry(self, row: int) -> IndexEntry:
        """One image. Raises `DataError` if the index is broken, as the other methods do."""
        content = self._column("content")[row].as_py() if "content" in self.columns else b""
        captions = self._column("captions")[row].as_py() or ()
        return IndexEntry(
            self._column("id")[row].as_py(), tuple(captions), self._column("source")[row].as_py(), content.hex()
        )

    def ids(self) -> list[str]:
        """Ids of all images."""
        return [str(id) for id in self._column("id").to_pylist()]

    def contents(self) -> list[str]:
        """Content keys of all images, 32 hexadecimal digits each."""
        return [content.hex() for content in self._column("content").to_pylist()]

    def captions(self, rows: np.ndarray) -> list[str]:
        """All captions of some images, in their order: much faster than an entry each."""
        found: list[str] = self._column("captions").take(rows).flatten().to_pylist()
        return found

    def keys(self) -> np.ndarray:
        """`key_of` each id (rows,), uint64. Nothing else of the index is read."""
        if "key" in self.columns:
            return np.asarray(self._column("key"))
        return np.array([key_of(id) for id in self.ids()], dtype=np.uint64)

    def counts(self) -> np.ndarray:
        """Captions of each image (rows,). No caption is read for that."""
        counts = np.diff(np.asarray(_whole(self.columns["captions"]).offsets))
        if counts.min(initial=0) < 0:
            raise _broken(self.where, "captions end before they begin")
        return counts

    def _column(self, name: str) -> Any:
        """A column as one array, checked: offsets that lead out of the file would be followed otherwise."""
        if name not in self._checked:
            import pyarrow as pa

            column = _whole(self.columns[name])
            try:
                column.validate(full=True)
            except (pa.ArrowException, ValueError) as error:
                raise _broken(self.where, error) from None
            if column.null_count and name != "captions":
                raise _broken(self.where, f"column {name} has gaps")
            self._checked[name] = column
        return self._checked[name]


def _whole(column: Any) -> Any:
    """A column of one piece, or of none, as a plain array."""
    import pyarrow as pa

    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _broken(where: str, reason: object) -> DataError:
    shown = " ".join(str(reason).split())[:200]
    return DataError(f"{where}: not an index that can be read ({shown}); encode its source again")


TENSOR = "features"
LARGEST_HEADER = 1 << 20

NUMBERS = {
    "bfloat16": ("BF16", np.uint16),
    "float16": ("F16", np.float16),
    "float32": ("F32", np.float32),
    "uint8": ("U8", np.uint8),
}
"""Kind of number → its name in safetensors, and how numpy holds it: it has no bf16, so that comes as bits."""


def shard_header(images: int, features: FeaturesNote) -> bytes:
    """The header: a length and a JSON object, padded to a multiple of 64 so that rows are aligned."""
    shape = [images, features.tokens, features.width]
    tensor = {"dtype": NUMBERS[features.dtype][0], "shape": shape, "data_offsets": [0, images * features.row_bytes]}
    text = json.dumps({TENSOR: tensor}).encode()
    text += b" " * (-(len(text) + 8) % 64)
    return len(text).to_bytes(8, "little") + text


def map_shard(path: Path, where: str, images: int, features: FeaturesNote) -> np.ndarray:
    """A shard's numbers (images, N, D), read when they are looked at; bf16 as uint16 bits.

    Raises `DataError` if the file is not what the manifest says.
    """
    expected = shard_header(images, features)
    try:
        with open_file(path) as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(min(length, LARGEST_HEADER))
        size = path.stat().st_size
    except OSError as error:
        raise DataError(
            f"{where}: can't be read ({error.strerror}); copy it again, or encode its source again"
        ) from None
    found = _tensor(header)
    begin, end = 8 + length, 8 + length + images * features.row_bytes
    if found != _tensor(expected[8:]) or size != end:
        raise DataError(
            f"{where}: holds {size} bytes of {json.dumps(found)[:200] if found else 'no features'}, its manifest says "
            f"{images} x {features}; copy it again, or encode its source again"
        )
    shape = (images, features.tokens, features.width)
    mapped = np.memmap(path, NUMBERS[features.dtype][1], "r", begin, shape)
    return np.asarray(mapped)  # a plain array on the same pages: each row of a memmap would cost a Python call


def checksum(path: Path) -> str:
    """SHA-256 of a file, as `sha256sum` prints it."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensor(header: bytes) -> dict[str, object] | None:
    """What a header says of the features."""
    try:
        found = json.loads(header)
        return dict(found[TENSOR])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
