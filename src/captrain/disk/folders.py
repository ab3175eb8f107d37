"""Folders that are made, filled and removed without going through a link, and flushed to disk before they are relied on.

A folder that a person names may be reached through links. What is below it may be a stranger's (a run that somebody sent),
so no link below it is followed for writing or removing.
"""

from __future__ import annotations

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

from captrain.disk.lock_file import no_folder, telling
from captrain.disk.temporary_files import clear_litter, hold, temporary_name
from captrain.errors import UserError

FEW = 16
"""Up to so many files are flushed to disk one by one (some milliseconds each)."""


@contextmanager
def fresh_folder(parent: Path) -> Iterator[Path]:
    """An empty folder of a random name in `parent`, to be renamed when complete; otherwise it is removed at the end.

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
    """Replace a folder by another that is on disk; the replaced one is called `old` for a moment, then removed."""
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
    """Where a folder goes while it is being replaced: a hidden name beside it, the same for every process.

    >>> aside(Path("out/photos")).name
    '.captrain-c2d20b20dd9eee29.old'
    """
    return final.with_name(f".captrain-{hashlib.blake2b(os.fsencode(final.name), digest_size=8).hexdigest()}.old")


def put_back(final: Path, old: Path) -> None:
    """Repair a `replace_folder` that was interrupted between its renames."""
    if os.path.lexists(old) and not os.path.lexists(final):
        os.replace(old, final)


def make_folder(folder: Path) -> Path:
    """Make a folder that a person named, and those on the way to it, where links to folders are theirs; returns it.

    Raises `UserError` if something else is there or on the way, or it can't be made.
    """
    with telling(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UserError(no_folder(folder)) from None
    return folder


def settle(final: Path, old: Path) -> None:
    """End a `replace_folder` that was interrupted anywhere. Only for the sole writer of that folder."""
    put_back(final, old)
    remove(old)


def make_folders(folder: Path, below: Path) -> Path:
    """Make a folder, and those on the way to it, `below` one that a person named; returns it.

    Raises `UserError` if something on that way is a link or a file.
    """
    make_folder(below)
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
    """The same files and folders under another folder, as hard links that take no space if possible; else copies.

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
    """Wait until a file or folder is on the disk; what does not exist, or can't be flushed, is left alone.

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
    """The error for a link in a place that captrain is to write."""
    try:
        target = os.readlink(path)
    except OSError:
        target = "another place"
    return UserError(
        f"{path}: is a link to {target}, and captrain does not write through links; "
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
    """Wait until all that was written to the disk that a folder is on is there; whether the system can (Linux)."""
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
    """The folders from one (which is left out) down to another, which is in it by its name."""
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
