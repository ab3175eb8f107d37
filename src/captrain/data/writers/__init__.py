"""Forms of data that are written, one file each.

A form's module has one class, `FORM`, a `Writer`: it is made with a folder and the names of the splits, takes items one at
a time, and closes. The folder is new and empty, and becomes the result only when all is done (`data.convert` sees to that).

What a form of data can't hold, counted while writing and said in one line each.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from captrain.data.writers.pictures import Picture
from captrain.errors import SettingsError, nearest

WRITERS: dict[str, str] = {
    "metadata-jsonl": "captrain.data.writers.metadata_jsonl",
    "sidecar": "captrain.data.writers.sidecar",
    "kohya": "captrain.data.writers.kohya",
    "coco": "captrain.data.writers.coco",
    "webdataset": "captrain.data.writers.webdataset",
    "parquet": "captrain.data.writers.parquet",
    "csv": "captrain.data.writers.csv_table",
}

SHARD_SIZE = 1000  # samples of a tar or parquet file


@dataclass(frozen=True, slots=True)
class Item:
    """One sample on its way out. `captions` has at least one, `picture` is ready to be stored, `machine` is as in `Sample`."""

    id: str
    split: str
    captions: tuple[str, ...]
    picture: Picture
    repeats: int = 1
    machine: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how a writer writes.

    folder: new and empty, and all that is written lies below it.
    splits: the names of all splits, before the first item.
    losses: takes note of what the form can't hold.
    link: whether images may be hard links to the source's files.
    shard_size: samples of a file, in forms that have shards.
    quote_formulas: whether cells that a spreadsheet would run are written so that it doesn't, in forms that are tables of text.
    """

    folder: Path
    splits: Sequence[str]
    losses: Losses
    link: bool = False
    shard_size: int = SHARD_SIZE
    quote_formulas: bool = False


class Writer(Protocol):
    """What every form's class offers."""

    packs_images: bool
    """Whether images lie inside tables or tars, and not as files of their own."""

    keeps_repeats: bool
    """Whether the form says how often an epoch shows an image."""

    keeps_machine: bool
    """Whether the form says which captions captrain wrote."""

    def __init__(self, target: Target) -> None: ...

    def put(self, item: Item) -> None:
        """Write one. Raises `PictureError`, with nothing written of it, for a picture that the form can't hold."""

    def close(self) -> None:
        """All items are written."""


def writer(name: str) -> type[Writer]:
    """The class that writes a form, imported only now."""
    if name not in WRITERS:
        raise SettingsError(f"form '{name}' is unknown: expected {', '.join(WRITERS)}.{nearest(name, WRITERS)}")
    return cast(type[Writer], importlib.import_module(WRITERS[name]).FORM)


@dataclass(slots=True)
class Losses:
    """Counts by kind of loss.

    >>> losses = Losses()
    >>> losses.add("kohya holds one caption an image: {amount} captions of {images} images are left out", 4)
    >>> losses.add("kohya holds one caption an image: {amount} captions of {images} images are left out", 2)
    >>> losses.lines()
    ['kohya holds one caption an image: 6 captions of 2 images are left out']
    """

    counts: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, what: str, amount: int = 1) -> None:
        """Note one more image; `what` is a sentence with `{images}` and perhaps `{amount}` in it."""
        images, total = self.counts.get(what, (0, 0))
        self.counts[what] = (images + 1, total + amount)

    def lines(self) -> list[str]:
        """One sentence for each kind."""
        return [what.format(images=images, amount=amount) for what, (images, amount) in self.counts.items()]
