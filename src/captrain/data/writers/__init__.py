"""The forms of data that captrain writes: what every writer of a form offers, and `WRITERS`, the class of each form by its name.

A writer is made with a folder and the names of the splits, takes one sample at a time, and is closed at the end. The folder
comes from `new_folder`: it appears under its name only when everything is written, and never takes the place of what it is
made from. What a form can't hold is counted in `Losses` and reported, one line per kind.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, cast

from captrain.data.absolute_paths import OutsidePicture
from captrain.data.safe_paths import is_remote
from captrain.data.writers.picture_output import OutputPicture
from captrain.disk.folders import aside, fresh_folder, make_folder, replace_folder, settle, sync_tree
from captrain.disk.lock_file import no_folder
from captrain.disk.locks import FOLDER_LOCK, locked, locked_folder
from captrain.errors import DataError, SettingsError, nearest
from captrain.records import Sample

WRITERS: dict[str, str] = {
    "metadata-jsonl": "captrain.data.writers.tables:MetadataJsonl",
    "sidecar": "captrain.data.writers.text_files:Sidecar",
    "kohya": "captrain.data.writers.text_files:Kohya",
    "coco": "captrain.data.writers.coco:Coco",
    "webdataset": "captrain.data.writers.webdataset:WebDataset",
    "parquet": "captrain.data.writers.parquet:Parquet",
    "csv": "captrain.data.writers.tables:CsvTable",
}

SHARD_SIZE = 1000  # samples of a tar or parquet file


@dataclass(frozen=True, slots=True)
class OutputSample:
    """One sample on its way out. `captions` has at least one, `picture` is ready to be stored, `machine` is as in `Sample`."""

    id: str
    split: str
    captions: tuple[str, ...]
    picture: OutputPicture
    repeats: int = 1
    machine: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FormTarget:
    """Where and how a writer writes.

    folder: new and empty, and all that is written is below it.
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


class FormWriter(Protocol):
    """What every form's class offers."""

    packs_images: bool
    """Whether images are inside tables or tars, and not as files of their own."""

    keeps_repeats: bool
    """Whether the form says how often an epoch shows an image."""

    keeps_machine: bool
    """Whether the form says which captions captrain wrote."""

    def __init__(self, target: FormTarget) -> None: ...

    def put(self, item: OutputSample) -> None:
        """Write one. Raises `PictureError`, with nothing written of it, for a picture that the form can't hold."""

    def close(self) -> None:
        """Finish: all samples are written."""


def writer(name: str) -> type[FormWriter]:
    """The class that writes a form, imported only now."""
    if name not in WRITERS:
        raise SettingsError(f"form '{name}' is unknown: expected {', '.join(WRITERS)}.{nearest(name, WRITERS)}")
    module, _, form = WRITERS[name].partition(":")
    return cast(type[FormWriter], getattr(importlib.import_module(module), form))


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


Result = TypeVar("Result")


@contextmanager
def new_folder(folder: Path, sources: Sequence[str], overwrite: bool) -> Iterator[Path]:
    """A folder to write into, beside `folder`, which it becomes when the work is done; it is removed when that fails.

    Raises `DataError` if `folder` is there and holds something (unless `overwrite`), or if one of it and a source is inside
    the other, where they would be mixed up or the source be deleted; `BusyError` while something else writes it.
    """
    if folder.is_symlink() and not folder.is_dir():
        raise DataError(no_folder(folder))
    final = Path(os.path.realpath(folder))
    for source in sources:
        _check_apart(final, folder, source)
    make_folder(folder.parent)
    check = partial(_check_taken, final, folder, overwrite)
    with locked(final):
        settle(final, aside(final))
        check()
        with _not_in_use(final), fresh_folder(final.parent) as fresh:
            yield fresh
            sync_tree(fresh)
            check()
            with _not_in_use(final):
                replace_folder(fresh, final, aside(final))


def _not_in_use(folder: Path) -> AbstractContextManager[None]:
    """The lock of those who change what is in a folder, if it is there."""
    return locked_folder(folder, goes=True) if folder.exists() else nullcontext()


def guarded(prepare: Callable[[Sample], Result], folder: Path) -> Callable[[Sample], Result]:
    """`prepare`, but a `DataError` for an image that is in a folder which is to be replaced: it would be deleted."""
    if not folder.exists():
        return prepare
    final = os.path.realpath(folder)

    def checked(sample: Sample) -> Result:
        file = sample.image.path if isinstance(sample.image, OutsidePicture) else sample.image
        if isinstance(file, Path) and _inside(os.path.realpath(file), final):
            raise DataError(f"{folder}: holds {file}, which is to be read; choose another folder")
        return prepare(sample)

    return checked


def _check_taken(final: Path, folder: Path, overwrite: bool) -> None:
    if not final.exists():
        return
    if not final.is_dir():
        raise DataError(f"{folder}: is a file; expected the name of a new folder")
    if all(entry.name == FOLDER_LOCK for entry in final.iterdir()):
        return
    if not overwrite:
        raise DataError(
            f"{folder}: is there already; choose another folder, or --overwrite to replace all that is in it"
        )
    for name, place in (("working", Path.cwd()), ("home", Path.home())):
        if _inside(os.path.realpath(place), str(final)):
            raise DataError(
                f"{folder}: holds the {name} folder, and --overwrite would delete it; choose another folder"
            )


def _check_apart(final: Path, folder: Path, source: str) -> None:
    """`source` may be a pattern of names; then its path does not exist, but shows where the files are."""
    if is_remote(source):
        return
    origin = os.path.realpath(source)
    if _inside(origin, str(final)):
        raise DataError(f"{folder}: is or holds the source {source}; choose another folder")
    if os.path.isdir(origin) and _inside(str(final), origin):
        raise DataError(f"{folder}: is in the source {source} and would become part of it; choose a folder outside")


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))
