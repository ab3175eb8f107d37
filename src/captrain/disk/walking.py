"""What is in a folder and below it: one rule for hidden things, links, and what is no file, wherever folders are walked.

A link to a folder is followed only where a person asked for it. Each folder is then listed once, known by device and inode, so
that a link that leads up ends, and no picture is listed under two paths: the folder's own path goes before a link's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from captrain.disk.reading import NOT_READ_THROUGH, fault_of

READ_ALREADY = "is a link to a folder that is read already"
LINKED_FOLDER = "is a link to a folder; --follow-links reads it"

_SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir"}
)  # resource forks and thumbnails that macOS and Synology leave behind


class FolderEntry(NamedTuple):
    """Something in a folder. `fault` is why it can't be used, worded to follow its name; "" if nothing speaks against it."""

    name: str
    is_folder: bool
    fault: str = ""
    is_link: bool = False


def is_hidden(name: str) -> bool:
    """Whether a file or folder is the system's, not the user's: ".cache", "._dog.jpg", "__MACOSX".

    >>> [is_hidden(name) for name in ("._dog.jpg", "dog.jpg")]
    [True, False]
    """
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def names_in(folder: str | os.PathLike[str]) -> list[str]:
    """The names right in a folder, sorted, hidden ones left out. Raises `OSError` if it can't be listed."""
    with os.scandir(folder) as listing:
        return sorted(entry.name for entry in listing if not is_hidden(entry.name))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; never raising, even if a link leads back to itself."""
    return entry.is_dir(follow_symlinks=False) or (_is_link(entry) and os.path.isdir(entry))


class Folders:
    """Lists a folder and those below it, each when it is asked for.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> os.symlink(folder, os.path.join(folder, "up"))
    >>> Folders(folder, lambda path: True).entries(""), Folders(folder, lambda path: True, follow=True).entries("")
    ([FolderEntry(name='up', is_folder=True, fault='is a link to a folder; --follow-links reads it', is_link=True)], \
[FolderEntry(name='up', is_folder=True, fault='is a link to a folder that is read already', is_link=True)])
    """

    def __init__(self, folder: str | os.PathLike[str], holds: Callable[[str], bool], *, follow: bool = False) -> None:
        """`holds` says of a path whether it may be read, where all links lead; `follow`: links to folders are followed."""
        self.folder, self.holds, self.follow = os.fspath(folder), holds, follow
        self._real = os.path.realpath(self.folder)
        self._seen: set[tuple[int, int]] = set()  # folders that links led to, and those below them

    def entries(self, prefix: str) -> list[FolderEntry]:
        """What is in a folder, hidden things left out, in the order that sorts whole paths.

        `prefix` is the folder's path below the first one: "" or with a slash at its end. Raises `OSError` if it can't be listed.
        """
        with os.scandir(os.path.join(self.folder, prefix)) as listing:
            found = [(_is_link(entry), entry.name, entry) for entry in listing if not is_hidden(entry.name)]
        found.sort(key=lambda each: each[:2])  # links last: a folder's own path goes before theirs
        entries = [self._link(entry) if is_link else self._plain(entry) for is_link, _, entry in found]
        return sorted(entries, key=lambda entry: f"{entry.name}/" if entry.is_folder else entry.name)

    def _plain(self, entry: os.DirEntry[str]) -> FolderEntry:
        if entry.is_dir(follow_symlinks=False):
            return FolderEntry(entry.name, True, READ_ALREADY if self._seen and self._is_met(entry.path) else "")
        return FolderEntry(entry.name, False, "" if entry.is_file(follow_symlinks=False) else fault_of(entry.path))

    def _link(self, entry: os.DirEntry[str]) -> FolderEntry:
        if os.path.isdir(entry.path):
            return FolderEntry(entry.name, True, self._fault_of_folder(entry.path), is_link=True)
        fault = fault_of(entry.path) or ("" if self.holds(entry.path) else NOT_READ_THROUGH)
        return FolderEntry(entry.name, False, fault, is_link=True)

    def _fault_of_folder(self, path: str) -> str:
        """Why a link to a folder is not followed. What is below the first folder is listed by its own path."""
        if not self.follow:
            return LINKED_FOLDER
        real = os.path.join(os.path.realpath(path), "")
        below = os.path.relpath(real, self._real).split(os.sep)
        is_above = os.path.join(self._real, "").startswith(real)
        return READ_ALREADY if is_above or not any(map(is_hidden, below)) or self._is_met(path) else ""

    def _is_met(self, path: str) -> bool:
        """Whether a folder was met before, behind a link; from now on it was."""
        try:
            found = os.stat(path)
        except OSError:  # it is gone, or will be refused when it is listed
            return False
        key = (found.st_dev, found.st_ino)
        is_met = key in self._seen
        self._seen.add(key)
        return is_met


def _is_link(entry: os.DirEntry[str]) -> bool:
    """Whether an entry leads elsewhere: a symbolic link, or one of Windows' junctions."""
    is_junction: Callable[[], bool] | None = getattr(entry, "is_junction", None)
    return entry.is_symlink() or (is_junction is not None and is_junction())
