"""Images with a text file beside each: `dog.jpg` and `dog.txt`, in plain folders or in those of sd-scripts.

`Sidecar` writes a caption a line, and a folder a split. Where two images would share a text file, the second one's is called
`dog.png.txt`.

`Kohya` writes folders for sd-scripts (kohya-ss): `10_dogs/1.jpg` and `1.txt`, one caption per image, shown ten times an epoch.
Several splits become several such data sets, in folders called train, validation and test.
"""

from __future__ import annotations

import os
import re

from captrain.data.machine_captions import CaptionLedgers
from captrain.data.safe_paths import IMAGE_SUFFIXES
from captrain.data.splits import SPLIT_NAMES
from captrain.data.writers import FormTarget, Losses, OutputSample
from captrain.data.writers.picture_output import PictureFolder
from captrain.data.writers.safe_names import Names
from captrain.disk.writing import write_new

JOINED = "captions with line breaks, in {images} images: written on one line, {amount} in all"
BYTE_ORDER_MARK = "\ufeff"


class Sidecar:
    """Writes the form."""

    packs_images = False
    keeps_repeats = False
    keeps_machine = True

    def __init__(self, target: FormTarget) -> None:
        self.store = PictureFolder(target.folder, target.link)
        self.images, self.texts = Names(target.losses), Names(target.losses)
        self.losses = target.losses
        self.ledgers = CaptionLedgers()

    def put(self, item: OutputSample) -> None:
        """Store the image below its split's folder, and the text beside it."""
        name = self.images.of(item, lambda name: below_split(name, item.split))
        path = self.store.put(item.picture, name)
        captions = captions_on_one_line(item.captions, self.losses)
        lines = "".join(f"{caption}\n" for caption in captions)
        encoding = "utf-8-sig" if lines.startswith(BYTE_ORDER_MARK) else "utf-8"  # readers take the first mark off
        text = path.parent / self._text(name)
        write_new(text, lines.encode(encoding))
        self.ledgers.note(text, path.name, captions, item.machine)

    def close(self) -> None:
        """Every file is complete already."""

    def _text(self, name: str) -> str:
        """The name of an image's text file: `dog.txt`, or `dog.jpg.txt` where that could be another image's."""
        stem = os.path.splitext(name)[0]
        if os.path.splitext(stem)[1].lower() in IMAGE_SUFFIXES or not self.texts.claim(stem):
            return os.path.basename(name) + ".txt"
        return os.path.basename(stem) + ".txt"


def below_split(name: str, split: str) -> str:
    """A name whose first folder says the split; one that says it already stays.

    >>> below_split("a.jpg", "train"), below_split("val/a.jpg", "validation"), below_split("test/a.jpg", "all")
    ('train/a.jpg', 'val/a.jpg', 'all/test/a.jpg')
    """
    said = SPLIT_NAMES.get(name.split("/", 1)[0].lower(), "all") if "/" in name else "all"
    return name if said == split else f"{split}/{name}"


def captions_on_one_line(captions: tuple[str, ...], losses: Losses) -> list[str]:
    """Captions without line breaks, which a file with one caption per line can't hold.

    >>> captions_on_one_line(("a dog", " a dog\\non grass"), Losses())
    ['a dog', 'a dog on grass']
    """
    lines = [" ".join(filter(None, map(str.strip, caption.splitlines()))) for caption in captions]
    if changed := sum(line != caption.strip() for line, caption in zip(lines, captions, strict=True)):
        losses.add(JOINED, changed)
    return lines


FOLDER = "images"  # of images that were in none
MOST_REPEATS = 999
FIRST_ONLY = "one caption an image: {amount} more captions of {images} images are left out"
SPLITS = "each split is a folder and a data set of its own"

_REPEATS = re.compile(r"([1-9][0-9]{0,2})_.")


class Kohya:
    """Writes the form."""

    packs_images = False
    keeps_repeats = True
    keeps_machine = True

    def __init__(self, target: FormTarget) -> None:
        self.store = PictureFolder(target.folder, target.link)
        self.names = Names(target.losses)
        self.losses = target.losses
        self.ledgers = CaptionLedgers()
        self.several = len(target.splits) > 1
        if self.several:
            self.losses.add(SPLITS)

    def put(self, item: OutputSample) -> None:
        """Store the image in a folder that says its repeats, and its first caption beside it."""
        begin = f"{item.split}/" if self.several else ""
        name = self.names.of(item, lambda name: begin + place_for(name, item.repeats), unique=_text_of)
        if len(item.captions) > 1:
            self.losses.add(FIRST_ONLY, len(item.captions) - 1)
        path = self.store.put(item.picture, name)
        (caption,) = captions_on_one_line(item.captions[:1], self.losses)
        text = path.with_suffix(".txt")
        write_new(text, f"{caption}\n".encode())
        self.ledgers.note(text, path.name, (caption,), item.machine[:1])

    def close(self) -> None:
        """Every file is complete already."""


def place_for(name: str, repeats: int) -> str:
    """Where an image is: sd-scripts looks into folders called <repeats>_<name>, and no deeper.

    >>> place_for("10_dogs/1.jpg", 10), place_for("a/b/1.jpg", 2), place_for("1.jpg", 1), place_for("a/1.jpg.png", 1)
    ('10_dogs/1.jpg', '2_a/b_1.jpg', '1_images/1.jpg', '1_a/1_jpg.png')
    """
    folder, slash, rest = name.partition("/")
    if not slash:
        folder, rest = FOLDER, name
    repeats = min(max(repeats, 1), MOST_REPEATS)
    match = _REPEATS.match(folder)
    if match is None or int(match[1]) != repeats:
        folder = f"{repeats}_{folder}"
    stem, suffix = os.path.splitext(rest.replace("/", "_"))
    begin, inner = os.path.splitext(stem)
    if inner.lower() in IMAGE_SUFFIXES:  # the text of 1.jpg.png, 1.jpg.txt, would be taken for that of 1.jpg
        stem = f"{begin}_{inner[1:]}"
    return f"{folder}/{stem}{suffix}"


def _text_of(name: str) -> str:
    return os.path.splitext(name)[0]
