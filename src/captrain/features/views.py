"""Several seeded views of a picture: view 0 is the picture itself, the others are what augmentation makes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from captrain.data.augment import Augmentation, generator, mentions_sides, prepare_augmented
from captrain.data.images import ImageSpec, prepare


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
