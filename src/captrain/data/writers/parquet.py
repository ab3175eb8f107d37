"""Parquet files of images and captions, which `datasets.load_dataset` shows as pictures: columns `image` and `captions`.

Files are called `00000.parquet`, or `train-00000.parquet` and so on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from captrain.data.writers import FormTarget, OutputSample
from captrain.data.writers.safe_names import Names
from captrain.disk.writing import create

GROUP_ROWS = 100  # rows of a row group, as the hub advises for images: a reader holds one group in memory
GROUP_BYTES = 64 << 20  # a group with large images is closed earlier

_FEATURES = {
    "image": {"_type": "Image"},
    "captions": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"},
}
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("captions", pa.list_(pa.string())),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


class Parquet:
    """Writes the form."""

    packs_images = True
    keeps_repeats = False
    keeps_machine = False

    def __init__(self, target: FormTarget) -> None:
        self.target = target
        self.names = Names(target.losses)
        self.files: dict[str, ParquetFile] = {}  # the file of each split that is being written
        self.counts: dict[str, int] = {}

    def put(self, item: OutputSample) -> None:
        """Add a row to the split's file."""
        name = self.names.of(item)
        self._file(item.split).add(name, item.picture.read(), item.captions)

    def close(self) -> None:
        """Complete the files."""
        for file in self.files.values():
            file.close()

    def _file(self, split: str) -> ParquetFile:
        """The file that the next row of a split goes to."""
        count = self.counts.get(split, 0)
        self.counts[split] = count + 1
        number, place = divmod(count, self.target.shard_size)
        if place == 0:
            if split in self.files:
                self.files[split].close()
            begin = "" if split == "all" else f"{split}-"
            self.files[split] = ParquetFile(self.target.folder / f"{begin}{number:05d}.parquet")
        return self.files[split]


class ParquetFile:
    """One file, written a row group at a time."""

    def __init__(self, path: Path) -> None:
        self.file = create(path)
        self.writer = pq.ParquetWriter(self.file, SCHEMA)
        self.rows: list[dict[str, Any]] = []
        self.bytes = 0

    def add(self, name: str, data: bytes, captions: tuple[str, ...]) -> None:
        """Add a row; write a group when there is enough."""
        self.rows.append({"image": {"bytes": data, "path": name}, "captions": list(captions)})
        self.bytes += len(data)
        if len(self.rows) == GROUP_ROWS or self.bytes >= GROUP_BYTES:
            self._write()

    def close(self) -> None:
        """Write the rest, and the end of the file."""
        if self.rows:
            self._write()
        self.writer.close()
        self.file.close()

    def _write(self) -> None:
        self.writer.write_table(pa.Table.from_pylist(self.rows, SCHEMA))
        self.rows, self.bytes = [], 0
