"""A lock as a file: made, held, taken over from dead processes, and removed, without a moment in which two have it.

The system holds it (`flock`; Windows: `msvcrt.locking`) and releases it when a process dies, in whatever way. If a file system
has no such locks, the lock is the file itself, and the process that it names is looked for. Nothing is ever written into a
file that was there: a lock is made new, and what a dead process left is removed first. A file counts only while it is at
its path, so whoever gets a lock that was removed meanwhile tries again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captrain.disk.lock_owner import LARGEST, Owner
from captrain.disk.reading import kind_of_file
from captrain.disk.temporary_files import reaches_all
from captrain.errors import BusyError, UserError

WAITS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)  # seconds between looks at a lock that changes meanwhile
_NEW = os.O_CREAT | os.O_EXCL | os.O_RDWR
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_EVERYBODY = 0o666
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF}
"""Errors of `flock` where it can't work; the last one on NFS, of a lock that may only be read."""
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def acquire(path: Path, lock: Path) -> int:
    """Make the lock of `path` and hold it; returns the open file.

    Raises `BusyError`, which names the owner, if somebody else has it; `UserError` where it can't be.
    """
    for wait in WAITS:
        time.sleep(wait)
        try:
            with telling(path):
                handle = os.open(lock, _NEW | _SAFELY, _EVERYBODY)
        except FileExistsError:
            _clear_away(path, lock, is_last=wait == WAITS[-1])
            continue
        try:
            granted = _hold(handle)
            if granted is None or (granted and _lies_at(handle, lock)):
                os.write(handle, Owner.me().to_json())
                return handle
        except BaseException as error:
            release(handle, lock)
            if isinstance(error, OSError):
                error.filename = error.filename or str(path)
            raise
        os.close(handle)  # another process found it before it was held, and removes it
    raise _busy(path, lock, None)


def release(handle: int, lock: Path) -> None:
    """Remove a lock that is held, and let it go; one that somebody has put in its place stays."""
    with contextlib.suppress(OSError):
        if os.name != "nt" and _lies_at(handle, lock):
            os.unlink(lock)
    os.close(handle)
    if os.name == "nt":  # which removes no open file, so none that somebody has taken meanwhile
        with contextlib.suppress(OSError):
            os.unlink(lock)


def is_lost(handle: int) -> bool:
    """Whether a lock that is held was removed, so that another process may have one too."""
    try:
        return os.fstat(handle).st_nlink == 0
    except OSError:  # so NFS says it
        return True


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """The error, in one line, for a place that can't be written."""
    try:
        yield
    except OSError as error:
        if way := next(
            (place for place in reversed(path.parents) if os.path.lexists(place) and not place.is_dir()), None
        ):
            raise UserError(no_folder(way)) from None
        if isinstance(error, FileNotFoundError):
            gone = [place for place in path.parents if not place.exists()]
            missing = gone[-1] if gone else path.parent
            raise UserError(f"{path}: there is no folder {missing}; give a place in one that is there") from None
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{path}: has a name that is too long for the disk; choose a shorter one") from None
        if error.errno not in _REFUSED:
            raise
        raise UserError(f"{path}: can't be written ({error.strerror}); choose another place") from None


def no_folder(path: Path) -> str:
    """The error for a place where a folder is expected and something else is."""
    mode = os.lstat(path).st_mode
    kind = (
        f"a link to {os.readlink(path)}, which is not a folder"
        if stat.S_ISLNK(mode)
        else kind_of_file(mode) or "a file"
    )
    return f"{path}: is {kind}, expected a folder; choose another place"


def _clear_away(path: Path, lock: Path, is_last: bool) -> None:
    """Remove a lock that nobody holds. Raises `BusyError` if somebody does; a lock that changes meanwhile is left alone."""
    handle = _open(path, lock)
    if handle is None:
        return
    is_free = False
    try:
        granted, content = _hold(handle), _content(handle)
        owner = Owner.parse(content)
        if owner is None and not Owner.is_begun(content):
            raise _foreign(path, lock)
        if granted is False or (granted is None and owner is None):
            if is_last or (owner is not None and owner.is_dead() is False):
                raise _busy(path, lock, owner, granted is False)
        elif owner is not None and not _is_over(owner, lock, granted):
            raise _busy(path, lock, owner)
        elif granted:
            is_free = _lies_at(handle, lock)
        else:
            _remove_alone(lock, content)
    finally:
        release(handle, lock) if is_free else os.close(handle)


def _is_over(owner: Owner, lock: Path, granted: bool | None) -> bool:
    """Whether a lock that names an owner is what a dead process left: the system would not have granted what is held."""
    return bool(granted and (owner.is_near() or reaches_all(lock))) or owner.is_dead() is True


def _remove_alone(lock: Path, content: bytes) -> None:
    """Remove a dead process's lock where nothing can be held: if several find it, the one that makes a second lock may do so."""
    second = _second(lock)
    try:
        handle = os.open(second, _NEW | _SAFELY, _EVERYBODY)
    except FileExistsError:
        return
    try:
        if lock.read_bytes() == content:
            lock.unlink()
    except FileNotFoundError:
        return
    finally:
        release(handle, second)


def _second(lock: Path) -> Path:
    return Path(f"{lock}.second")


def _open(path: Path, lock: Path) -> int | None:
    """A lock that is there, None if it is gone. Raises `UserError` for a link, a pipe, or what else is no file."""
    for mode in (os.O_RDWR, os.O_RDONLY):
        try:
            handle = os.open(lock, mode | _SAFELY)
        except FileNotFoundError:
            return None
        except PermissionError:
            continue  # another user's may be readable
        except OSError:
            raise _foreign(path, lock) from None
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
        raise _foreign(path, lock)
    raise _busy(path, lock, None)


def _hold(handle: int) -> bool | None:
    """Hold an open file until it is closed: whether that was granted; None if the file system has no such locks."""
    try:
        import fcntl
    except ImportError:
        return _hold_on_windows(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in _NO_LOCKS else False
    return True


def _hold_on_windows(handle: int) -> bool | None:
    """Hold a byte behind the content, which others can read then."""
    try:
        import msvcrt
    except ImportError:  # a system with no locks at all
        return None

    os.lseek(handle, 1 << 30, os.SEEK_SET)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError:
        return False
    finally:
        os.lseek(handle, 0, os.SEEK_SET)
    return True


def _content(handle: int) -> bytes:
    try:
        return os.read(handle, LARGEST)
    except OSError:  # a share may keep readers away too
        return b""


def _lies_at(handle: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(lock))
    except OSError:
        return False


def _busy(path: Path, lock: Path, owner: Owner | None, is_held: bool = False) -> BusyError:
    """What to say of a lock that somebody has (`is_held`: so the system says), or may have."""
    dead = None if owner is None else owner.is_dead()
    whose = owner or "another process"
    if is_held and dead:
        return BusyError(
            f"{path}: is held by a process that {whose} left behind when it died; end that process, or choose another name"
        )
    if is_held or dead is False:
        return BusyError(f"{path}: is being written by {whose}; wait until it is done, or choose another name")
    second = _second(lock)
    files = f"{lock} and {second}" if second.exists() else str(lock)
    return BusyError(f"{path}: is being written by {whose}; wait until it is done, or remove {files} if it has died")


def _foreign(path: Path, lock: Path) -> UserError:
    return UserError(
        f"{path}: can't be locked, {lock} is not something that captrain wrote; remove it, or choose another name"
    )
