"""The images of a data set as a training step wants them: kept features, kept pixels, or pixels decoded on the spot.

Several seeded views of a picture: view 0 is the picture itself, the others are what augmentation makes of it.
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
from captrain.features.cache_arrays import Store
from captrain.records import Sample


@dataclass(frozen=True, slots=True)
class Views:
    """How many views of a training picture are kept, and how they are made.

    With `count` views kept, epochs take turns among them, and each picture begins at another one. With augmentation and
    a count of 1 nothing can be kept: each epoch makes a view of its own. Views depend on the seed, the picture's content
    and the view's number alone, so that they are the same on every machine and for every number of workers.
    `mirrored` says that view 1 is the picture's mirror image.
    """

    count: int = 1
    augmentation: Augmentation | None = None
    seed: int = 0
    mirrored: bool = False

    @property
    def anew(self) -> bool:
        """Whether each epoch makes its own view."""
        return self.augmentation is not None and self.count == 1

    def suited(self, captions: Sequence[str]) -> Views:
        """The same, without mirrored pictures where captions speak of left or right."""
        if self.augmentation is None or not self.augmentation.flip or not any(map(mentions_sides, captions)):
            return self
        return replace(self, augmentation=replace(self.augmentation, flip=0.0))

    def at(self, content: str, epoch: int) -> int:
        """The view of a picture (by its content key) that an epoch shows.

        >>> [Views(count=3).at("0a", epoch) for epoch in range(4)]
        [1, 2, 0, 1]
        """
        return epoch + 1 if self.anew else (epoch + int(content[:8], 16)) % self.count

    def key(self, content: str, view: int) -> str:
        """The key under which a view is kept.

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
