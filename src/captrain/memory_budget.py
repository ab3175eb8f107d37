"""The memory that all threads of a process share for decoded pictures: what does not fit waits for the others."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from captrain.errors import SettingsError

SETTING = "CAPTRAIN_PICTURE_MEMORY"
"""An environment variable: MB that the pictures of a command may take while they are decoded."""

MB = 1_000_000


class Budget:
    """Bytes that are shared by concurrent work. Work that needs more than all of it runs alone.

    >>> budget = Budget(100)
    >>> budget.take(60); budget.take(40); budget.taken
    100
    >>> budget.give_back(100); budget.taken
    0
    """

    def __init__(self, size: int) -> None:
        self.size, self.taken = size, 0
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    def take(self, count: int) -> None:
        """Take a share; waits for those before, and until the share fits or nobody has any."""
        with self._changed:
            if self._waiting or not self._fits(count):
                me = object()
                self._waiting.append(me)
                try:
                    self._changed.wait_for(lambda: self._waiting[0] is me and self._fits(count))
                finally:
                    self._waiting.remove(me)
                    self._changed.notify_all()
            self.taken += count

    def give_back(self, count: int) -> None:
        """Give back what was taken; others may go on."""
        with self._changed:
            self.taken -= count
            if self._waiting:
                self._changed.notify_all()

    def _fits(self, count: int) -> bool:
        return not self.taken or self.taken + count <= self.size


class _Share(threading.local):
    """What the thread holds of the budget; None outside of `counted`."""

    held: int | None = None


_share = _Share()


@contextmanager
def counted() -> Iterator[None]:
    """Wraps the work on a decoded picture: what `take` took is held until the end."""
    if _share.held is not None:  # the outer one gives back
        yield
        return
    _share.held = 0
    try:
        yield
    finally:
        _release()
        _share.held = None


def take(count: int) -> None:
    """Take bytes of the budget, maybe after a while; what the thread held for an earlier picture is given back first.

    Outside of `counted` nothing is taken.
    """
    if _share.held is None:
        return
    _release()
    budget().take(count)
    _share.held = count


def _release() -> None:
    if _share.held:
        budget().give_back(_share.held)
    _share.held = 0


@cache
def budget() -> Budget:
    """The budget of this process: a quarter of the memory or what the setting says, shared by its training processes."""
    return Budget(_part(max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))))


def share_with(processes: int) -> None:
    """Share the budget: so many processes of this machine, this one included, do the same work."""
    budget().size = _part(processes)


def _part(processes: int) -> int:
    return max(1, (_chosen() or memory() // 4) // processes)


@cache
def most_for_one() -> int:
    """Bytes that a single picture may need: half of the memory, or more if the setting says so."""
    return max(_chosen() or 0, memory() // 2)


def _chosen() -> int | None:
    """What `SETTING` says, in bytes. Raises `SettingsError` if that is not a number."""
    text = os.environ.get(SETTING, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise SettingsError(f"{SETTING}={text}: expected a whole number of MB above 0, for example {SETTING}=2000")
    return int(text) * MB


def memory() -> int:
    """Bytes of memory that this process may use: the machine's, or what its control group (a container's) allows."""
    import psutil

    return min(int(psutil.virtual_memory().total), *_group_limits(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")))


def _group_limits(root: Path, membership: Path) -> Iterator[int]:
    """The limits of the control groups that this process is in, of both versions, and of those above them."""
    lines: list[str] = []
    with suppress(OSError):
        lines = membership.read_text().splitlines()
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        folder, name = (root / "memory", "memory.limit_in_bytes") if kinds else (root, "memory.max")
        inner = folder / path.lstrip("/")
        for place in (inner, *inner.parents):
            with suppress(OSError, ValueError):  # "max", or a group of another view
                yield int((place / name).read_text())
            if place == folder:
                break


def _forget_after_fork() -> None:
    """A forked process has none of the threads that hold shares, and maybe a lock that nobody opens."""
    budget.cache_clear()
    _share.held = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
