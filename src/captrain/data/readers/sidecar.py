"""A folder of images with captions beside them: `dog.jpg` and `dog.txt`, a caption a line, in nested folders too.

A caption file is a .txt, else a .caption, or has the extension that is asked for. `dog.jpg.txt` belongs to dog.jpg
alone, `dog.txt` to every other image called dog. Where every image lies below folders called train, validation (val,
dev) or test, those are the splits.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from captrain.data.gathered import Texts
from captrain.data.places import IMAGE_SUFFIXES, UNREAD_SUFFIXES, Root, existing, is_hidden
from captrain.data.readers import SPLIT_NAMES
from captrain.data.readers.options import BY_LOOKING, ReadOptions
from captrain.data.samples import Chosen, LazySamples, key_of
from captrain.errors import DataError
from captrain.records import Rejects, Sample

TEXT_SUFFIXES = (".txt", ".caption")  # where a person names none, in the order in which they are looked for
NAMED_SUFFIXES = IMAGE_SUFFIXES | UNREAD_SUFFIXES
LARGEST_TEXT = 1 << 20  # bytes; no caption file is larger, so a larger one is something else

Lines = Literal["each", "whole"]


class FolderSamples(LazySamples):
    """Images by their paths; captions are read from the text beside an image when it is asked for."""

    def __init__(self, root: Path, lines: Lines) -> None:
        """`lines`: whether each line of a text is a caption, or the whole text is one."""
        self.root = root
        self.lines = lines
        self.images = Texts()
        self.endings = [""]  # what follows an image's path without its suffix in its text's: ".txt", ".jpg.txt"
        self.texts = array("I")  # of an image: the place of its text's ending, 0 if it has no text

    def append(self, image: str, ending: str) -> None:
        """Add an image and what its text ends in, "" if it has none."""
        if ending not in self.endings:
            self.endings.append(ending)
        self.images.append(image)
        self.texts.append(self.endings.index(ending))

    def __len__(self) -> int:
        return len(self.images)

    def keys(self) -> np.ndarray:
        return np.fromiter((key_of(image) for image in self.images), dtype=np.uint64, count=len(self))

    def sample_at(self, index: int) -> Sample:
        name = self.images[index]
        captions: tuple[str, ...] = ()
        if ending := self.endings[self.texts[index]]:
            text = self.root / (os.path.splitext(name)[0] + ending)
            try:
                captions = captions_in(text, self.lines)
            except (OSError, ValueError) as error:
                raise DataError(f"{text}: {error}; it was readable when the folder was listed") from None
        return Sample(name, self.root / name, captions, name)


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


def captions_in(text: Path, lines: Lines = "each") -> tuple[str, ...]:
    """The captions in a file: its lines, without empty ones, or all of them as one.

    Raises `ValueError` with the reason if it can't be one.
    """
    with text.open("rb") as file:
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise ValueError(f"is too large for captions ({text.stat().st_size} bytes, over {LARGEST_TEXT})")
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start})") from None
    captions = tuple(stripped for line in decoded.splitlines() if (stripped := line.strip()))
    if not captions:
        raise ValueError("holds no caption")
    return captions if lines == "each" else (" ".join(captions),)


def text_suffixes(options: ReadOptions) -> tuple[str, ...]:
    """Suffixes of caption files, in small letters, the first choice first.

    >>> text_suffixes(ReadOptions(caption_extension="caption.txt"))
    ('.caption.txt',)
    """
    extension = options.caption_extension.strip().lstrip(".").lower()
    return (f".{extension}",) if extension else TEXT_SUFFIXES


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """What lies right in a folder, without hidden things, in the order that sorts whole paths; links are not followed."""
    try:
        with os.scandir(folder) as listing:
            entries = [entry for entry in listing if not is_hidden(entry.name)]
    except OSError as error:
        raise DataError(f"{str(folder)[:200]}: can't be listed ({error.strerror})") from None
    return sorted(entries, key=lambda entry: f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name)


def is_unicode(name: str) -> bool:
    """Whether a file's name can be written in UTF-8: on Linux it may be any bytes."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _Walk:
    """Goes through a folder and all below it, a folder at a time, so that what is held is little beside the samples."""

    def __init__(self, root: Path, rejects: Rejects, options: ReadOptions, captioned: bool) -> None:
        self.root, self.rejects, self.captioned = root, rejects, captioned
        self.suffixes = text_suffixes(options)
        self.samples = FolderSamples(root, options.caption_lines)
        self.bounds = Root(root)
        self.image_count = self.text_count = 0
        self.useless: set[str] = set()  # texts without a caption

    def go(self) -> None:
        """Fill `samples` in the order of their paths. A stack, not recursion: folders may nest a thousand deep."""
        left = [("", "")]  # a folder's path, which is "" or ends in "/", or an image's and its text's ending
        while left:
            path, ending = left.pop()
            if not path or path.endswith("/"):
                left.extend(reversed(self._open(path)))
            else:
                self._take(path, ending)

    def nothing_left(self) -> str:
        """The error for a folder without anything to use."""
        counts = f"{self.image_count} images and {self.text_count or 'no'} captions"
        first = f"; {self.rejects.summary()}" if self.rejects and self.image_count and self.text_count else ""
        beside = f"a {' or '.join(self.suffixes)} beside each image or a metadata.jsonl"
        wanted = beside if self.captioned else "JPEG, PNG, WebP, GIF, BMP or TIFF files"
        return f"{self.root}/: {counts}; expected {wanted}{first}"

    def _open(self, prefix: str) -> list[tuple[str, str]]:
        """The images of a folder with their texts' endings, and the folders in it."""
        names: list[str] = []
        texts: tuple[dict[str, str], ...] = tuple({} for _ in self.suffixes)  # what stands before a suffix → the name
        for entry in visible(self.root / prefix):
            name = entry.name
            if odd := self._oddity(entry):
                plain = os.fsencode(prefix + name).decode("utf-8", "backslashreplace")
                self.rejects.add(plain, str(self.root / plain), odd)
            elif entry.is_dir(follow_symlinks=False):
                names.append(f"{name}/")
            elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                names.append(name)
            else:
                for suffix, found in zip(self.suffixes, texts, strict=True):
                    if name.lower().endswith(suffix) and len(name) > len(suffix):
                        found[name[: -len(suffix)]] = name
        first = {stem: name for found in reversed(texts) for stem, name in found.items()}
        endings = self._match(prefix, [name for name in names if not name.endswith("/")], first)
        return [(prefix + name, endings.get(name, "")) for name in names]

    def _oddity(self, entry: os.DirEntry[str]) -> str:
        """Why a file or folder can't be used, whatever is in it; "" if nothing speaks against it."""
        if not is_unicode(entry.name):
            return "has a name that is not UTF-8; rename it"
        if entry.is_symlink() and (entry.is_dir() or not self.bounds.holds(entry.path)):
            return "is a link to a folder or out of the data set; copy the files in"
        suffix = os.path.splitext(entry.name)[1]
        kind = suffix.lower()
        if entry.is_dir() or not (kind in NAMED_SUFFIXES or entry.name.lower().endswith(self.suffixes)):
            return ""
        if not entry.is_file():  # to open a pipe would wait for ever
            return "is no file but a broken link, a pipe or a device; put the file itself there"
        return f"is a {suffix} file, which is not read; convert it to JPEG" if kind in UNREAD_SUFFIXES else ""

    def _match(self, prefix: str, images: list[str], texts: dict[str, str]) -> dict[str, str]:
        """For each image of a folder what its text ends in, where it has one. Texts of no image are rejected."""
        names = set(images)
        endings, claimed = {}, set(images)
        for image in images:
            stem = os.path.splitext(image)[0]
            if stem not in names:  # else dog.jpg.txt would belong to dog.jpg.png too
                claimed.add(stem)
            text = texts.get(image) or (texts.get(stem) if stem not in names else None)
            if text:
                endings[image] = text[len(stem) :]
        self.text_count += len(texts)
        for stem, text in texts.items():
            if stem not in claimed and self.captioned:
                self.rejects.add(prefix + text, str(self.root / prefix / text), "has no image beside it")
        return endings

    def _take(self, image: str, ending: str) -> None:
        self.image_count += 1
        useful = bool(ending) and self._is_useful(os.path.splitext(image)[0] + ending)
        if useful or not self.captioned:
            self.samples.append(image, ending if useful else "")
        elif not ending:
            self.rejects.add(image, str(self.root / image), "has no caption beside it")

    def _is_useful(self, text: str) -> bool:
        """Whether a text holds captions: what is wrong with it is to be known before hours of training, not after."""
        if text in self.useless:
            return False
        try:
            captions_in(self.root / text)
            return True
        except ValueError as error:
            fault = str(error)
        except OSError as error:
            fault = f"can't be read ({error.strerror})"
        self.useless.add(text)
        if self.captioned:
            self.rejects.add(text, str(self.root / text), fault)
        return False


def _by_split(images: Sequence[str]) -> dict[str, array[int]] | None:
    """Positions of images by split, if all their top folders' names are names of splits."""
    splits: dict[str, array[int]] = {}
    for position, image in enumerate(images):
        top, slash, _ = image.partition("/")
        if not slash or top.lower() not in SPLIT_NAMES:
            return None
        splits.setdefault(SPLIT_NAMES[top.lower()], array("q")).append(position)
    return splits
