"""One writer at a time: a lock on each file and folder that is written, which says whose it is (`disk.lock_file`)."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from captrain.disk.folders import make_folder
from captrain.disk.lock_file import acquire, is_lost, release
from captrain.disk.temporary_files import clear_litter
from captrain.errors import CaptrainError, UserError

Work = TypeVar("Work", bound=Callable[..., Any])

FOLDER_LOCK = ".captrain.lock"
"""The lock of a folder that is changed in place, in it."""
LONGEST_NAME = 140  # bytes; some file systems take no more
SPARE_FILES = 512  # that a process may want to open besides its locks


@dataclass(slots=True)
class _Held:
    """An open lock, and how many blocks of code are in it."""

    handle: int
    depth: int = 1


_held: dict[tuple[str, int], _Held] = {}
"""By the lock's path and the thread that took it: the same work may lock again what it has locked."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only writer of a file, or of a folder that is made whole and then renamed. The lock is beside it.

    Raises `BusyError`, which names the owner, while another process (or thread) writes it; `UserError` where nothing can be
    written; at the end `CaptrainError` if the lock was removed meanwhile, for example with its folder.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "captions.jsonl")
    >>> with locked(path):
    ...     print([entry.name for entry in path.parent.iterdir()])
    ['.captions.jsonl.lock']
    >>> list(path.parent.iterdir())
    []
    """
    with _holding(path, lock_of(path)):
        yield


@contextmanager
def locked_folder(folder: Path, goes: bool = False) -> Iterator[None]:
    """Be the only writer of a folder that is changed in place; it is made if it does not exist, and removed if it stays empty.

    `goes`: the folder itself is to be removed or replaced. Raises as `locked` does, and `UserError` where a file has its name.
    """
    is_new = not folder.exists()
    try:
        make_folder(folder)
        with _holding(folder, folder / FOLDER_LOCK, goes):
            yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


@contextmanager
def locked_folders(folders: Iterable[Path], goes: bool = False) -> Iterator[None]:
    """Be the only writer of several folders, as `locked_folder` has it. One that can't be written anyway needs no lock."""
    chosen = sorted({folder for folder in folders if os.access(folder, os.W_OK)})
    _allow_files(len(chosen) + SPARE_FILES)
    with ExitStack() as stack:
        for folder in chosen:
            stack.enter_context(locked_folder(folder, goes))
        yield


def clear_lock(folder: Path) -> None:
    """Remove the lock that a killed process left in a folder, if there is one; what is held, or can't be written, stays."""
    if (folder / FOLDER_LOCK).exists():
        with contextlib.suppress(UserError), locked_folder(folder):
            pass


def only_writer(
    of: str | Callable[[Mapping[str, Any]], Path | None],
    lock: Callable[[Path], AbstractContextManager[None]] = locked,
) -> Callable[[Work], Work]:
    """Let a function hold the lock of what it writes; of a folder that is changed in place with `lock=locked_folder`.

    Args:
        of: the name of the argument that is its path, or what finds the path from all arguments; None is no path.

    >>> @only_writer("output")
    ... def write(text: str, output: Path | None = None) -> None:
    ...     print(text, output)
    >>> write("a dog")
    a dog None
    """

    def decorate(work: Work) -> Work:
        signature = inspect.signature(work)

        @functools.wraps(work)
        def alone(*given: Any, **named: Any) -> Any:
            arguments = signature.bind(*given, **named).arguments
            path = arguments.get(of) if isinstance(of, str) else of(arguments)
            with nullcontext() if path is None else lock(path):
                return work(*given, **named)

        return cast(Work, alone)

    return decorate


def tidy(path: Path) -> None:
    """Remove what a process left beside a file or folder that it was writing when it was killed: its lock, its drafts."""
    with contextlib.suppress(CaptrainError, OSError), locked(path):
        clear_litter(path.parent)


def lock_of(path: Path) -> Path:
    """The lock that is beside a file.

    >>> lock_of(Path("out/captions.jsonl")).name, len(lock_of(Path("x" * 250)).name)
    ('.captions.jsonl.lock', 31)
    """
    name = os.fsencode(path.name)
    if len(name) <= LONGEST_NAME:
        return path.with_name(f".{path.name}.lock")
    return path.with_name(f".captrain-{hashlib.blake2b(name, digest_size=8).hexdigest()}.lock")


@contextmanager
def _holding(path: Path, lock: Path, goes: bool = False) -> Iterator[None]:
    key = (os.path.join(os.path.realpath(lock.parent), lock.name), threading.get_ident())
    if key in _held:
        _held[key].depth += 1
    else:
        _held[key] = _Held(acquire(path, lock))
    try:
        yield
        if not goes and key in _held and is_lost(_held[key].handle):
            raise CaptrainError(
                f"{path}: was removed while it was being written, or its lock {lock} was; what is there may not be whole, "
                "run the same command again"
            )
    finally:
        held = _held.get(key)  # none in a forked process that leaves this block: it holds nothing
        if held is not None:
            held.depth -= 1
            if not held.depth:
                del _held[key]
                release(held.handle, lock)


def _allow_files(count: int) -> None:
    """Allow this process so many open files, up to the system's limit."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < count:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard < 0 else min(count, hard), hard))


def _forget_in_child() -> None:
    """A forked process must hold none of these: its copies would keep them held after the process that took them has died."""
    for held in _held.values():
        with contextlib.suppress(OSError):
            os.close(held.handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
