"""Images with a text file beside each, `dog.jpg` and `dog.txt`, a caption a line.

Splits become folders. Where two images would share a text file, the second one's is called `dog.png.txt`.
"""

from __future__ import annotations

import os

from captrain.data.machine import Ledgers
from captrain.data.places import IMAGE_SUFFIXES
from captrain.data.readers import SPLIT_NAMES
from captrain.data.writers import Item, Losses, Target
from captrain.data.writers.names import Names
from captrain.data.writers.pictures import Store
from captrain.disk.writing import write_new

JOINED = "captions with line breaks, in {images} images: written on one line, {amount} in all"
BYTE_ORDER_MARK = "\ufeff"


class Sidecar:
    """Writes the form."""

    packs_images = False
    keeps_repeats = False
    keeps_machine = True

    def __init__(self, target: Target) -> None:
        self.store = Store(target.folder, target.link)
        self.images, self.texts = Names(target.losses), Names(target.losses)
        self.losses = target.losses
        self.ledgers = Ledgers()

    def put(self, item: Item) -> None:
        """Store the image below its split's folder, and the text beside it."""
        name = self.images.of(item, lambda name: below_split(name, item.split))
        path = self.store.put(item.picture, name)
        captions = on_one_line(item.captions, self.losses)
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


def on_one_line(captions: tuple[str, ...], losses: Losses) -> list[str]:
    """Captions without line breaks, which a file with a caption a line can't hold.

    >>> on_one_line(("a dog", " a dog\\non grass"), Losses())
    ['a dog', 'a dog on grass']
    """
    lines = [" ".join(filter(None, map(str.strip, caption.splitlines()))) for caption in captions]
    if changed := sum(line != caption.strip() for line, caption in zip(lines, captions, strict=True)):
        losses.add(JOINED, changed)
    return lines


FORM = Sidecar
