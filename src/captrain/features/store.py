"""Arrays of one shape, one a picture, kept under the picture's content key: in memory, or in memory-mapped files.

A store holds either features (what the encoder made) or pixels (what it would see); it does not know which.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

logger = logging.getLogger(__name__)

ARRAYS = "arrays"


class Store(ABC):
    """Rows by key. `add` takes a batch; `rows` gives any rows as one tensor, in the order asked for."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}

    def __contains__(self, key: object) -> bool:
        return key in self.index

    def __len__(self) -> int:
        return len(self.index)

    @abstractmethod
    def add(self, keys: Sequence[str], arrays: Tensor) -> None:
        """Keep arrays (len(keys), ...) under their keys."""

    @abstractmethod
    def rows(self, keys: Sequence[str]) -> Tensor:
        """The arrays of keys, (len(keys), ...)."""


class MemoryStore(Store):
    """Arrays in memory, in blocks as they came: nothing is copied when the store grows."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[Tensor] = []
        self.places: list[tuple[int, int]] = []

    def add(self, keys: Sequence[str], arrays: Tensor) -> None:
        """Keep a batch as one block."""
        for offset, key in enumerate(keys):
            self.index[key] = len(self.places)
            self.places.append((len(self.blocks), offset))
        self.blocks.append(arrays)

    def rows(self, keys: Sequence[str]) -> Tensor:
        """Rows from their blocks."""
        places = [self.places[self.index[key]] for key in keys]
        return torch.stack([self.blocks[block][offset] for block, offset in places])


class DiskStore(Store):
    """Arrays in safetensors shards of one batch each, memory-mapped; what was finished before a crash is found again.

    A shard holds the arrays and, in its header, their keys; its name is a digest of the keys, so that several runs can add to one
    folder. It is written under a temporary name and renamed, so that a shard that can be seen is whole.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.shards: list[Path] = []
        self.places: list[tuple[int, int]] = []
        self.opened: dict[int, Tensor] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for shard in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(shard, framework="pt") as file:
                    self._note(shard, json.loads(file.metadata()["keys"]))
            except (SafetensorError, OSError, KeyError, TypeError, ValueError):
                logger.warning("%s: can't be read; its pictures are computed again", shard)

    def add(self, keys: Sequence[str], arrays: Tensor) -> None:
        """Write a batch as one shard."""
        digest = hashlib.blake2b(" ".join(keys).encode(), digest_size=16).hexdigest()
        shard = self.folder / f"{digest}.safetensors"
        temporary = shard.with_suffix(f".{os.getpid()}.tmp")
        try:
            save_file({ARRAYS: arrays.contiguous()}, temporary, metadata={"keys": json.dumps(list(keys))})
            os.replace(temporary, shard)
        finally:
            temporary.unlink(missing_ok=True)
        self._note(shard, list(keys))

    def rows(self, keys: Sequence[str]) -> Tensor:
        """Rows from their shards; only these rows are read."""
        found = []
        for key in keys:
            shard, offset = self.places[self.index[key]]
            if shard not in self.opened:
                self.opened[shard] = _map(self.shards[shard])
            found.append(self.opened[shard][offset])
        return torch.stack(found)

    def _note(self, shard: Path, keys: list[str]) -> None:
        """Remember where a shard's rows are."""
        for offset, key in enumerate(keys):
            self.index[key] = len(self.places)
            self.places.append((len(self.shards), offset))
        self.shards.append(shard)

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes: open files stay behind."""
        return {**self.__dict__, "opened": {}}


def _map(shard: Path) -> Tensor:
    """A shard's arrays as a tensor over the mapped file: pages are read when they are looked at."""
    with safe_open(shard, framework="pt") as file:
        return file.get_tensor(ARRAYS)
