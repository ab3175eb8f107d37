"""Folders for sd-scripts (kohya-ss): `10_dogs/1.jpg` and `1.txt`, one caption an image, shown ten times an epoch.

Several splits become several such data sets, in folders called train, validation and test.
"""

from __future__ import annotations

import os
import re

from captrain.data.machine import CaptionLedgers
from captrain.data.places import IMAGE_SUFFIXES
from captrain.data.writers import FormTarget, OutputSample
from captrain.data.writers.names import Names
from captrain.data.writers.pictures import PictureFolder
from captrain.data.writers.sidecar import captions_on_one_line
from captrain.disk.writing import write_new

FOLDER = "images"  # of images that lay in none
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
    """Where an image lies: sd-scripts looks into folders called <repeats>_<name>, and no deeper.

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


FORM = Kohya
