"""Files that appear when they are complete: written under a random name, on the disk, then renamed; never through a link.

The folder may be a stranger's. A name that can be guessed could be a link that somebody planted there, so that what is
written lands in another file; hence the random names, and links are never followed. (CWE-59; `open(2)`, `O_NOFOLLOW`.)
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from captrain.errors import UserError

TEMPORARY = re.compile(r"\.captrain-[0-9a-f]{16}\.partial")
"""The names of files and folders that are being written; what a killed process left of them may be removed."""
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_APPEND = os.O_CREAT | os.O_APPEND | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_EVERYBODY = 0o666


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which takes the place of `path` once the block ends; if that fails, nothing has changed.

    Its `name` is where it lies until then, for libraries that want a path. The permissions of a file that was there stay.
    Raises `UserError` if `path` is a link, a folder or a device.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "captions.txt")
    >>> with new_file(path) as file:
    ...     _ = file.write(b"a dog runs")
    >>> path.read_text(), [entry.name for entry in path.parent.iterdir()]
    ('a dog runs', ['captions.txt'])
    """
    mode = check_target(path)
    temporary = path.with_name(temporary_name())
    file = open(temporary, "wb", opener=lambda name, _: os.open(name, _NEW, _EVERYBODY))  # noqa: SIM115
    try:
        with file:
            hold(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        check_target(path)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file, as `new_file` does."""
    with new_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole file in UTF-8, as `new_file` does; bytes of a path that are none are written as escapes that JSON has too."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def open_to_append(path: Path) -> BinaryIO:
    """A file to add to, which may be new. Raises `UserError` if `path` is a link, a folder or a device."""
    check_target(path)
    return open(os.open(path, _APPEND, _EVERYBODY), "ab+")


def check_target(path: Path) -> int | None:
    """The mode of a file that may be written, None if there is none. Raises `UserError` if something else lies there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode):
        raise UserError(
            f"{path}: is a link to {os.readlink(path)}, and captrain writes through none; "
            "name the file that it leads to, or remove the link"
        )
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
        raise UserError(f"{path}: is {kind}, expected a file or a free name; choose another name")
    return mode


def temporary_name() -> str:
    """A name that nobody can guess, for what is being written.

    >>> bool(TEMPORARY.fullmatch(temporary_name()))
    True
    """
    return f".captrain-{secrets.token_hex(8)}.partial"


def hold(handle: int) -> None:
    """Mark an open file as being written, for as long as it is open; where the file system can't, it is left unmarked."""
    try:
        import fcntl
    except ImportError:  # Windows removes no open file
        return
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
