"""The pictures below a folder by what tables call them: without their endings, in another case, from a folder above, in archives.

A table that was written by hand, or on another machine, says `img_01` for `img/img_01.jpg`, `dog.jpg` for `dog.JPG`, and
"é" in the other normal form of Unicode. Each such name is looked up here, among the names of all pictures, which are listed
once: 100,000 rows cost one listing and 100,000 look-ups. Nothing is guessed: of two pictures that fit equally, none is it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from captrain.data.archived import ZipMember, pictures_in_archives
from captrain.data.shards.tars import StoredMember
from captrain.data.suffixes import is_unicode, split_suffix
from captrain.disk.walking import Folders

MOST_ENTRIES = 2_000_000  # listed; in more (a whole disk, say) nothing is searched for
DEEPEST = 6  # folders below the one of the table

IMAGE_FOLDER = "images"  # where pictures lie that a table names as if they lay beside it


class PictureIndex:
    """The pictures below a folder, a few hundred bytes each, listed when the first name is asked for."""

    def __init__(self, folder: str, folders: Callable[[], Folders]) -> None:
        """`folders` makes what lists the folder and those below it."""
        self.folder, self.folders_of = folder, folders
        self._by_stem: dict[str, list[str]] | None = None  # last part without ending → paths below the folder
        self._archived: dict[
            str, ZipMember | StoredMember
        ] = {}  # paths of pictures that lie in archives beside the table

    def __getstate__(self) -> dict[str, object]:
        """Without the names: another process lists them again, where it must."""
        return {**self.__dict__, "_by_stem": None, "_archived": {}}

    def archived(self, path: str) -> ZipMember | StoredMember | None:
        """The picture at a path, if names were listed and it lies in an archive that is not unpacked."""
        return self._archived.get(path)

    def look(self) -> None:
        """List the names now, if they are not."""
        self._names()

    def named(self, name: str) -> list[str]:
        """The pictures that a name may mean: a path below the folder, below its `images/`, else the end of any path.

        More than one are equally likely. A name without a picture's ending stands for a picture with any.
        """
        whole = plain_stem(name)
        return self.at(name) or [path for path in self.called(name) if plain_stem(path).endswith(f"/{whole}")]

    def at(self, name: str) -> list[str]:
        """The pictures that a path below the folder, or below its `images/`, may mean."""
        bare, whole = [(plain_stem(path), path) for path in self.called(name)], plain_stem(name)
        beside = [path for stem, path in bare if stem == whole]
        return beside or [path for stem, path in bare if stem == f"{IMAGE_FOLDER}/{whole}"]

    def called(self, name: str) -> list[str]:
        """The pictures, in any folder, that have a name's last part, with its ending if it has one."""
        base = name.rpartition("/")[2]
        suffix = split_suffix(base)[1]
        found = self._names().get(plain_stem(base), [])
        return [path for path in found if split_suffix(path)[1] == suffix] if suffix else found

    def folders(self) -> set[str]:
        """The folders that pictures lie in, "" for the index's own."""
        return {path.rpartition("/")[0] for paths in self._names().values() for path in paths}

    def _names(self) -> dict[str, list[str]]:
        if self._by_stem is None:
            self._archived = dict(pictures_in_archives(Path(self.folder)))
            self._by_stem = self._listed()
        return self._by_stem

    def _listed(self) -> dict[str, list[str]]:
        by_stem: dict[str, list[str]] = {}
        for count, path in enumerate(chain(self._paths(), self._archived)):
            if count >= MOST_ENTRIES:
                return {}
            if split_suffix(path)[1]:
                by_stem.setdefault(plain_stem(path.rpartition("/")[2]), []).append(path)
        return {stem: sorted(set(paths)) for stem, paths in by_stem.items()}

    def _paths(self) -> Iterator[str]:
        """Every file below the folder, hidden things left out. A folder that can't be listed is empty."""
        folders, left = self.folders_of(), [("", 0)]
        while left:
            prefix, depth = left.pop()
            try:
                entries = folders.entries(prefix)
            except OSError:
                continue
            for entry in entries:
                if entry.fault or not is_unicode(entry.name):
                    continue
                if not entry.is_folder:
                    yield prefix + entry.name
                elif depth < DEEPEST:
                    left.append((f"{prefix}{entry.name}/", depth + 1))


def plain_stem(name: str) -> str:
    """A path without a picture's ending, in the one normal form of Unicode that is compared."""
    stem = split_suffix(name)[0]
    return stem if stem.isascii() else unicodedata.normalize("NFC", stem)
