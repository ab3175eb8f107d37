"""Embedding folders as clip-retrieval writes them: `img_emb/img_emb_0.npy` and `metadata/metadata_0.parquet`, and so on.

An array has a row an image (images, D); its table has columns `image_path` and `caption`, perhaps more. Nothing in them says
which encoder made them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from captrain.data.arrow import plain_rows
from captrain.data.feature_store.manifest import EncoderNote, FeaturesNote
from captrain.data.feature_store.shard import Index
from captrain.data.feature_store.store import Part, VectorStore
from captrain.data.parquet_pages import Pages
from captrain.errors import DataError
from captrain.limits import LONGEST_CAPTION

ARRAYS, TABLES = "img_emb", "metadata"
IDS = ("key", "image_path", "url")
CAPTIONS = "caption"
ROWS = 4096  # read at a time
KINDS = {"float16": "float16", "float32": "float32"}


def is_embedding_folder(place: str) -> bool:
    """Whether a folder has arrays and tables as clip-retrieval names them; never raises."""
    return os.path.isdir(os.path.join(place, TABLES)) and bool(_numbers(place))


class EmbeddingFolder(VectorStore):
    """An embedding folder to read from, as if it were a feature store with one vector an image."""

    encoder: EncoderNote | None = None
    preparation: dict[str, Any] | None = None

    def __init__(self, place: str) -> None:
        """Open a folder: the header of each array and the number of rows of each table."""
        self.root = Path(place)
        self.numbers = _numbers(place)
        arrays = [self._array(number) for number in self.numbers]
        shapes = {(array.shape[1], array.dtype.name) for array in arrays}
        if len(shapes) != 1:
            found = ", ".join(f"{width} {kind}" for width, kind in sorted(shapes)) or "no arrays"
            raise DataError(f"{place}/{ARRAYS}: found {found}; expected arrays of one width and kind of number")
        ((width, kind),) = shapes
        features = FeaturesNote(tokens=1, width=width, dtype=KINDS[kind], vectors="pooled")
        parts = []
        for number, array in zip(self.numbers, arrays, strict=True):
            bare = int((self._table(number, len(array)).counts() == 0).sum())
            parts.append(Part(len(array), len(array) - bare, bare, "all"))
        super().__init__(place, features, parts)

    def open_index(self, part: int) -> Index:
        """A table's ids and captions, in memory."""
        return self._table(self.numbers[part], self.parts[part].images)

    def open_vectors(self, part: int) -> np.ndarray:
        """An array, mapped, as (images, 1, D)."""
        return np.asarray(self._array(self.numbers[part]))[:, None]

    def _array(self, number: str) -> np.ndarray:
        path = self.root / ARRAYS / f"{ARRAYS}_{number}.npy"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (
            Exception
        ) as error:  # of every kind: numpy reads a header as Python's tokens, which has errors of its own
            raise DataError(f"{path}: not an array that can be read ({' '.join(str(error).split())[:200]})") from None
        if array.ndim != 2 or array.dtype.name not in KINDS or array.shape[1] == 0:
            raise DataError(f"{path}: found {array.shape} {array.dtype}; expected (images, width) float16 or float32")
        return array

    def _table(self, number: str, rows: int) -> Index:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.root / TABLES / f"{TABLES}_{number}.parquet"
        try:
            names = pq.read_schema(path).names
            ids = next((name for name in IDS if name in names), "")
            found = sum(Pages(path).rows)
            if found != rows:
                raise DataError(f"{path}: has {found} rows, its array has {rows}; expected a row a vector")
            wanted = [name for name in (ids, CAPTIONS) if name in names]
            named, texts = _columns(path, ids, wanted)
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
            raise DataError(f"{path}: not a table that can be read ({' '.join(str(error).split())[:200]})") from None
        if wanted and len(texts) != rows:  # what its footer counts and what its pages hold
            raise DataError(f"{path}: has {len(texts)} rows, and says {rows}; copy it again")
        named = named if ids else [f"{number}/{row}" for row in range(rows)]
        texts = texts or [[] for _ in range(rows)]
        return Index(
            {
                "id": pa.array(named, pa.string()),
                "captions": pa.array(texts, pa.list_(pa.string())),
                "source": pa.array([f"{path.name}:{row + 1}" for row in range(rows)], pa.string()),
            }
        )


def _columns(path: Path, ids: str, wanted: list[str]) -> tuple[list[str], list[list[str]]]:
    """The ids and captions of a table, decoded in slices of bounded memory; a caption that is too long for one is left out."""
    import pyarrow.parquet as pq

    named, texts = [], []
    with pq.ParquetFile(path) as parquet:
        for groups, most in Pages(path).slices(wanted, ROWS) if wanted else ():
            for batch in parquet.iter_batches(most, groups, wanted):
                for row in plain_rows(batch):
                    text = row.get(CAPTIONS)
                    text = text.strip() if isinstance(text, str) and len(text) <= LONGEST_CAPTION else ""
                    named.append(str(row.get(ids)))
                    texts.append([text] if text else [])
    return named, texts


def _numbers(place: str) -> list[str]:
    """What tells the arrays of a folder apart, in numerical order."""
    try:
        names = os.listdir(os.path.join(place, ARRAYS))
    except (OSError, ValueError):
        return []
    found = [match[1] for name in names if (match := re.fullmatch(rf"{ARRAYS}_(\d{{1,12}})\.npy", name))]
    return sorted(found, key=int)
