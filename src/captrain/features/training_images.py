"""The images of a data set as a training step takes them: cached features, cached pixels, or pixels decoded now.

A picture has seeded views: view 0 is the picture itself, the others come from augmentation.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from captrain.data.augment import Augmentation, generator, mentions_sides, prepare_augmented
from captrain.data.images import ImageSpec, prepare
from captrain.data.picture_files import content_key
from captrain.features.cache_arrays import ArrayStore
from captrain.records import Sample


@dataclass(frozen=True, slots=True)
class Views:
    """How many views of a training picture are cached, and how they are made.

    Epochs take turns among `count` cached views, and each picture begins at another one. With augmentation and a count of 1
    nothing can be cached: each epoch makes its own view. A view depends only on the seed, the picture's content and the view's
    number, so it is the same on every machine and for every number of workers. With `mirrored`, view 1 is the mirror image.
    """

    count: int = 1
    augmentation: Augmentation | None = None
    seed: int = 0
    mirrored: bool = False

    @property
    def fresh_each_epoch(self) -> bool:
        """Whether each epoch makes its own view."""
        return self.augmentation is not None and self.count == 1

    def suited(self, captions: Sequence[str]) -> Views:
        """The same; without flips if the captions mention left or right."""
        if self.augmentation is None or not self.augmentation.flip or not any(map(mentions_sides, captions)):
            return self
        return replace(self, augmentation=replace(self.augmentation, flip=0.0))

    def at(self, content: str, epoch: int) -> int:
        """The number of the view that an epoch shows of a picture, which its content key names.

        >>> [Views(count=3).at("0a", epoch) for epoch in range(4)]
        [1, 2, 0, 1]
        """
        return epoch + 1 if self.fresh_each_epoch else (epoch + int(content[:8], 16)) % self.count

    def key(self, content: str, view: int) -> str:
        """The key under which a view is cached.

        >>> Views().key("0a", 0)
        '0a'
        """
        if view == 0:
            return content
        if self.mirrored:
            return hashlib.blake2b(f"{content} mirrored".encode(), digest_size=16).hexdigest()
        stated = f"{content} {self.augmentation} {self.seed} {view}".encode()
        return hashlib.blake2b(stated, digest_size=16).hexdigest()

    def pixels(self, data: bytes, content: str, view: int, spec: ImageSpec, max_pixels: int) -> np.ndarray:
        """A view's pixels: uint8 (height, width, 3). Raises `PictureError` as `prepare` does."""
        if self.mirrored and view == 1:
            return prepare(data, spec, max_pixels)[:, ::-1]
        if view == 0 or self.augmentation is None:
            return prepare(data, spec, max_pixels)
        random = generator(self.seed, view, int(content[:16], 16))
        return prepare_augmented(data, spec, self.augmentation, random, max_pixels)


PLAIN = Views()
MIRRORED = Views(count=2, mirrored=True)


class Images(ABC):
    """Images by position; `rows` gives a batch as keyword arguments of a captioner's forward.

    Attributes:
        taken: for each image, its position in its split: pictures that can't be used are left out.
        contents: the content keys of the pictures, or None if the pictures were not read.
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

        The views are those that an epoch of training shows; without `epoch` they are the pictures themselves.
        """

    def mirrored(self, positions: Sequence[int]) -> Tensor | None:
        """Cached features (I, N, D) of the mirror images; None if there are none."""
        return None


class CachedImages(Images):
    """Images whose features or pixels are cached, all views of them, under their content keys."""

    def __init__(
        self, samples: Sequence[Sample], keys: Sequence[str], store: ArrayStore, kind: str, views: Sequence[Views]
    ) -> None:
        """`keys` and `views` hold, for each image, its content key and the views that it has."""
        self.samples = samples
        self.keys = self.contents = keys
        self.store = store
        self.kind = kind
        self.views = views

    def rows(self, positions: Sequence[int], epoch: int | None = None) -> dict[str, Tensor]:
        """From the store."""
        return {self.kind: self.store.rows([self._key(position, epoch) for position in positions])}

    def mirrored(self, positions: Sequence[int]) -> Tensor | None:
        """From the store, if the other views are mirror images."""
        if not all(self.views[position].mirrored for position in positions):
            return None
        return self.store.rows([self.views[position].key(self.keys[position], 1) for position in positions])

    def _key(self, position: int, epoch: int | None) -> str:
        key, views = self.keys[position], self.views[position]
        return key if epoch is None else views.key(key, views.at(key, epoch))


class LiveImages(Images):
    """Images decoded whenever a batch needs them. They were all decoded once before, so none fails now."""

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
        """From the files, decoded by threads."""
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            pixels = list(pool.map(lambda position: self._pixels(position, epoch), positions))
        return {self.kind: torch.from_numpy(np.stack(pixels))}

    def _pixels(self, position: int, epoch: int | None) -> np.ndarray:
        sample = self.samples[position]
        data = sample.read()
        content, views = content_key(data), self.views.suited(sample.captions)
        return views.pixels(data, content, 0 if epoch is None else views.at(content, epoch), self.spec, self.max_pixels)
