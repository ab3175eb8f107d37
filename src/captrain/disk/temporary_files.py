"""What is being written, under a random name, and what a killed process left of it.

It is held by a lock (`flock`) for as long as its process lives. What nobody holds was left: the next process that writes
into that folder removes it. Where the file system has no locks, and on Windows, that takes a day.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import time
from functools import lru_cache
from pathlib import Path

TEMPORARY = re.compile(r"\.captrain-[0-9a-f]{16}\.partial")
"""The names of files and folders that are being written; what a killed process left of them may be removed."""
_OF_ONE_MACHINE = ("9p", "fuse", "prl_fs", "vboxsf", "virtiofs", "vmhgfs")
_OF_ONE_MACHINE_BY_OPTION = {"nolock", "nobrl", "local_lock=all", "local_lock=flock"}
FORGOTTEN = 24 * 3600.0
"""Seconds after which what is unchanged counts as left, where the file system has no locks."""


def temporary_name() -> str:
    """A name that nobody can guess, for what is being written.

    >>> bool(TEMPORARY.fullmatch(temporary_name()))
    True
    """
    return f".captrain-{secrets.token_hex(8)}.partial"


@lru_cache(maxsize=1024)
def clear_litter(folder: Path, *, shared: bool = False) -> None:
    """Remove what killed processes left half written in a folder. It is looked through once a process: it may be large.

    `shared`: several machines may be writing there. What no process of this machine holds is then removed at once only if the
    file system shows them each other's locks, else after a day.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries if TEMPORARY.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                _remove_left(folder / name, shared)


def hold(handle: int) -> bool:
    """Mark an open file or folder as being written, for as long as it is open; whether nobody else has marked it.

    Where the file system can't, it is left unmarked.
    """
    try:
        import fcntl
    except ImportError:  # Windows removes no open file
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def reaches_all(path: Path) -> bool:
    """Whether all machines that see the file system of a file see its locks; some shares keep them to one machine."""
    import psutil

    place = os.path.join(os.path.realpath(path.parent), "")
    parts = psutil.disk_partitions(all=True)
    around = [part for part in parts if place.startswith(os.path.join(part.mountpoint, ""))]
    if not around:
        return False
    mount = max(around, key=lambda part: len(part.mountpoint))
    options = set(mount.opts.split(","))
    return not mount.fstype.startswith(_OF_ONE_MACHINE) and not options & _OF_ONE_MACHINE_BY_OPTION


def _remove_left(path: Path, shared: bool) -> None:
    """Remove a file or folder of a temporary name unless somebody holds it. A link of such a name stays."""
    mode = os.lstat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return
    try:
        import fcntl
    except ImportError:  # Windows
        if _unchanged(path) > FORGOTTEN:
            _remove(path)
        return
    handle = os.open(path, (os.O_RDONLY if stat.S_ISDIR(mode) else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    except OSError:
        if _unchanged(path) > FORGOTTEN:
            _remove(path)
    else:
        if not shared or reaches_all(path) or _unchanged(path) > FORGOTTEN:
            _remove(path)
    finally:
        os.close(handle)


def _unchanged(path: Path) -> float:
    """Seconds since anything at or below a path was written."""
    newest = max(os.lstat(place).st_mtime for place in (path, *path.rglob("*")))
    return time.time() - newest


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
