"""A folder of images with captions beside them: `dog.jpg` and `dog.txt`, a caption a line, in nested folders too.

Where every image lies below folders called train, validation (val, dev) or test, those are the splits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from captrain.data.places import IMAGE_SUFFIXES, UNREAD_SUFFIXES, Root, existing, is_hidden
from captrain.data.readers import SPLIT_NAMES
from captrain.data.readers.options import BY_LOOKING, ReadOptions
from captrain.data.samples import LazySamples, key_of
from captrain.errors import DataError
from captrain.records import Rejects, Sample

LARGEST_TEXT = 1 << 20  # bytes; no caption file is larger, so a larger one is something else


@dataclass
class Found:
    """What a walk through the folder met; all paths are relative to it, posix style."""

    images: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)  # path without suffix → path
    unread: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)  # links to folders, and links that leave the data set
    unnamed: list[str] = field(default_factory=list)  # names that are not Unicode


class FolderSamples(LazySamples):
    """Images by their paths; captions are read from the text beside an image when it is asked for."""

    def __init__(self, root: Path, images: list[str], suffixes: list[str]) -> None:
        """`suffixes` holds, for each image, that of its caption file (".txt"), or "" if it has none."""
        self.root = root
        self.images = images
        self.suffixes = suffixes

    def __len__(self) -> int:
        return len(self.images)

    def keys(self) -> np.ndarray:
        return np.array([key_of(image) for image in self.images], dtype=np.uint64)

    def sample_at(self, index: int) -> Sample:
        name = self.images[index]
        captions: tuple[str, ...] = ()
        if self.suffixes[index]:
            text = self.root / (os.path.splitext(name)[0] + self.suffixes[index])
            try:
                captions = captions_in(text)
            except (OSError, ValueError) as error:
                raise DataError(f"{text}: {error}; it was readable when the folder was listed") from None
        return Sample(name, self.root / name, captions, name)


def recognises(source: str) -> bool:
    """Whether this is a folder: any folder may hold pictures and captions."""
    return Path(source).is_dir()


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All images below `source`, sorted by their paths, which are also their ids.

    Rejected are images without captions, captions without images, texts that are empty or not UTF-8, and links that
    leave the folder. With `captioned=False` an image needs no caption. Raises `DataError` if nothing is left.
    """
    path = existing(Path(source))
    found = walk(path)
    _reject_oddities(found, path, rejects)
    images, suffixes = _pair(found, path, rejects, captioned)
    if not images:
        raise DataError(_nothing_left(found, path, rejects, captioned))
    return {
        split: FolderSamples(path, [images[i] for i in positions], [suffixes[i] for i in positions])
        for split, positions in _by_split(images).items()
    }


def walk(root: Path) -> Found:
    """List a folder and all below it, in sorted order; hidden files are left out."""
    found = Found()
    bounds = Root(root)
    for relative, entry in sorted(_entries(root), key=lambda item: item[0]):
        stem, suffix = os.path.splitext(relative)
        kind = suffix.lower()
        if not _is_unicode(relative):
            found.unnamed.append(relative)
        elif entry.is_symlink() and (entry.is_dir() or not bounds.holds(entry.path)):
            found.links.append(relative)
        elif kind in IMAGE_SUFFIXES:
            found.images.append(relative)
        elif kind in UNREAD_SUFFIXES:
            found.unread.append(relative)
        elif kind == ".txt":
            found.texts[stem] = relative
    return found


def _entries(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files below a folder by relative path, and links to folders, which are not entered (they can go in circles)."""
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            with os.scandir(root / prefix) as listing:
                entries = [entry for entry in listing if not is_hidden(entry.name)]
        except OSError as error:
            raise DataError(f"{root / prefix}: can't be listed ({error.strerror})") from None
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def captions_in(text: Path) -> tuple[str, ...]:
    """The captions in a file: its lines, without empty ones. Raises `ValueError` with the reason if it can't be one."""
    if (size := text.stat().st_size) > LARGEST_TEXT:
        raise ValueError(f"is too large for captions ({size} bytes, over {LARGEST_TEXT})")
    try:
        content = text.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start})") from None
    captions = tuple(stripped for line in content.splitlines() if (stripped := line.strip()))
    if not captions:
        raise ValueError("holds no caption")
    return captions


def _reject_oddities(found: Found, root: Path, rejects: Rejects) -> None:
    for name in found.links:
        rejects.add(name, str(root / name), "is a link to a folder or out of the data set; copy the files in")
    for name in found.unread:
        rejects.add(name, str(root / name), f"is a {Path(name).suffix} file, which is not read; convert it to JPEG")
    for name in found.unnamed:
        plain = os.fsencode(name).decode("utf-8", "backslashreplace")
        rejects.add(plain, str(root / plain), "has a name that is not UTF-8; rename it")


def _pair(found: Found, root: Path, rejects: Rejects, captioned: bool) -> tuple[list[str], list[str]]:
    """Images to keep, and for each the suffix of its caption file, or "" where there is none of use and need not be."""
    images: list[str] = []
    suffixes: list[str] = []
    checked: dict[str, str] = {}  # a text's reason to be no use, or "": dog.jpg and dog.png may share one
    for image in found.images:
        stem = os.path.splitext(image)[0]
        text = found.texts.get(stem)
        if text is not None and text not in checked:
            checked[text] = _fault(root / text)
        fault = "has no caption beside it" if text is None else checked[text]
        if not fault or not captioned:
            images.append(image)
            suffixes.append("" if fault or text is None else text[len(stem) :])
        elif text is None:
            rejects.add(image, str(root / image), fault)
    if captioned:
        for text in found.texts.values():
            if fault := checked.get(text, "has no image beside it"):
                rejects.add(text, str(root / text), fault)
    return images, suffixes


def _fault(text: Path) -> str:
    try:
        captions_in(text)
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"can't be read ({error.strerror})"
    return ""


def _by_split(images: list[str]) -> dict[str, list[int]]:
    """Positions of images by split: the top folders' names if all are names of splits, else "all"."""
    tops = [image.split("/", 1)[0] if "/" in image else "" for image in images]
    if not all(top.lower() in SPLIT_NAMES for top in tops):
        return {"all": list(range(len(images)))}
    splits: dict[str, list[int]] = {}
    for position, top in enumerate(tops):
        splits.setdefault(SPLIT_NAMES[top.lower()], []).append(position)
    return splits


def _nothing_left(found: Found, root: Path, rejects: Rejects, captioned: bool) -> str:
    counts = f"{len(found.images)} images and {len(found.texts) or 'no'} captions"
    first = f"; {rejects.summary()}" if rejects and found.images and found.texts else ""
    wanted = "a .txt beside each image or a metadata.jsonl" if captioned else "JPEG, PNG, WebP, GIF, BMP or TIFF files"
    return f"{root}/: {counts}; expected {wanted}{first}"
