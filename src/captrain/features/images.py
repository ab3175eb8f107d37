"""The images of a data set as a training step wants them: kept features, kept pixels, or pixels decoded on the spot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from captrain.data.content import content_key
from captrain.data.images import ImageSpec
from captrain.features.store import Store
from captrain.features.views import PLAIN, Views
from captrain.records import Sample


class Images(ABC):
    """Images by position; `rows` gives a batch as keyword arguments of a captioner's forward.

    `taken` holds for each image its position in the split it was taken from: pictures that can't be used are left out.
    `contents` holds content keys of the pictures where they were read, else None.
    """

    kind: str
    samples: Sequence[Sample]
    taken: np.ndarray
    contents: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @abstractmethod
    def rows(self, positions: Sequence[int], epoch: int | None = None) -> dict[str, Tensor]:
        """`{"features": (I, N, D)}` or `{"pixels": (I, height, width, 3)}`.

        The views that an epoch of training shows, or without `epoch` the pictures themselves.
        """

    def mirrored(self, positions: Sequence[int]) -> Tensor | None:
        """Kept features (I, N, D) of the pictures' mirror images; None where there are none."""
        return None


class KeptImages(Images):
    """Images of which the features or pixels of all views are in a store, found by content key."""

    def __init__(
        self, samples: Sequence[Sample], keys: Sequence[str], store: Store, kind: str, views: Sequence[Views]
    ) -> None:
        """`keys` and `views` hold, for each image, its content key and how its views were made."""
        self.samples = samples
        self.keys = self.contents = keys
        self.store = store
        self.kind = kind
        self.views = views

    def rows(self, positions: Sequence[int], epoch: int | None = None) -> dict[str, Tensor]:
        """From the store."""
        return {self.kind: self.store.rows([self._key(position, epoch) for position in positions])}

    def mirrored(self, positions: Sequence[int]) -> Tensor | None:
        """From the store, if that is what the further views are."""
        if not all(self.views[position].mirrored for position in positions):
            return None
        return self.store.rows([self.views[position].key(self.keys[position], 1) for position in positions])

    def _key(self, position: int, epoch: int | None) -> str:
        key, views = self.keys[position], self.views[position]
        return key if epoch is None else views.key(key, views.at(key, epoch))


class LiveImages(Images):
    """Images decoded each time they are asked for; they were all decoded once before, so that none can fail now."""

    kind = "pixels"

    def __init__(
        self, samples: Sequence[Sample], spec: ImageSpec, max_pixels: int, views: Views = PLAIN, workers: int = 1
    ) -> None:
        self.samples = samples
        self.spec = spec
        self.max_pixels = max_pixels
        self.views = views
        self.workers = workers

    def rows(self, positions: Sequence[int], epoch: int | None = None) -> dict[str, Tensor]:
        """From the files, a picture a thread."""
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            pixels = list(pool.map(lambda position: self._pixels(position, epoch), positions))
        return {self.kind: torch.from_numpy(np.stack(pixels))}

    def _pixels(self, position: int, epoch: int | None) -> np.ndarray:
        sample = self.samples[position]
        data = sample.read()
        content, views = content_key(data), self.views.suited(sample.captions)
        return views.pixels(data, content, 0 if epoch is None else views.at(content, epoch), self.spec, self.max_pixels)
