"""Captions gathered from a file that must be read whole (a JSON list, a COCO file, a CSV): flat text, no object a row."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from captrain.data.safe_paths import Root
from captrain.data.samples import LazySamples, key_of
from captrain.records import Rejects, Sample
from captrain.tabular.cells import no_caption, not_a_caption, sifted


class FlatTexts(Sequence[str]):
    """Strings end to end in one buffer, 8 bytes a string beside its UTF-8.

    >>> texts = FlatTexts(["a dog", "猫"])
    >>> len(texts), texts[1]
    (2, '猫')
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.buffer = bytearray()
        self.ends = array("Q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add one string; half a surrogate pair, which UTF-8 can't hold, becomes a question mark."""
        self.buffer += text.encode("utf-8", "replace")
        self.ends.append(len(self.buffer))

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return self.buffer[self.ends[index] : self.ends[index + 1]].decode("utf-8")


class GatheredCaptions:
    """Collects rows (an image's name, captions, split) and gives samples: rows about one image become one sample.

    Args:
        root: the folder that image names are relative to.
        file: the file that the rows come from, for sources and errors.
        prefix: put before every id ("train/"), so that several files of one data set can be told apart.

    Names that lead to no file are rejected, and so are, at the end, images without a caption in any row, and texts
    that are not captions ("nan", a number).
    """

    def __init__(self, root: Root, file: Path, prefix: str = "") -> None:
        self.root, self.file, self.prefix = root, file, prefix
        self.images = FlatTexts()
        self.captions = FlatTexts()
        self.places: dict[int, int] = {}  # key of an image's id → its number
        self.numbers = array("Q")  # for each image, the row that named it first
        self.splits = array("b")
        self.repeats = array("I")
        self.owners = array("Q")  # for each caption, its image
        self.names: list[str] = []  # of the splits, in order of appearance
        self.missing: set[str] = set()
        self.odd: dict[int, list[tuple[int, str]]] = {}  # image → the rows and texts that are no captions

    def add(
        self, image: str, captions: Sequence[str], number: int, rejects: Rejects, split: str = "all", repeats: int = 1
    ) -> None:
        """One row; `number` is its place in the file, from 1. Raises `DataError` for a name that leaves the root."""
        where = f"{self.file}:{number}"
        name = self.root.find(image, where)
        if name is None:
            if image not in self.missing:
                self.missing.add(image)
                rejects.add(self.prefix + image, where, self.root.absence(image, where))
            return
        owner = self._number_of(name, number, split, repeats)
        good, odd = sifted(captions)
        for caption in good:
            self.captions.append(caption)
            self.owners.append(owner)
        if odd:
            self.odd.setdefault(owner, []).extend((number, text) for text in odd)

    def samples(self, rejects: Rejects, *, captioned: bool = True) -> dict[str, Sequence[Sample]]:
        """Samples by split, in the order of their first rows."""
        owners = np.array(self.owners, dtype=np.int64)
        order = np.argsort(owners, kind="stable")
        counts = np.bincount(owners, minlength=len(self.images))
        starts = np.concatenate([[0], np.cumsum(counts)])
        usable = np.ones(len(self.images), dtype=bool)
        if captioned:
            usable = counts > 0
            self._reject(np.flatnonzero(~usable), rejects)
        splits = np.array(self.splits)
        chosen = {name: np.flatnonzero(usable & (splits == place)) for place, name in enumerate(self.names)}
        return {name: GatheredSamples(self, images, order, starts) for name, images in chosen.items() if len(images)}

    def _reject(self, bare: np.ndarray, rejects: Rejects) -> None:
        """Note the images that have no caption, and texts of other images that are not captions."""
        odd = dict(self.odd)
        for image in bare.tolist():
            only = [text for _, text in odd.pop(image, [])]
            rejects.add(self.prefix + self.images[image], f"{self.file}:{self.numbers[image]}", no_caption(only))
        for image, texts in odd.items():
            for number, text in texts:
                rejects.add(self.prefix + self.images[image], f"{self.file}:{number}", not_a_caption(text))

    def _number_of(self, name: str, number: int, split: str, repeats: int) -> int:
        key = key_of(self.prefix + name)
        if key not in self.places:
            if split not in self.names:
                self.names.append(split)
            self.places[key] = len(self.images)
            self.images.append(name)
            self.numbers.append(number)
            self.splits.append(self.names.index(split))
            self.repeats.append(repeats)
        return self.places[key]


class GatheredSamples(LazySamples):
    """Some images of what was gathered, made into samples when they are asked for."""

    def __init__(self, gathered: GatheredCaptions, images: np.ndarray, order: np.ndarray, starts: np.ndarray) -> None:
        """`order` sorts the captions by image; image i has those from starts[i] to starts[i + 1]."""
        self.gathered, self.images, self.order, self.starts = gathered, images, order, starts

    def __len__(self) -> int:
        return len(self.images)

    def keys(self) -> np.ndarray:
        return np.fromiter(self.gathered.places, dtype=np.uint64)[self.images]

    def sample_at(self, index: int) -> Sample:
        gathered, image = self.gathered, int(self.images[index])
        name = gathered.images[image]
        captions = tuple(gathered.captions[at] for at in self.order[self.starts[image] : self.starts[image + 1]])
        source = f"{gathered.file.name}:{gathered.numbers[image]}"
        return Sample(gathered.prefix + name, gathered.root.image(name), captions, source, gathered.repeats[image])
