"""Files that are opened to be read: plain files only, so that a pipe among them is never waited for.

A pipe, a socket or a device may have any name, that of a picture, a table or a settings file too. To open a pipe waits for
somebody who writes, and a device may give bytes for ever. So what lies there is looked at before it is opened, and again
afterwards, as it may have been exchanged. (`open(2)`, `O_NONBLOCK`.)
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import DEFAULT_BUFFER_SIZE, BufferedReader, FileIO

NOT_READ_THROUGH = "is a link that leaves the folder; --follow-links reads what it leads to"

_READ = (
    os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
)  # fmt: skip
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)
_LOOPS = (errno.ELOOP, getattr(errno, "EWOULDBLOCK", -1)) if os.name == "nt" else (errno.ELOOP,)


def open_file(path: str | os.PathLike[str], buffering: int = DEFAULT_BUFFER_SIZE) -> BufferedReader:
    """A file to read bytes from. Raises `OSError` if it can't be opened, or is a pipe, a socket, a device or a folder.

    >>> open_file("/dev/zero")
    Traceback (most recent call last):
        ...
    OSError: [Errno 22] is a device, not a file: '/dev/zero'
    """
    _refuse(os.stat(path), path)
    handle = os.open(path, _READ)
    try:
        _refuse(os.fstat(handle), path)
        return BufferedReader(FileIO(handle), buffering)
    except BaseException:
        os.close(handle)
        raise


@contextmanager
def within_file() -> Iterator[None]:
    """Around what reads an archive by the places that it states: one before the file's start is told as a `ValueError`."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL or error.filename is not None:
            raise
        raise ValueError("it states a place before its own start") from None


def read_file(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """All bytes of a file. Raises `OSError` as `open_file` does, and if there are more than `most`.

    >>> read_file(__file__, most=10)
    Traceback (most recent call last):
        ...
    OSError: [Errno 27] has over 10 bytes: ...
    """
    with open_file(path) as file:
        if most is None:
            return file.read()
        size = os.fstat(file.fileno()).st_size
        content = file.read(most + 1) if size <= most else b""
    if size > most or len(content) > most:
        raise OSError(errno.EFBIG, f"has over {most} bytes", os.fspath(path))
    return content


def fault_of(path: str | os.PathLike[str]) -> str:
    """Why what lies at a path can't be read as a file, to be read after its name; "" for a file, and where nothing lies.

    >>> fault_of("/dev/null"), fault_of(__file__), fault_of("no/such/file")
    ('is a device, not a file; put the file itself there', '', '')
    """
    try:
        kind = kind_of(os.stat(path).st_mode)
    except OSError as error:
        return _fault_of_link(path, error)
    except ValueError:  # a NUL or half a surrogate pair in the name
        return ""
    return f"is {kind}, not a file; put the file itself there" if kind else ""


def kind_of(mode: int) -> str:
    """What a file's mode says that it is, if it is no plain file: "a pipe"; else ""."""
    return next((name for test, name in _KINDS if test(mode)), "")


def _fault_of_link(path: str | os.PathLike[str], error: OSError) -> str:
    """Why a link leads to nothing; "" where there is none."""
    if error.errno in _LOOPS:
        return "is a link that leads back to itself; put the file itself there"
    if not os.path.lexists(path):
        return ""
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and os.path.islink(path):
        return f"is a broken link to {os.readlink(path)}; put the file itself there"
    return f"can't be read ({error.strerror})"


def _refuse(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    """Raise `OSError` for what is no plain file, and for a file of Linux's `/proc`, of which some have no end."""
    kind = kind_of(found.st_mode)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not kind and found.st_dev == _PROC:
        kind = "a view of the system"
    if kind:
        raise OSError(errno.EINVAL, f"is {kind}, not a file", os.fspath(path))


def _device_of(folder: str) -> int | None:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return None


_PROC = _device_of("/proc/self") if os.name == "posix" else None
