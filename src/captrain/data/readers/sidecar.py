"""A folder of images with captions beside them: `dog.jpg` and `dog.txt`, a caption a line, in nested folders too.

Which file is whose is `captrain.data.caption_files`' to say. Where every image lies below folders called train, validation
(val, dev) or test, those are the splits.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from captrain.data.caption_files import is_text, text_suffixes
from captrain.data.gathered import Texts
from captrain.data.machine import MACHINE
from captrain.data.options import BY_LOOKING, ReadOptions
from captrain.data.picture_files import is_unicode, unread
from captrain.data.places import IMAGE_SUFFIXES, UNREAD_SUFFIXES, Root, existing
from captrain.data.readers import SPLIT_NAMES
from captrain.data.readers.folder_captions import NO_TEXT, Captioned, FolderCaptions, captions_of
from captrain.data.readers.nothing import TABLES, lying_there, tables_there
from captrain.data.samples import Chosen, LazySamples, key_of
from captrain.data.text import LARGEST_TEXT, read_text
from captrain.disk.walking import Entry
from captrain.errors import DataError
from captrain.records import Rejects, Sample

__all__ = ["LARGEST_TEXT", "FolderSamples", "is_unicode", "read", "recognises"]

TOLD_SUFFIXES = IMAGE_SUFFIXES | UNREAD_SUFFIXES | {*TABLES}  # of pipes and devices that are told


class FolderSamples(LazySamples):
    """Images by their paths; captions are read from the text beside an image when it is asked for."""

    def __init__(self, root: Path, options: ReadOptions) -> None:
        self.root, self.options = root, options
        self.images = Texts()
        self.endings = [""]  # what follows an image's path without its suffix in its text's: ".txt", ".jpg.txt"
        self.texts = array("I")  # of an image: the place of its text's ending, 0 if it has no text
        self.renamed: dict[int, str] = {}  # of an image whose text is spelled otherwise: that text's path
        self.makers: dict[int, tuple[str, ...]] = {}  # of an image whose text a machine wrote lines of

    def append(self, image: str, found: Captioned) -> None:
        """Add an image."""
        stem, text = os.path.splitext(image)[0], image[: image.rfind("/") + 1] + found.text
        ending = text[len(stem) :] if found.text else ""
        if found.text and not text.startswith(stem):
            self.renamed[len(self)] = text
            ending = os.path.splitext(text)[1]
        if found.makers:
            self.makers[len(self)] = found.makers
        if ending not in self.endings:
            self.endings.append(ending)
        self.images.append(image)
        self.texts.append(self.endings.index(ending))

    def __len__(self) -> int:
        return len(self.images)

    def keys(self) -> np.ndarray:
        return np.fromiter((key_of(image) for image in self.images), dtype=np.uint64, count=len(self))

    def ids(self) -> Iterator[str]:
        return iter(self.images)

    def sample_at(self, index: int) -> Sample:
        name = self.images[index]
        captions: tuple[str, ...] = ()
        machine: tuple[str, ...] = ()
        if ending := self.endings[self.texts[index]]:
            text = self.root / self.renamed.get(index, os.path.splitext(name)[0] + ending)
            try:
                lines = read_text(text, self.options.encoding).lines()
            except (OSError, ValueError) as error:
                raise DataError(f"{text}: {error}; it was readable when the folder was listed") from None
            if not lines:
                raise DataError(f"{text}: holds no caption; it held one when the folder was listed")
            captions, machine = captions_of(lines, self.makers.get(index, ()), self.options)
        return Sample(name, self.root / name, captions, name, machine=machine)


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a folder: any folder may hold pictures and captions."""
    return Path(source).is_dir()


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All images below `source`, sorted by their paths, which are also their ids.

    Rejected are images without captions, captions without images, texts that are empty or not UTF-8, and links that
    leave the folder. With `captioned=False` an image needs no caption. Raises `DataError` if nothing is left.
    """
    walk = _Walk(existing(Path(source)), rejects, options, captioned)
    walk.go()
    if not walk.samples:
        raise DataError(walk.nothing_left())
    splits = _by_split(walk.samples.images)
    if splits is None:
        return {"all": walk.samples}
    return {split: Chosen(walk.samples, np.array(positions)) for split, positions in splits.items()}


class _Walk:
    """Goes through a folder and all below it, a folder at a time, so that what is held is little beside the samples."""

    def __init__(self, root: Path, rejects: Rejects, options: ReadOptions, captioned: bool) -> None:
        self.root, self.rejects, self.captioned = root, rejects, captioned
        self.suffixes = text_suffixes(options.caption_extension)
        self.samples = FolderSamples(root, options)
        self.folders = Root(root, follow_links=options.follow_links).folders()
        self.captions = FolderCaptions(root, rejects, options, captioned)
        self.image_count = self.text_count = self.odd_count = 0

    def go(self) -> None:
        """Fill `samples` in the order of their paths. A stack, not recursion: folders may nest a thousand deep."""
        left: list[tuple[str, Captioned | None]] = [("", NO_TEXT)]  # a folder's path is "" or ends in "/"
        while left:
            path, found = left.pop()
            if not path or path.endswith("/"):
                left.extend(reversed(self._open(path)))
            elif found is not None:
                self.samples.append(path, found)
        self.captions.finish()

    def nothing_left(self) -> str:
        """The error for a folder without anything to use."""
        counts = f"{self.image_count} images and {self.text_count or 'no'} captions"
        is_told = self.odd_count or (self.image_count and self.text_count)
        first = f"; {self.rejects.summary()}" if self.rejects and is_told else ""
        beside = f"a {' or '.join(self.suffixes)} beside each image or a metadata.jsonl"
        wanted = beside if self.captioned else "JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF files"
        if made := self.rejects.remarked(MACHINE):
            first += f"; {made} images have captions that captrain wrote, which do not count here (--learn-from-machine-captions)"
        there = "".join(f"; {said}" for said in [*lying_there([self.root]), *tables_there(self.root)])
        return f"{self.root}/: {counts}{there}; expected {wanted}{first}"

    def _open(self, prefix: str) -> list[tuple[str, Captioned | None]]:
        """The images of a folder with what is known of their captions (None: left out), and the folders in it."""
        names: list[str] = []
        others: list[str] = []
        for entry in self._listed(prefix):
            name = entry.name
            if odd := self._oddity(entry):
                self.odd_count += 1
                self._reject(prefix + name, odd)
            elif entry.is_folder:
                names.append(f"{name}/")
            elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                names.append(name)
            elif is_text(name, self.suffixes):
                others.append(name)
        images = [name for name in names if not name.endswith("/")]
        self.image_count += len(images)
        self.text_count += len(others)
        found = self.captions.of(prefix, images, others)
        return [(prefix + name, found.get(name, NO_TEXT if name.endswith("/") else None)) for name in names]

    def _listed(self, prefix: str) -> list[Entry]:
        """What lies in a folder. One that can't be listed is rejected, if it is not the data set's own."""
        try:
            return self.folders.entries(prefix)
        except OSError as error:
            if not prefix:
                raise DataError(f"{str(self.root)[:200]}: can't be listed ({error.strerror})") from None
            self._reject(prefix, f"can't be listed ({error.strerror})")
            return []

    def _reject(self, path: str, reason: str) -> None:
        plain = os.fsencode(path).decode("utf-8", "backslashreplace")
        self.rejects.add(plain, str(self.root / plain), reason)

    def _oddity(self, entry: Entry) -> str:
        """Why a file or folder can't be used, whatever is in it; "" if nothing speaks against it."""
        if not is_unicode(entry.name):
            return "has a name that is not UTF-8; rename it"
        suffix = os.path.splitext(entry.name)[1]
        kind = suffix.lower()
        is_told = entry.is_folder or entry.is_link or kind in TOLD_SUFFIXES or is_text(entry.name, self.suffixes)
        if entry.is_folder or (entry.fault and is_told):
            return entry.fault
        return unread(suffix) if kind in UNREAD_SUFFIXES else ""


def _by_split(images: Sequence[str]) -> dict[str, array[int]] | None:
    """Positions of images by split, if all their top folders' names are names of splits."""
    splits: dict[str, array[int]] = {}
    for position, image in enumerate(images):
        top, slash, _ = image.partition("/")
        if not slash or top.lower() not in SPLIT_NAMES:
            return None
        splits.setdefault(SPLIT_NAMES[top.lower()], array("q")).append(position)
    return splits
