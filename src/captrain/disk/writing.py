"""Files that appear when they are complete: written under a random name, on the disk, then renamed; never through a link.

The folder may be a stranger's. A name that can be guessed could be a link that somebody planted there, so that what is
written lands in another file; hence the random names, and links are never followed. (CWE-59; `open(2)`, `O_NOFOLLOW`.)
A file that grows line by line keeps its name, and is opened only where no link is. Replacing a file leaves its other names
(hard links) as they were; a file that is to grow gets bytes of its own first.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from captrain.disk.folders import link_error, sync_folder
from captrain.disk.lock_file import telling
from captrain.disk.temporary_files import clear_litter, hold, temporary_name
from captrain.errors import UserError

_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | _SAFE
_APPEND = os.O_CREAT | os.O_APPEND | os.O_RDWR | getattr(os, "O_NONBLOCK", 0) | _SAFE
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _SAFE
_EVERYBODY = 0o666


class NewFile:
    """A file that is being written, and takes the place of `path` with `finish`; or else `discard` it.

    `name` is where it is until then, for libraries that want a path. The permissions of a file that was there stay.
    What a killed process left in the folder is removed first. Raises `UserError` if `path` is a link, a folder or a device.

    Args:
        clear: look for what was left, once a process. Not where several machines write at once, which may not see each
            other's locks.
        sync: wait at the end until it is on the disk. Without that, whoever relies on it calls `sync_all`.
    """

    def __init__(self, path: Path, *, sync: bool = True, clear: bool = True) -> None:
        self.path, self.sync = path, sync
        self.mode = check_target(path)
        if clear:
            clear_litter(path.parent)
        self.file = _held(path.parent)
        self.name = Path(self.file.name)

    def finish(self) -> None:
        """Rename it to its final name."""
        with self.file:
            self.file.flush()
            if self.mode is not None:
                os.chmod(self.name, stat.S_IMODE(self.mode))
            if self.sync:
                os.fsync(self.file.fileno())
            if os.name != "nt":  # still held: nobody takes it for litter
                self._rename()
        if os.name == "nt":
            self._rename()
        if self.sync:
            sync_folder(self.path.parent)

    def discard(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            self.file.close()
        with contextlib.suppress(OSError):
            os.unlink(self.name)

    def _rename(self) -> None:
        check_target(self.path)
        os.replace(self.name, self.path)


@contextmanager
def new_file(path: Path, *, sync: bool = True, clear: bool = True) -> Iterator[BinaryIO]:
    """A `NewFile` to write into, which takes the place of `path` once the block ends; if that fails, nothing has changed.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "captions.txt")
    >>> with new_file(path) as file:
    ...     _ = file.write(b"a dog runs")
    >>> path.read_text(), [entry.name for entry in path.parent.iterdir()]
    ('a dog runs', ['captions.txt'])
    """
    new = NewFile(path, sync=sync, clear=clear)
    try:
        yield new.file
        new.finish()
    except BaseException:
        new.discard()
        raise


def write_bytes(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a whole file, as `new_file` does."""
    with new_file(path, sync=sync) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole file in UTF-8, as `new_file` does; bytes of a path that are not UTF-8 become escapes of JSON."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def move(written: Path, path: Path) -> None:
    """Give a file that is on the disk its name. Raises `UserError` if a link, a folder or a device has it."""
    check_target(path)
    os.replace(written, path)
    sync_folder(path.parent)


def create(path: Path) -> BinaryIO:
    """A new file to write into, in a folder that is itself new and gets its name when all is there (`fresh_folder`).

    Raises `FileExistsError` if anything is there, a link too.
    """
    return open(path, "wb", opener=lambda name, _: os.open(name, _NEW, _EVERYBODY))


def write_new(path: Path, content: bytes) -> None:
    """Write a whole file, as `create` does."""
    with create(path) as file:
        file.write(content)


def open_to_append(path: Path) -> BinaryIO:
    """A file to add to, which may be new. Raises `UserError` if `path` is a link, a folder or a device.

    A file with other names, for example in a backup made of hard links, gets bytes of its own first: those names keep theirs.
    """
    if check_target(path) is not None and os.lstat(path).st_nlink > 1:
        write_bytes(path, read_own(path))
    return open(os.open(path, _APPEND, _EVERYBODY), "ab+")


def read_own(path: Path) -> bytes:
    """The bytes of a file that captrain wrote itself. Raises `OSError` if it is not a plain file (but a link or a pipe)."""
    with open(path, "rb", opener=lambda name, _: os.open(name, _READ)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path}: is not a regular file")
        return file.read()


def check_target(path: Path) -> int | None:
    """The mode of a file that may be written, None if there is none. Raises `UserError` if something else is there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        with telling(path):
            raise error
    if stat.S_ISLNK(mode):
        raise link_error(path)
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
        raise UserError(f"{path}: is {kind}, expected a file or a free name; choose another name")
    return mode


def _held(folder: Path) -> BinaryIO:
    """A new file of a random name that this process holds."""
    while True:
        file = create(folder / temporary_name())
        if hold(file.fileno()) and os.path.exists(file.name):
            return file
        file.close()  # another process took it for litter before it was held
        with contextlib.suppress(OSError):
            os.unlink(file.name)
