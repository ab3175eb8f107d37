"""The images of a data set as a training step wants them: kept features, kept pixels, or pixels decoded on the spot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captrain.data.images import ImageSpec, prepare
from captrain.features.store import Store
from captrain.records import Sample


class Images(ABC):
    """Images by position in their split; `rows` gives a batch as keyword arguments of a captioner's forward."""

    kind: str
    samples: Sequence[Sample]

    def __len__(self) -> int:
        return len(self.samples)

    @abstractmethod
    def rows(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """`{"features": (I, N, D)}` or `{"pixels": (I, height, width, 3)}`."""


class KeptImages(Images):
    """Images whose features or pixels are in a store, found by content key."""

    def __init__(self, samples: Sequence[Sample], keys: Sequence[str], store: Store, kind: str) -> None:
        self.samples = samples
        self.keys = keys
        self.store = store
        self.kind = kind

    def rows(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """From the store."""
        return {self.kind: self.store.rows([self.keys[position] for position in positions])}


class LiveImages(Images):
    """Images decoded each time they are asked for; they were all decoded once before, so that none can fail now."""

    kind = "pixels"

    def __init__(self, samples: Sequence[Sample], spec: ImageSpec, max_pixels: int) -> None:
        self.samples = samples
        self.spec = spec
        self.max_pixels = max_pixels

    def rows(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """From the files."""
        pixels = [prepare(self.samples[position].read(), self.spec, self.max_pixels) for position in positions]
        return {self.kind: torch.from_numpy(np.stack(pixels))}
