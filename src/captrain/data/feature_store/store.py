"""A feature store that is open for reading: samples out of its indexes, numbers out of its mapped shards. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from captrain.data.feature_store.layout import (
    LARGEST,
    MANIFEST,
    EncoderNote,
    FeaturesNote,
    StoreFolder,
    features_file,
    index_file,
    parse_manifest,
)
from captrain.data.feature_store.shard import IndexEntry, ShardIndex, map_shard
from captrain.data.samples import LazySamples, key_of
from captrain.errors import DataError
from captrain.records import Sample

OPEN_SHARDS = 8192  # mapped at a time, below what systems allow a process


@dataclass(frozen=True, slots=True)
class StorePart:
    """One shard as a reader sees it: how many images, how many of them have no captions, and its split."""

    images: int
    captions: int
    bare: int
    split: str


class VectorStore(ABC):
    """Shards of features with an index each; both are opened when they are asked for and can travel to other processes."""

    def __init__(self, label: str, features: FeaturesNote, parts: list[StorePart]) -> None:
        self.label = label
        self.features = features
        self.parts = parts
        self._vectors: dict[int, np.ndarray] = {}
        self._indexes: dict[int, ShardIndex] = {}

    @property
    @abstractmethod
    def encoder(self) -> EncoderNote | None:
        """Whose features these are; None if the store does not say."""

    @property
    @abstractmethod
    def preparation(self) -> dict[str, Any] | None:
        """How pictures were prepared; None if the store does not say."""

    @abstractmethod
    def open_index(self, part: int) -> ShardIndex:
        """A shard's index."""

    @abstractmethod
    def open_vectors(self, part: int) -> np.ndarray:
        """A shard's numbers (images, N, D), mapped; bf16 as bits."""

    def index(self, part: int) -> ShardIndex:
        """A shard's index, opened once."""
        return remembered(self._indexes, part, self.open_index)

    def vectors(self, part: int) -> np.ndarray:
        """A shard's numbers, mapped once."""
        return remembered(self._vectors, part, self.open_vectors)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_vectors": {}, "_indexes": {}}


class FeatureStore(VectorStore):
    """What `captrain encode` wrote."""

    def __init__(self, place: str) -> None:
        """Open a store. Raises `DataError` if it is not one, is not finished, or its files have other sizes than stated."""
        self.folder = StoreFolder(place)
        where = self.folder.where(MANIFEST)
        self.manifest = parse_manifest(self.folder.read(MANIFEST, LARGEST), where)
        if not self.manifest.complete:
            raise DataError(
                f"{self.folder.label}: this store is not finished; run the captrain encode that began it again"
            )
        self.shards = [shard for shard in self.manifest.shards if shard.images]
        parts = [StorePart(shard.images, shard.captions, shard.bare, shard.split) for shard in self.shards]
        super().__init__(self.folder.label, self.manifest.features, parts)
        if not self.folder.remote:
            self.check_sizes()

    @property
    def encoder(self) -> EncoderNote:
        return self.manifest.encoder

    @property
    def preparation(self) -> dict[str, Any]:
        return self.manifest.preparation

    def check_sizes(self) -> None:
        """Raise `DataError` if a shard is not there or does not have the bytes that the manifest states."""
        for shard in self.shards:
            name = features_file(shard.name)
            if (size := self.folder.size(name)) != shard.bytes:
                raise DataError(
                    f"{self.folder.where(name)}: has {size} bytes, the manifest says {shard.bytes}; copy it again, or "
                    "encode its source again (captrain features verify finds all such shards)"
                )

    def open_index(self, part: int) -> ShardIndex:
        """A shard's Arrow file."""
        shard = self.shards[part]
        name = index_file(shard.name)
        return ShardIndex.open(self.folder.local(name, shard.index), self.folder.where(name), shard.images)

    def open_vectors(self, part: int) -> np.ndarray:
        """A shard's safetensors file."""
        shard = self.shards[part]
        name = features_file(shard.name)
        path = self.folder.local(name, shard.features)
        return map_shard(path, self.folder.where(name), shard.images, self.features)


@dataclass(frozen=True, slots=True)
class StoredFeatures:
    """In place of a sample's picture: only its features exist, in a store."""

    label: str

    def read(self) -> bytes:
        """Raises `OSError`: the picture was not kept."""
        raise OSError("is in a feature store, which holds features and no pictures")

    def __str__(self) -> str:
        return self.label


class StoreSamples(LazySamples):
    """The samples of some shards of a store, one shard after another.

    `prefix` begins every id where several stores are used together.
    """

    def __init__(self, store: VectorStore, parts: list[int], prefix: str = "") -> None:
        self.store, self.parts, self.prefix = store, parts, prefix
        self.ends = list(accumulate(store.parts[part].images for part in parts))
        self._shards = np.array(parts, dtype=np.int64)
        self._limits = np.array([0, *self.ends], dtype=np.int64)

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def place(self, index: int) -> tuple[int, int]:
        """The shard of a sample, and its row there."""
        number = bisect_right(self.ends, index)
        return self.parts[number], index - (self.ends[number - 1] if number else 0)

    def places(self, indexes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The shards of samples, and their rows there (both (samples,))."""
        numbers = np.searchsorted(self._limits, indexes, side="right") - 1
        return self._shards[numbers], indexes - self._limits[numbers]

    def entry(self, index: int) -> IndexEntry:
        """What the index says of a sample."""
        part, row = self.place(index)
        return self.store.index(part).entry(row)

    def sample_at(self, index: int) -> Sample:
        entry = self.entry(index)
        image = StoredFeatures(f"{self.store.label}/{entry.id}")
        return Sample(self.prefix + entry.id, image, entry.captions, entry.source)

    def keys(self) -> np.ndarray:
        """`key_of` each id as the store has it, mixed with the prefix if there is one: no id is read for that."""
        keys = [np.empty(0, np.uint64), *(self.store.index(part).keys() for part in self.parts)]
        return np.concatenate(keys) ^ np.uint64(key_of(self.prefix) if self.prefix else 0)

    def ids(self) -> Iterator[str]:
        return (self.prefix + id for part in self.parts for id in self.store.index(part).ids())

    def contents(self) -> Iterator[str] | None:
        if not isinstance(self.store, FeatureStore):
            return None
        return (content for part in self.parts for content in self.store.index(part).contents())

    def counts(self) -> np.ndarray:
        """Captions of each sample (samples,)."""
        return np.concatenate([np.empty(0, np.int64), *(self.store.index(part).counts() for part in self.parts)])


def remembered(cache: dict[int, Any], number: int, make: Callable[[int], Any]) -> Any:
    """A cached object, made if it is not there; the oldest is dropped if there are too many."""
    if number not in cache:
        if len(cache) >= OPEN_SHARDS:
            del cache[next(iter(cache))]
        cache[number] = make(number)
    return cache[number]
