"""Absolute paths in a table: those of another machine, found below the folder, and those of this one.

A path of another machine (`/home/ubuntu/project/images/a.png`, `C:\\photos\\a.png`) is matched by its trailing parts: by as
many as lead from the folder, or from its `images/`, to a picture; else by two or more that are the end of one picture's path
alone; else by its name, where all pictures are in one folder. What was cut off is decided by the first such path and holds
for every other that begins with it, so that a picture that is missing in one folder is never taken from another. If two
pictures fit equally well, neither is used.

A path of this machine is read where it is. A table may come from a stranger, and what it names may end up in a folder
that is handed on, so a path must not be a way to anybody's secrets:

- Only plain files that have a picture's name, also after links are followed, and whose first bytes are those of a
  picture are ever opened for a sample. Keys, documents, devices and pipes are none of these, whatever a table says.
- Folders outside that are read are logged: the first few, each once. Captions are never written beside such a picture.
- `--image-root` confines reading: whatever a table says, only pictures below that folder are read. A table in the cache of a hub,
  which is always a stranger's, is confined to its folder in any case. Relative paths never leave the folder (`..`).
- Names on other hosts (`\\\\host\\share`) are only matched, never opened: Windows would log in there.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from captrain.data.picture_files import LONGEST_MARK, split_suffix, suffix_of_content
from captrain.data.picture_index import PictureIndex, plain_stem
from captrain.data.splits import SPLIT_NAMES
from captrain.disk.reading import open_file, read_file
from captrain.errors import DataError

logger = logging.getLogger(__name__)

MOST_TOLD = 3  # folders for which it is logged how they were matched, or that they are read

_ABSOLUTE = re.compile(r"/|~/|[A-Za-z]:/")
_WORDS = re.compile(r"[^a-z0-9]+")


class ImageFolder(Protocol):
    """What is asked of the folder that image names are relative to; `captrain.data.safe_paths.Root` is one."""

    @property
    def folder(self) -> Path: ...
    @property
    def index(self) -> PictureIndex: ...
    def exact(self, name: str, where: str) -> str | None: ...


def is_absolute(written: str) -> bool:
    """Whether a path, with forward slashes, is an absolute one of any system.

    >>> [is_absolute(path) for path in ("/data/a.jpg", "C:/data/a.jpg", "~/a.jpg", "//host/a.jpg", "data/a.jpg")]
    [True, True, True, True, False]
    """
    return _ABSOLUTE.match(written) is not None


def is_here(path: str) -> bool:
    """Whether an absolute path leads to something on this machine; other hosts are not asked."""
    return os.path.isabs(path) and not path.startswith("//") and os.path.lexists(path)


class MovedPaths:
    """Paths of another machine: which beginnings were cut off, and which folder is in their place."""

    def __init__(self, root: ImageFolder) -> None:
        self.root = root
        self.known: dict[
            str, str
        ] = {}  # beginning of paths, with a slash at its end → folder below the root, so too or ""

    def find(self, path: str, where: str) -> str | None:
        """The picture below the folder that a path of another machine means. Raises `DataError` for contradictions."""
        likely = self.likely(path, where)
        if len(likely) == 1 and self._beginning(path) is None:
            self._learn(path, likely[0], where)
        return likely[0] if len(likely) == 1 else None

    def likely(self, path: str, where: str) -> list[str]:
        """The pictures below the folder that a path may mean, all as likely; an empty list if there is none."""
        beginning = self._beginning(path)
        if beginning is None:
            return self._looked_for(path, where)
        rest = path.removeprefix(beginning)
        found = self._at(self.known[beginning] + rest, where)
        if (
            not found
            and len(other := self._looked_for(path, where)) == 1
            and shared_parts(other[0], path) > rest.count("/") + 1
        ):
            self._learn(path, other[0], where)  # which raises the error that both can't be right
        return found

    def _looked_for(self, path: str, where: str) -> list[str]:
        """The pictures that a path may mean when nothing is known of its beginning."""
        parts = path.split("/")
        for cut in range(1, len(parts)):
            if found := self._at("/".join(parts[cut:]), where):
                return found
        return self._by_ends(path)

    def _at(self, relative: str, where: str) -> list[str]:
        """The picture at a path below the folder, or those that it may mean if it has no ending."""
        found = self.root.exact(relative, where)
        return [found] if found and split_suffix(found)[1] else self.root.index.at(relative)

    def _by_ends(self, path: str) -> list[str]:
        """The pictures that share the most last parts with the path."""
        shared: dict[int, list[str]] = {}
        for picture in self.root.index.called(path):
            shared.setdefault(shared_parts(picture, path), []).append(picture)
        most = max(shared, default=0)
        if most == 1 and not self._in_the_only_folder(path):
            return shared[1] if len(shared[1]) > 1 else []
        return shared.get(most, [])

    def _in_the_only_folder(self, path: str) -> bool:
        """Whether all pictures are in one folder, that is not another split than the path's, and the path leads nowhere."""
        if is_here(path):
            return False
        folders = self.root.index.folders()
        return len(folders) == 1 and _splits_in(*folders) <= _splits_in(path)

    def _beginning(self, path: str) -> str | None:
        """The longest known beginning of a path."""
        end = path.rfind("/")
        while end >= 0 and path[: end + 1] not in self.known:
            end = path.rfind("/", 0, end)
        return path[: end + 1] if end >= 0 else None

    def _learn(self, path: str, found: str, where: str) -> None:
        count = shared_parts(found, path)
        beginning, local = (_without_last(name, count) for name in (path, found))
        for known, place in self.known.items():
            if known.startswith(beginning) and place != local + known.removeprefix(beginning):
                raise DataError(
                    f"{where}: '{path[:200]}' fits {self.root.folder / found}, but paths that begin with {known} fit "
                    f"{self.root.folder / place}, where others are; expected one place, or relative paths in the table"
                )
        self.known[beginning] = local
        if len(self.known) <= MOST_TOLD:
            logger.info("%s: paths that begin with %s are matched below %s", where, beginning, self.root.folder / local)


class PathsHere:
    """Paths of this machine that are outside of the folder; see above for what may be read."""

    def __init__(self, root: ImageFolder) -> None:
        self.root = root
        self.folders: dict[str, str] = {}  # of an id: the folder that its picture is in
        self.refused: set[str] = set()

    def find(self, path: str, where: str) -> str | None:
        """The id of a picture at an absolute path: the path without what makes it absolute; None if none may be read."""
        if not is_here(path) or not is_picture(path):
            return None
        name = re.sub(r"^([A-Za-z]):", r"\1", path).lstrip("/")
        if self.root.exact(name, where):
            return name
        folder = name.rpartition("/")[0]
        if folder not in self.folders:
            self.folders[folder] = os.path.dirname(path)
            if len(self.folders) <= MOST_TOLD:
                logger.warning(
                    "%s: pictures are read from %s, outside of %s; --image-root FOLDER confines them",
                    *(where, self.folders[folder], self.root.folder),
                )
        return name

    def picture(self, name: str) -> OutsidePicture | None:
        """The picture with such an id; None if it is in the folder."""
        folder, _, base = name.rpartition("/")
        if folder not in self.folders or os.path.lexists(os.path.join(self.root.folder, name)):
            return None
        return OutsidePicture(Path(self.folders[folder]) / base)


@dataclass(frozen=True, slots=True)
class OutsidePicture:
    """A picture that is outside of its table's folder. It is only read: nothing is written beside it."""

    path: Path

    def read(self) -> bytes:
        """The encoded picture. Raises `OSError` if it is no longer a picture."""
        if not is_picture(str(self.path)):
            raise OSError("is no longer a picture")
        return read_file(self.path)

    def __str__(self) -> str:
        return str(self.path)


def is_picture(path: str) -> bool:
    """Whether a path leads to a plain file that is called a picture, by its links' true name too, and begins as one."""
    try:
        real = os.path.realpath(path)
        if not split_suffix(path)[1] or not split_suffix(real)[1] or not stat.S_ISREG(os.stat(real).st_mode):
            return False
        with open_file(real) as file:
            return bool(suffix_of_content(file.read(LONGEST_MARK)))
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False


def shared_parts(picture: str, path: str) -> int:
    """How many last parts two paths share, endings of pictures apart.

    >>> shared_parts("data/images/a.png", "/home/me/images/a"), shared_parts("b.png", "/home/me/a.png")
    (2, 0)
    """
    pairs = zip(reversed(plain_stem(picture).split("/")), reversed(plain_stem(path).split("/")), strict=False)
    return next((count for count, (one, other) in enumerate(pairs) if one != other), picture.count("/") + 1)


def _without_last(path: str, count: int) -> str:
    """A path without its last parts.

    >>> _without_last("/home/me/images/a.png", 2), _without_last("a.png", 1)
    ('/home/me/', '')
    """
    parts = path.split("/")[:-count]
    return "/".join(parts) + "/" if parts else ""


def _splits_in(path: str) -> set[str]:
    """The splits named by words of a path."""
    return {SPLIT_NAMES[word] for word in _WORDS.split(path.lower()) if word in SPLIT_NAMES and word != "all"}
