"""Open files for reading, plain files only, so that a pipe among them is never waited for.

A pipe, a socket or a device may have any name, that of a picture, a table or a settings file too. Opening a pipe waits for
somebody who writes, and a device may give bytes forever. So a path is looked at before it is opened, and again afterwards,
since it may have been exchanged. (`open(2)`, `O_NONBLOCK`.)

Two beginnings of a file mean the same for all readers: a byte-order mark says the encoding, whatever was asked for; and a Git
LFS pointer is in place of a large file until that is fetched.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import DEFAULT_BUFFER_SIZE, BufferedReader, FileIO
from pathlib import Path

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

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError)
"""What `zipfile` raises for a damaged, encrypted or unsupported archive, beside `OSError`."""


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
    """For code that reads an archive by the places that it states: a place before the file's start is a `ValueError`."""
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
    """Why what is at a path can't be read as a file, worded to follow its name; "" for a file, and if there is nothing.

    >>> fault_of("/dev/null"), fault_of(__file__), fault_of("no/such/file")
    ('is a device, not a file; put the file itself there', '', '')
    """
    try:
        kind = kind_of_file(os.stat(path).st_mode)
    except OSError as error:
        return _fault_of_link(path, error)
    except ValueError:  # a NUL or half a surrogate pair in the name
        return ""
    return f"is {kind}, not a file; put the file itself there" if kind else ""


def kind_of_file(mode: int) -> str:
    """What a file's mode says that it is, if it is no plain file: "a pipe"; else ""."""
    return next((name for test, name in _KINDS if test(mode)), "")


def _fault_of_link(path: str | os.PathLike[str], error: OSError) -> str:
    """Why a link leads to nothing; "" if there is none."""
    if error.errno in _LOOPS:
        return "is a link that leads back to itself; put the file itself there"
    if not os.path.lexists(path):
        return ""
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and os.path.islink(path):
        return f"is a broken link to {os.readlink(path)}; put the file itself there"
    return f"can't be read ({error.strerror})"


def _refuse(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    """Raise `OSError` for what is not a plain file, and for files of Linux's `/proc`, since some have no end."""
    kind = kind_of_file(found.st_mode)
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


UTF_8 = "utf-8"
MARKS = (  # UTF-32's little-endian mark begins as UTF-16's does, so it is looked for before
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"\x84\x31\x95\x33", "gb18030"),
)


def mark_of(content: bytes) -> tuple[bytes, str]:
    """The mark that some bytes begin with, and the encoding it says; empty if there is none.

    >>> mark_of(b"\\xff\\xfea\\x00"), mark_of(b"a dog")
    ((b'\\xff\\xfe', 'utf-16-le'), (b'', ''))
    """
    return next(((mark, name) for mark, name in MARKS if content.startswith(mark)), (b"", ""))


def encoding_of(path: Path, encoding: str = "") -> str:
    """A codec's name to open a whole file with; a byte-order mark is not part of what is then read (see `unmarked`).

    Raises `OSError` for a file that can't be read.

    >>> encoding_of(Path(__file__)), encoding_of(Path(__file__), "cp932")
    ('utf-8-sig', 'cp932')
    """
    with open_file(path) as file:
        marked = mark_of(file.read(4))[1]
    if marked.startswith(("utf-16", "utf-32")):
        return marked[: len("utf-16")]  # without the order of bytes Python takes it from the mark, and takes that off
    if marked and marked != UTF_8:
        return marked
    return "utf-8-sig" if marked or not encoding else encoding


def unmarked(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a text; the first may still begin with a mark: GB18030's codec leaves it.

    >>> list(unmarked(["\ufeffa dog", "a cat"]))
    ['a dog', 'a cat']
    """
    for number, line in enumerate(lines):
        yield line if number else line.removeprefix("\ufeff")


POINTER = "is a Git LFS pointer, not the file itself; git lfs pull, in its repository, fetches it"
"""To be read after a file's name."""

_MARK = b"version https://git-lfs.github.com/spec/v1"
_SHORTEST = 16  # bytes of the mark that are enough to tell it
_LARGEST = 1024  # bytes of a pointer, by Git LFS's own rule


def is_pointer(beginning: bytes) -> bool:
    """Whether a file that begins so, with 16 bytes or more, is a pointer.

    >>> is_pointer(b"version https://git-lfs.github.com/spec/v1\\noid sha256:00"), is_pointer(b"version 2 of a caption")
    (True, False)
    """
    return len(beginning) >= _SHORTEST and beginning[: len(_MARK)] == _MARK[: len(beginning)]


def is_pointer_file(path: Path) -> bool:
    """Whether a file is a pointer; False if it can't be read."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return False
        with path.open("rb") as file:
            return is_pointer(file.read(len(_MARK)))
    except (OSError, ValueError):
        return False


def pointer_at(path: Path) -> Path | None:
    """The first pointer right in a folder; the path itself, if that is one; None if there is none."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
    except (OSError, ValueError):
        return None
    return next((file for file in files if is_pointer_file(file)), None)
