"""Cached arrays of one shape, one for each picture under its content key: in memory, or in a feature store on disk.

A store holds either features (the encoder's output) or pixels (its input); it does not know which.

Tensors become the numbers that a shard holds, and back: numpy has no bf16, so its bits are stored.
"""

from __future__ import annotations

import logging
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captrain.data.feature_store.layout import (
    MANIFEST,
    Manifest,
    ShardNote,
    StoreFolder,
    features_file,
    index_file,
    record_file,
)
from captrain.data.feature_store.shard import NUMBERS, IndexEntry, IndexRows, ShardIndex, map_shard
from captrain.data.feature_store.store import remembered
from captrain.data.feature_store.writer import FeatureShard, read_record, records, remove_temporary, write_shard
from captrain.errors import DataError
from captrain.records import Rejects

logger = logging.getLogger(__name__)

LONGEST = 60.0  # seconds of work that are lost if the process is killed
OFFSETS = 32  # bits of a place for the row in its block or shard


class ArrayStore(ABC):
    """Rows by key, which is the `content` of an entry. `add` takes a batch; `rows` gives any rows in any order."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}

    def __contains__(self, key: object) -> bool:
        return key in self.index

    def __len__(self) -> int:
        return len(self.index)

    @abstractmethod
    def add(self, entries: Sequence[IndexEntry], arrays: Tensor) -> None:
        """Store arrays (len(entries), ...) under the keys of the entries."""

    @abstractmethod
    def rows(self, keys: Sequence[str]) -> Tensor:
        """The arrays of keys, (len(keys), ...)."""

    def flush(self) -> None:  # noqa: B027  # a store in memory has nothing to do
        """Write everything, so that a later run finds it."""

    def _note(self, block: int, keys: Sequence[str]) -> None:
        """Remember where the rows of a block or shard are."""
        for offset, key in enumerate(keys):
            self.index[key] = block << OFFSETS | offset

    def _place(self, key: str) -> tuple[int, int]:
        """The block or shard of a key, and its row there."""
        place = self.index[key]
        return place >> OFFSETS, place & (1 << OFFSETS) - 1


class MemoryStore(ArrayStore):
    """Arrays in memory, each batch one block: nothing is copied when the store grows."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[Tensor] = []

    def add(self, entries: Sequence[IndexEntry], arrays: Tensor) -> None:
        """Store a batch as one block."""
        self._note(len(self.blocks), [entry.content for entry in entries])
        self.blocks.append(arrays)

    def rows(self, keys: Sequence[str]) -> Tensor:
        """Rows from their blocks."""
        places = map(self._place, keys)
        return torch.stack([self.blocks[block][offset] for block, offset in places])


class DiskStore(ArrayStore):
    """Arrays in a feature store of the form that `captrain encode` writes; this one may grow.

    Several processes may add to one folder. Each writes shards under its own names, and leaves a record of each finished shard,
    by which the shard is found after a crash. The manifest, for readers of the folder as a store, is rewritten from all
    records now and then.
    """

    def __init__(self, folder: Path, manifest: Manifest, shape: Sequence[int]) -> None:
        """Open the store in `folder`, or create it.

        Args:
            manifest: what all shards have in common. shape: of one array; as features it is (tokens, width).
        """
        super().__init__()
        self.folder = StoreFolder(str(folder))
        self.manifest = manifest
        self.shape = tuple(shape)
        self.shards: list[ShardNote] = []
        self.records: dict[str, ShardNote | None] = {}  # records by file; None for broken ones
        self.mapped: dict[int, np.ndarray] = {}
        self.waiting = IndexRows()
        self.blocks: list[np.ndarray] = []
        self.begun = 0.0
        self.told = -LONGEST
        remove_temporary(self.folder, alone=False)
        for shard, keys in self._found():
            self._note(len(self.shards), keys)
            self.shards.append(shard)

    def add(self, entries: Sequence[IndexEntry], arrays: Tensor) -> None:
        """Add a batch; a shard is written when it is full, or after a minute."""
        features = self.manifest.features
        if not self.blocks:
            self.begun = time.monotonic()
        for offset, entry in enumerate(entries, len(self.waiting)):
            self.index[entry.content] = len(self.shards) << OFFSETS | offset
        self.waiting.entries.extend(entries)
        self.blocks.append(as_numbers(arrays).reshape(len(entries), features.tokens, features.width))
        if len(self.waiting) >= self.manifest.shard_images or time.monotonic() - self.begun > LONGEST:
            self._write()

    def flush(self) -> None:
        """Write what is waiting, and a manifest of everything."""
        if self.blocks:
            self._write()
            self._tell()

    def rows(self, keys: Sequence[str]) -> Tensor:
        """Rows from their shards; only these rows are read, and each is copied once."""
        self.flush()
        features = self.manifest.features
        made = np.empty((len(keys), features.tokens, features.width), NUMBERS[features.dtype][1])
        for row, (part, offset) in enumerate(map(self._place, keys)):
            made[row] = remembered(self.mapped, part, self._map)[offset]
        return as_tensor(made, features.dtype).view(-1, *self.shape)

    def _write(self) -> None:
        """Write what is waiting as one shard, under a name that no other process uses."""
        name = f"{len(self.shards):05d}-{secrets.token_hex(8)}"
        shard = FeatureShard(name, "all", "kept", "", 0, True, self.waiting, self.blocks, Rejects())
        self.shards.append(write_shard(self.folder, self.manifest.features, shard))
        self.waiting, self.blocks = IndexRows(), []
        if time.monotonic() - self.told > LONGEST:
            self._tell()

    def _tell(self) -> None:
        """Write the manifest of all records. If there are several writers, the last one to do so sees the records of all."""
        told: list[ShardNote] | None = None
        while (found := self._whole()) != told:
            self.folder.write(MANIFEST, [self.manifest.with_shards(found).to_json()])
            told = found
        self.told = time.monotonic()

    def _whole(self) -> list[ShardNote]:
        """The records of all shards, other writers' too. A broken one is reported once and left out."""
        found = []
        for record in records(self.folder):
            if record not in self.records:
                try:
                    self.records[record] = read_record(self.folder, record)
                except DataError as error:
                    logger.warning("%s; its pictures are computed again", error)
                    self.records[record] = None
            if (shard := self.records[record]) is not None:
                found.append(shard)
        return found

    def _found(self) -> Iterator[tuple[ShardNote, list[str]]]:
        """The shards on disk, with their keys."""
        for shard in self._whole():
            try:
                self._open(shard)
                path = self.folder.local(index_file(shard.name), shard.index)
                yield shard, ShardIndex.open(path, self.folder.where(index_file(shard.name)), shard.images).contents()
            except DataError as error:
                logger.warning("%s; its pictures are computed again", error)
                self.records[record_file(shard.name)] = None

    def _open(self, shard: ShardNote) -> np.ndarray:
        name = features_file(shard.name)
        path = self.folder.local(name, shard.features)
        return map_shard(path, self.folder.where(name), shard.images, self.manifest.features)

    def _map(self, part: int) -> np.ndarray:
        return self._open(self.shards[part])

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes, without open files."""
        self.flush()
        return {**self.__dict__, "mapped": {}}


def as_numbers(tensor: Tensor) -> np.ndarray:
    """A tensor as an array on the CPU; bf16 as its bits in uint16.

    >>> as_numbers(torch.tensor([1.0, 2.0], dtype=torch.bfloat16)).tolist()
    [16256, 16384]
    """
    found = tensor.detach().cpu().contiguous()
    return (found.view(torch.uint16) if found.dtype == torch.bfloat16 else found).numpy()


def as_tensor(numbers: np.ndarray, dtype: str) -> Tensor:
    """An array as a tensor of a dtype on the same memory; the inverse of `as_numbers`.

    >>> as_tensor(np.array([16256, 16384], np.uint16), "bfloat16").tolist()
    [1.0, 2.0]
    """
    found = torch.from_numpy(numbers)
    return found.view(torch.bfloat16) if dtype == "bfloat16" else found
