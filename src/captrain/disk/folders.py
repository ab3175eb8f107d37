<<<<<<< HEAD
"""What lies in a folder and below it: one rule for hidden things, links, and what is no file, wherever folders are walked.

A link to a folder is followed only where a person asked for it. Then each folder is listed once, told by device and inode, so
that a link that leads up ends, and no picture is listed under two paths: the folder's own path goes before a link's.
=======
"""Folders that are made, filled and removed without going through a link, and brought to the disk before they are relied on.

A folder that a person names may be reached through links. What lies below it may be a stranger's (a run that somebody sent),
so there nothing is followed for writing or removing.
>>>>>>> main
"""

from __future__ import annotations

<<<<<<< HEAD
import os
from collections.abc import Callable
from typing import NamedTuple

from captrain.disk.reading import NOT_READ_THROUGH, fault_of

READ_ALREADY = "is a link to a folder that is read already"
LINKED_FOLDER = "is a link to a folder; --follow-links reads it"

_SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir"}
)  # resource forks and thumbnails that macOS and Synology leave behind


class Entry(NamedTuple):
    """Something in a folder. `fault` is why it can't be used, to be read after its name; "" if nothing speaks against it."""

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
    """Whether an entry is a folder, or a link to one; never raising, where a link leads back to itself say."""
    return entry.is_dir(follow_symlinks=False) or (_is_link(entry) and os.path.isdir(entry))


class Folders:
    """Lists a folder and those below it, each when it is asked for.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> os.symlink(folder, os.path.join(folder, "up"))
    >>> Folders(folder, lambda path: True).entries(""), Folders(folder, lambda path: True, follow=True).entries("")
    ([Entry(name='up', is_folder=True, fault='is a link to a folder; --follow-links reads it', is_link=True)], \
[Entry(name='up', is_folder=True, fault='is a link to a folder that is read already', is_link=True)])
    """

    def __init__(self, folder: str | os.PathLike[str], holds: Callable[[str], bool], *, follow: bool = False) -> None:
        """`holds` says of a path whether it may be read, where all links lead; `follow`: links to folders are followed."""
        self.folder, self.holds, self.follow = os.fspath(folder), holds, follow
        self._real = os.path.realpath(self.folder)
        self._seen: set[tuple[int, int]] = set()  # folders that links led to, and those below them

    def entries(self, prefix: str) -> list[Entry]:
        """What lies in a folder, hidden things left out, in the order that sorts whole paths.

        `prefix` is the folder's path below the first one: "" or with a slash at its end. Raises `OSError` if it can't be listed.
        """
        with os.scandir(os.path.join(self.folder, prefix)) as listing:
            found = [(_is_link(entry), entry.name, entry) for entry in listing if not is_hidden(entry.name)]
        found.sort(key=lambda each: each[:2])  # links last: a folder's own path goes before theirs
        entries = [self._link(entry) if is_link else self._plain(entry) for is_link, _, entry in found]
        return sorted(entries, key=lambda entry: f"{entry.name}/" if entry.is_folder else entry.name)

    def _plain(self, entry: os.DirEntry[str]) -> Entry:
        if entry.is_dir(follow_symlinks=False):
            return Entry(entry.name, True, READ_ALREADY if self._seen and self._is_met(entry.path) else "")
        return Entry(entry.name, False, "" if entry.is_file(follow_symlinks=False) else fault_of(entry.path))

    def _link(self, entry: os.DirEntry[str]) -> Entry:
        if os.path.isdir(entry.path):
            return Entry(entry.name, True, self._fault_of_folder(entry.path), is_link=True)
        fault = fault_of(entry.path) or ("" if self.holds(entry.path) else NOT_READ_THROUGH)
        return Entry(entry.name, False, fault, is_link=True)

    def _fault_of_folder(self, path: str) -> str:
        """Why a link to a folder is not followed. What lies below the first folder is listed by its own path."""
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
=======
import contextlib
import ctypes
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from captrain.disk.temporary import clear_litter, hold, temporary_name
from captrain.errors import UserError

FEW = 16
"""So many files are brought to the disk one by one (some milliseconds each)."""


@contextmanager
def fresh_folder(parent: Path) -> Iterator[Path]:
    """An empty folder of a random name in `parent`, to be renamed when it is full; what is left of it at the end is removed.

    >>> import tempfile
    >>> parent = Path(tempfile.mkdtemp())
    >>> with fresh_folder(parent) as folder:
    ...     _ = os.replace(folder, parent / "model")
    >>> [entry.name for entry in parent.iterdir()]
    ['model']
    """
    clear_litter(parent)
    folder, handle = _held(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def replace_folder(new: Path, final: Path, old: Path) -> None:
    """Let a folder that is on the disk take the place of another, which is called `old` for a moment, and is gone only then."""
    remove(old)
    if os.path.lexists(final):
        os.replace(final, old)
    try:
        os.replace(new, final)
    except BaseException:
        put_back(final, old)
        raise
    sync_folder(final.parent)
    remove(old)


def aside(final: Path) -> Path:
    """Where a folder goes that is being replaced: a hidden name beside it, the same for every process.

    >>> aside(Path("out/photos")).name
    '.captrain-c2d20b20dd9eee29.old'
    """
    return final.with_name(f".captrain-{hashlib.blake2b(os.fsencode(final.name), digest_size=8).hexdigest()}.old")


def put_back(final: Path, old: Path) -> None:
    """Repair a `replace_folder` that was cut off between its renames."""
    if os.path.lexists(old) and not os.path.lexists(final):
        os.replace(old, final)


def make_folders(folder: Path, below: Path) -> Path:
    """Make a folder, and those on the way to it, `below` one that a person named; returns it.

    Raises `UserError` if something on that way is a link or a file.
    """
    below.mkdir(parents=True, exist_ok=True)
    for place in _way(folder, below):
        try:
            os.mkdir(place)
        except FileExistsError:
            _check_folder(place)
    return folder


def check_way(folder: Path, below: Path) -> None:
    """Raise `UserError` if something on the way to a folder, `below` one that a person named, is a link or a file."""
    for place in _way(folder, below):
        if not os.path.lexists(place):
            return
        _check_folder(place)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there; never what a link leads to.

    Raises `UserError` if `path` is a link.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise link_error(path)
    if stat.S_ISDIR(mode):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_all(paths: Iterable[Path], folder: Path) -> None:
    """The same files and folders under another folder, without a byte more on the disk where it can link; else copies.

    Neither side may change a file in place afterwards: what replaces files by renaming new ones does not. Raises `UserError`
    if one is a link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        if os.path.lexists(path):
            link_tree(path, folder / path.name)


def link_tree(source: Path, target: Path, *, copies: bool = False) -> None:
    """A file or a whole folder under another name: hard links, or `copies`. Raises `UserError` if there is a link in it."""
    if source.is_symlink():
        raise link_error(source)
    if source.is_dir():
        target.mkdir()
        for entry in sorted(source.iterdir()):
            link_tree(entry, target / entry.name, copies=copies)
    elif not (not copies and _linked(source, target)):
        shutil.copy2(source, target)


def sync_tree(folder: Path) -> None:
    """Wait until all files of a folder, and the folder itself, are on the disk; links to files that are there already too."""
    sync_all([*sorted(folder.rglob("*"), reverse=True), folder])


def sync_all(paths: Sequence[Path]) -> None:
    """Wait until files and folders are on the disk: one by one, or where there are many by one call for the whole disk."""
    disks: dict[int, Path] = {}
    if len(paths) > FEW:
        for folder in {path.parent for path in paths}:
            disks.setdefault(os.stat(folder).st_dev, folder)
    if not disks or not all(map(_sync_disk, disks.values())):
        for path in paths:
            sync(path)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; what is not there, or can't be waited for, is left alone.

    Windows has no such call for folders, and there a file must be open for writing.
    """
    if path.is_dir() and os.name == "nt":
        return
    try:
        handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can."""
    with contextlib.suppress(OSError):
        sync(folder)


def link_error(path: Path | str) -> UserError:
    """What is said of a link where captrain is to write."""
    try:
        target = os.readlink(path)
    except OSError:
        target = "another place"
    return UserError(
        f"{path}: is a link to {target}, and captrain writes through none; "
        "name the place that it leads to, or remove the link"
    )


def _held(parent: Path) -> tuple[Path, int | None]:
    """A new folder of a random name, and what holds it, where the system can."""
    while True:
        folder = parent / temporary_name()
        folder.mkdir()
        if os.name == "nt":
            return folder, None
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        if hold(handle) and folder.exists():
            return folder, handle
        os.close(handle)  # another process took it for litter before it was held


def _sync_disk(folder: Path) -> bool:
    """Wait until all that was written to the disk that a folder lies on is there; whether the system can (Linux)."""
    if sys.platform != "linux":
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        return bool(ctypes.CDLL(None).syncfs(handle) == 0)
    except AttributeError:  # a C library without it
        return False
    finally:
        os.close(handle)


def _linked(source: Path, target: Path) -> bool:
    """Whether a hard link could be made: some file systems have none."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def _way(folder: Path, below: Path) -> Iterator[Path]:
    """The folders from one (which is left out) down to another, which lies in it by its name."""
    place = below
    for part in folder.relative_to(below).parts:
        place = place / part
        yield place


def _check_folder(path: Path) -> None:
    """Raise `UserError` if a path is a link, or no folder."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise link_error(path)
    if not stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a file, expected a folder; choose another place, or rename the file")
>>>>>>> main
