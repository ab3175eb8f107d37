"""Feature stores that `captrain encode` wrote, and embedding folders of clip-retrieval: captions with features, no pictures.

The source is a store's folder or URL, or several with commas between them. Opening one reads its manifest; captions are
read from the index when a sample is asked for. Of several stores, ids begin with the store's name.

clip-retrieval writes `img_emb/img_emb_0.npy` and `metadata/metadata_0.parquet`, and so on. An array has a row an image (images,
D); its table has columns `image_path` and `caption`, perhaps more. Nothing in them says which encoder made them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from captrain.data.arrow import plain_rows
from captrain.data.feature_store.layout import FORMAT, MANIFEST, EncoderNote, FeaturesNote, StoreFolder
from captrain.data.feature_store.shard import ShardIndex
from captrain.data.feature_store.store import FeatureStore, StorePart, StoreSamples, VectorStore
from captrain.data.parquet_pages import Pages
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.safe_paths import is_remote
from captrain.data.samples import ChosenSamples, JoinedSamples
from captrain.data.shards.remote import BACKENDS, path_of
from captrain.data.shards.sources import split_list
from captrain.disk.reading import open_file
from captrain.errors import DataError
from captrain.limits import LONGEST_CAPTION
from captrain.records import Rejects, Sample

_LOOKED_AT = 1 << 16  # bytes of a manifest that hold its mark: keys are sorted, and "format" comes before "shards"


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a feature store or an embedding folder, or names several with commas."""
    parts = split_list(source)
    return bool(parts) and all(is_store(part) for part in parts)


def is_store(place: str) -> bool:
    """Whether a feature store or an embedding folder is at a path or URL; never raises."""
    if not is_remote(place):
        return _has_mark(os.path.join(place, MANIFEST)) or is_embedding_folder(place)
    if (
        place.partition("://")[0] not in BACKENDS
        or place.startswith("hf://")
        or "." in path_of(place).rpartition("/")[2]
    ):
        return False
    try:
        return StoreFolder(place).exists(MANIFEST)
    except DataError:
        return False


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All samples of the stores, by split, in the order of their shards.

    Rejected are images without captions. Raises `DataError` if a store is not one or not finished, if stores do not hold the
    same kind of features, or if nothing is left.
    """
    places = split_list(source)
    stores = open_stores(places)
    parts: dict[str, list[Sequence[Sample]]] = {}
    for store, prefix in zip(stores, _prefixes(places), strict=True):
        for split in dict.fromkeys(part.split for part in store.parts):
            numbers = [number for number, part in enumerate(store.parts) if part.split == split]
            samples = _captioned(StoreSamples(store, numbers, prefix), rejects) if captioned else None
            samples = StoreSamples(store, numbers, prefix) if samples is None else samples
            if len(samples):
                parts.setdefault(split, []).append(samples)
    if not parts:
        problem = rejects.summary() if rejects else "no images in it"
        raise DataError(f"{source}: nothing to use ({problem}); expected features of images with captions")
    return {split: some[0] if len(some) == 1 else JoinedSamples(some) for split, some in parts.items()}


def open_stores(places: Sequence[str]) -> list[VectorStore]:
    """Stores that can be used together. Raises `DataError` naming the first two that differ."""
    stores: list[VectorStore] = [
        EmbeddingFolder(place) if not is_remote(place) and is_embedding_folder(place) else FeatureStore(place)
        for place in places
    ]
    for store in stores[1:]:
        check_alike(stores[0], store)
    return stores


def check_alike(one: VectorStore, other: VectorStore) -> None:
    """Raise `DataError` unless two stores hold features of one encoder, made in one way, in one form."""
    kinds = {
        "encoder": (one.encoder and one.encoder.weights, other.encoder and other.encoder.weights),
        "preparation": (one.preparation, other.preparation),
        "features": (one.features, other.features),
    }
    shown = {"encoder": (one.encoder, other.encoder), "preparation": (one.preparation, other.preparation)}
    for name, (first, second) in kinds.items():
        if first != second:
            mine, its = shown.get(name, (first, second))
            raise DataError(
                f"{other.label}: its {name} is {its or 'not known'}, that of {one.label} is {mine or 'not known'}; stores "
                "that are used together must be alike, encode one again"
            )


def _captioned(samples: StoreSamples, rejects: Rejects) -> Sequence[Sample]:
    """The samples that have captions; the others are rejected. Where all have some, no index is opened."""
    if not any(samples.store.parts[part].bare for part in samples.parts):
        return samples
    counts = samples.counts()
    for index in np.flatnonzero(counts == 0):
        sample = samples[int(index)]
        rejects.add(sample.id, str(sample.image), "has no caption")
    return ChosenSamples(samples, np.flatnonzero(counts))


def _prefixes(places: Sequence[str]) -> list[str]:
    """What ids of each store begin with: nothing for one store, else its name, with a number where that is taken.

    >>> _prefixes(["a/one"]), _prefixes(["a/one", "b/one"])
    ([''], ['one/', 'one-2/'])
    """
    if len(places) == 1:
        return [""]
    names: list[str] = []
    for place in places:
        name = path_of(place).rstrip("/").rpartition("/")[2] or "store"
        number = 2
        wanted = name
        while wanted in names:
            wanted, number = f"{name}-{number}", number + 1
        names.append(wanted)
    return [f"{name}/" for name in names]


def _has_mark(path: str) -> bool:
    try:
        with open_file(path) as file:
            return f'"{FORMAT}"'.encode() in file.read(_LOOKED_AT)
    except (OSError, ValueError):
        return False


ARRAYS, TABLES = "img_emb", "metadata"
IDS = ("key", "image_path", "url")
CAPTIONS = "caption"
ROWS = 4096  # read at a time
KINDS = {"float16": "float16", "float32": "float32"}


def is_embedding_folder(place: str) -> bool:
    """Whether a folder has arrays and tables as clip-retrieval names them; never raises."""
    return os.path.isdir(os.path.join(place, TABLES)) and bool(_numbers(place))


class EmbeddingFolder(VectorStore):
    """An embedding folder to read from, as if it were a feature store with one vector per image."""

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
            parts.append(StorePart(len(array), len(array) - bare, bare, "all"))
        super().__init__(place, features, parts)

    def open_index(self, part: int) -> ShardIndex:
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

    def _table(self, number: str, rows: int) -> ShardIndex:
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
        return ShardIndex(
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
