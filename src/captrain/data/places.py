"""Where the files of a data set may lie: below its folder, whatever its tables and links say."""

from __future__ import annotations

import os
import posixpath
import reprlib
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from captrain.errors import DataError, nearest

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
UNREAD_SUFFIXES = frozenset({".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".cr2", ".nef", ".arw", ".dng"})

IMAGE_FOLDERS = (  # where pictures lie beside their table, as data sets are handed out
    *("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images"),
)

_SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir"}
)  # resource forks and thumbnails that macOS and Synology leave behind


def is_hidden(name: str) -> bool:
    """Whether a file or folder is the system's, not the user's: ".cache", "._dog.jpg", "__MACOSX".

    >>> [is_hidden(name) for name in ("._dog.jpg", "dog.jpg")]
    [True, False]
    """
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def is_remote(source: str) -> bool:
    """Whether a source is a URL, not a path.

    >>> [is_remote(source) for source in ("s3://bucket/00000.tar", "photos", "C:/photos")]
    [True, False, False]
    """
    return "://" in source


def existing(path: Path) -> Path:
    """`path`, if it is there; otherwise a `DataError` with the nearest name beside it."""
    try:
        if path.exists():
            return path
    except OSError as error:  # a name that is too long, or a folder above that may not be entered
        raise DataError(f"{str(path)[:200]}: can't be opened ({error.strerror})") from None
    parent = path.parent
    if not parent.is_dir():
        raise DataError(f"{path}: not found; the folder {parent} does not exist either")
    hint = nearest(path.name, (entry.name for entry in parent.iterdir()))
    raise DataError(
        f"{path}: not found.{hint} Expected a folder with pictures and captions, or a .jsonl file that lists them"
    )


class Root:
    """The folder of a data set. Says where a named file is, and refuses what lies outside.

    The files of a Hugging Face cache (`snapshots/<revision>/...`) are links to `blobs/` beside `snapshots/`: those are
    inside.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bounds = [os.path.realpath(folder)]
        for above in Path(self._bounds[0]).parents:
            if above.name == "snapshots" and (above.parent / "blobs").is_dir():
                self._bounds.append(str(above.parent / "blobs"))
        self._folders = [name for name in IMAGE_FOLDERS if os.path.isdir(os.path.join(folder, name))]
        self._inside: dict[str, bool] = {}  # folder → whether it is inside, so that links are followed once a folder

    def holds(self, path: str) -> bool:
        """Whether `path`, below the folder by its name, is there in truth once all links are followed."""
        real = os.path.realpath(path)
        return any(real == bound or real.startswith(os.path.join(bound, "")) for bound in self._bounds)

    def find(self, name: str, where: str) -> str | None:
        """The posix path, relative to the folder, of the image that a table calls `name`; None if there is none.

        Looked for below the folder, then below `images/` or another of `IMAGE_FOLDERS` in it, as written and in both normal
        forms of Unicode (macOS and Linux spell "é" differently). Raises `DataError`, beginning with `where`, for a path
        that leaves the folder.
        """
        relative = posixpath.normpath(name.replace("\\", "/"))
        if relative.startswith(("../", "/")) or relative == ".." or os.path.isabs(name) or os.path.splitdrive(name)[0]:
            raise DataError(
                f"{where}: {reprlib.repr(name)} leaves the folder {self.folder}; expected a path below it, or give --image-root"
            )
        for spelling in _spellings(relative):
            for candidate in (spelling, *(f"{folder}/{spelling}" for folder in self._folders)):
                if self._is_file(candidate, name, where):
                    return candidate
        return None

    def _is_file(self, candidate: str, name: str, where: str) -> bool:
        path = os.path.join(self.folder, candidate)
        try:
            mode = os.lstat(path).st_mode
        except (OSError, ValueError):  # ValueError: a NUL or half a surrogate pair in the name
            return False
        parent = os.path.dirname(path)
        if parent not in self._inside:
            self._inside[parent] = self.holds(parent)
        if not self._inside[parent] or (stat.S_ISLNK(mode) and not self.holds(path)):
            raise DataError(
                f"{where}: {reprlib.repr(name)} is a link that leaves the folder {self.folder}; copy the file into it"
            )
        return stat.S_ISREG(mode) or (stat.S_ISLNK(mode) and os.path.isfile(path))


def _spellings(name: str) -> Iterable[str]:
    if name.isascii():
        return (name,)
    return dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)))
