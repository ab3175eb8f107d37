"""Which caption file belongs to a picture: one rule for what reads, checks, converts and writes.

- A caption file is a .txt, else a .caption, in upper or lower case, or has the extension that is asked for.
- `dog.jpg.txt` belongs to dog.jpg alone and takes precedence over `dog.txt`, which belongs to every other picture called dog.
- Names match as they are spelled, else in any normal form of Unicode (macOS and Linux spell "é" differently) and with
  endings in any letters.
- Of several files the first that is not empty counts. A picture whose files are all empty has no caption.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from captrain.data.safe_paths import IMAGE_SUFFIXES
from captrain.data.text_encoding import Text, read_text

TEXT_SUFFIXES = (".txt", ".caption")  # where a person names none, in the order in which they are looked for


class CaptionFile(NamedTuple):
    """A caption file and what it says, or why it can't be read. `is_empty`: it says nothing."""

    name: str
    text: Text = Text("")
    fault: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether it holds no caption, and nothing else that could be one."""
        return not self.fault and not self.text.lines()


def text_suffixes(extension: str = "") -> tuple[str, ...]:
    """Suffixes of caption files, in lower case, the first choice first.

    >>> text_suffixes(), text_suffixes("Caption.txt")
    (('.txt', '.caption'), ('.caption.txt',))
    """
    extension = extension.strip().lstrip(".").lower()
    return (f".{extension}",) if extension else TEXT_SUFFIXES


def match(
    images: Sequence[str], others: Iterable[str], suffixes: Sequence[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """The caption files of each image of a folder that has any, the first choice first; and those that belong to no image.

    Args:
        images, others: names of the folder's images, and of its other files, which may be caption files or not.

    >>> match(["dog.JPG", "dog.png"], ["dog.txt", "dog.jpg.txt", "dog.md", "cat.TXT"], TEXT_SUFFIXES)
    ({'dog.JPG': ['dog.jpg.txt', 'dog.txt'], 'dog.png': ['dog.txt']}, ['cat.TXT'])
    """
    owners = _Owners(images)
    found: dict[str, list[tuple[tuple[int, ...], str]]] = {}
    strays = []
    for name in others:
        place = next((place for place, suffix in enumerate(suffixes) if _ends_in(name, suffix)), None)
        if place is None:
            continue
        rank, mine = owners.of(name[: -len(suffixes[place])])
        for image in mine:
            found.setdefault(image, []).append(((*rank, place, not name.endswith(suffixes[place])), name))
        if not mine:
            strays.append(name)
    return {image: [name for _, name in sorted(names)] for image, names in found.items()}, strays


def is_text(name: str, suffixes: Sequence[str]) -> bool:
    """Whether a file's name is that of a caption file."""
    return any(_ends_in(name, suffix) for suffix in suffixes)


def read_caption_file(folder: Path, name: str, encoding: str = "") -> CaptionFile:
    """What a caption file says, or why it can't be read."""
    try:
        return CaptionFile(name, read_text(folder / name, encoding))
    except ValueError as error:
        return CaptionFile(name, fault=str(error))
    except OSError as error:
        return CaptionFile(name, fault=f"can't be read ({error.strerror})")


class CaptionFolder:
    """The caption files of one folder, by the rule above.

    strays: names of caption files that belong to no image.
    """

    def __init__(
        self, folder: Path, images: Sequence[str], others: Iterable[str], suffixes: Sequence[str], encoding: str = ""
    ) -> None:
        self.folder, self.images, self.encoding = folder, images, encoding
        self.texts, self.strays = match(images, others, suffixes)
        self._used: dict[str, str] = {}  # a chosen file → the image that it was chosen for first
        self._shared: dict[str, list[str]] = {}
        self._names = frozenset(images)
        self._of_images: frozenset[str] | None = None

    def choose(self, image: str) -> CaptionFile | None:
        """The first of an image's caption files that is not empty; an empty one if all are; None if there is none."""
        empty = None
        for name in self.texts.get(image, ()):
            found = read_caption_file(self.folder, name, self.encoding)
            if not found.is_empty:
                self._use(name, image)
                return found
            empty = empty or found
        return empty

    def holds_image(self, name: str) -> bool:
        """Whether an image of the folder has this name."""
        return name in self._names

    def new_name(self, image: str, suffix: str) -> str:
        """The name of a new caption file for an image; it fits no other image.

        >>> folder = CaptionFolder(Path(), ["dog.png", "cat.jpg", "cat.jpg.png"], [], TEXT_SUFFIXES)
        >>> folder.new_name("dog.png", ".txt"), folder.new_name("cat.jpg.png", ".txt")
        ('dog.txt', 'cat.jpg.png.txt')
        """
        stem = os.path.splitext(image)[0]
        if os.path.splitext(stem)[1].lower() in IMAGE_SUFFIXES and _key(stem) in self._keys():
            stem = image
        return stem + suffix

    def _keys(self) -> frozenset[str]:
        if self._of_images is None:
            self._of_images = frozenset(map(_key, self.images))
        return self._of_images

    def shared(self) -> Iterator[tuple[str, list[str]]]:
        """Files that were chosen for several images, with these."""
        yield from self._shared.items()

    def hidden(self) -> Iterator[tuple[str, str]]:
        """Images with a non-empty file that was not used, because another takes precedence."""
        for image, names in self.texts.items():
            for name in names if len(names) > 1 else ():
                if name not in self._used and not read_caption_file(self.folder, name, self.encoding).is_empty:
                    self._use(name, image)
                    yield image, name

    def _use(self, name: str, image: str) -> None:
        first = self._used.setdefault(name, image)
        if first != image:
            self._shared.setdefault(name, [first]).append(image)


class _Owners:
    """The images of a folder by the names that a caption file may call them."""

    def __init__(self, images: Sequence[str]) -> None:
        names = dict.fromkeys(images)
        self.steps: tuple[dict[str, list[str]], ...] = ({}, {}, {}, {})
        for image in names:
            stem = os.path.splitext(image)[0]
            for step, name in zip(self.steps, (image, stem, _key(image), _key(stem)), strict=True):
                step.setdefault(name, []).append(image)

    def of(self, name: str) -> tuple[tuple[int, int], list[str]]:
        """The images that are called so, and how: named whole (0) or by the stem (1), as spelled (0) or not (1)."""
        for step, (images, spelled) in enumerate(zip(self.steps, (name, name, _key(name), _key(name)), strict=True)):
            if found := images.get(spelled):
                return (step % 2, step // 2), found
        return (0, 0), []


def _ends_in(name: str, suffix: str) -> bool:
    return len(name) > len(suffix) and name[-len(suffix) :].lower() == suffix


def _key(name: str) -> str:
    """A name in one normal form, an image's ending in lower case."""
    stem, suffix = os.path.splitext(name)
    small = suffix.lower()
    return unicodedata.normalize("NFC", stem + (small if small in IMAGE_SUFFIXES else suffix))
