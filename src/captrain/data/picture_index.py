"""The pictures below a folder by what tables call them: without their endings, in another case, from a folder above.

A table that was written by hand, or on another machine, says `img_01` for `img/img_01.jpg`, `dog.jpg` for `dog.JPG`, and
"é" in the other normal form of Unicode. Each such name is looked up here, among the names of all pictures, which are listed
once: 100,000 rows cost one listing and 100,000 look-ups. Nothing is guessed: of two pictures that fit equally, none is it.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator

from captrain.data.suffixes import is_hidden, is_unicode, split_suffix

MOST_ENTRIES = 2_000_000  # listed; in more (a whole disk, say) nothing is searched for
DEEPEST = 6  # folders below the one of the table

IMAGE_FOLDER = "images"  # where pictures lie that a table names as if they lay beside it


class PictureIndex:
    """The pictures below a folder, a few hundred bytes each, listed when the first name is asked for."""

    def __init__(self, folder: str, holds: Callable[[str], bool]) -> None:
        """`holds` says of a link's path whether it stays in the folder; others are left out."""
        self.folder, self.holds = folder, holds
        self._by_stem: dict[str, list[str]] | None = None  # last part without ending → paths below the folder

    def __getstate__(self) -> dict[str, object]:
        """Without the names: another process lists them again, where it must."""
        return {**self.__dict__, "_by_stem": None}

    def named(self, name: str) -> list[str]:
        """The pictures that a name may mean: a path below the folder, below its `images/`, else the end of any path.

        More than one are equally likely. A name without a picture's ending stands for a picture with any.
        """
        whole = _plain(split_suffix(name)[0])
        bare = [(_plain(split_suffix(path)[0]), path) for path in self.called(name)]
        for place in (whole, f"{IMAGE_FOLDER}/{whole}"):
            if there := [path for stem, path in bare if stem == place]:
                return there
        return [path for stem, path in bare if stem.endswith(f"/{whole}")]

    def called(self, name: str) -> list[str]:
        """The pictures, in any folder, that have a name's last part, with its ending if it has one."""
        if self._by_stem is None:
            self._by_stem = self._listed()
        stem, suffix = split_suffix(name.rpartition("/")[2])
        found = self._by_stem.get(_plain(stem), [])
        return [path for path in found if not suffix or split_suffix(path)[1] == suffix]

    def folders(self) -> set[str]:
        """The folders that pictures lie in, "" for the index's own."""
        if self._by_stem is None:
            self._by_stem = self._listed()
        return {path.rpartition("/")[0] for paths in self._by_stem.values() for path in paths}

    def _listed(self) -> dict[str, list[str]]:
        by_stem: dict[str, list[str]] = {}
        for count, path in enumerate(self._paths()):
            if count >= MOST_ENTRIES:
                return {}
            stem, suffix = split_suffix(path.rpartition("/")[2])
            if suffix:
                by_stem.setdefault(_plain(stem), []).append(path)
        return by_stem

    def _paths(self) -> Iterator[str]:
        """Everything below the folder that is no folder, hidden things left out. A folder that can't be listed is empty."""
        left = [("", 0)]
        while left:
            prefix, depth = left.pop()
            try:
                with os.scandir(os.path.join(self.folder, prefix)) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in entries:
                if is_hidden(entry.name) or not is_unicode(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if depth < DEEPEST:
                        left.append((f"{prefix}{entry.name}/", depth + 1))
                elif not entry.is_symlink() or self.holds(entry.path):
                    yield prefix + entry.name


def _plain(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)
