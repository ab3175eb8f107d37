"""Who writes something: what a lock says of its owner, for people and for the next process that wants it."""

from __future__ import annotations

import getpass
import json
import math
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LARGEST = 4096  # bytes of a lock; a larger file is not one
LONGEST = 100  # characters of a name in it that are shown
GROUPS = ("config", "data", "features")
"""Commands that have a second word."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that holds a lock.

    Clocks jump, and numbers of processes come again. So a process is known by its start since the machine's own start
    (`started`, in ticks; where there is no /proc, in seconds of the clock), and the age of a lock by `clock`, which no one
    sets. `boot` names the start of the machine, `space` the container's own numbers of processes; "" if there is none.
    """

    user: str
    host: str
    boot: str
    space: str
    pid: int
    started: float
    command: str
    since: str
    clock: float

    @classmethod
    def me(cls) -> Owner:
        """This process, now.

        >>> Owner.parse(Owner.me().to_json()).is_dead()
        False
        """
        pid = os.getpid()
        since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(
            _user(), socket.gethostname(), _boot(), _space(), pid, _start_of(pid) or 0.0, command_of(sys.argv), since, _clock()
        )  # fmt: skip

    @classmethod
    def parse(cls, content: bytes) -> Owner | None:
        """What `to_json` wrote; None for anything else."""
        try:
            found: Any = json.loads(content)
            values = {field.name: found[field.name] for field in fields(cls)}
            pid, started, clock = int(values.pop("pid")), float(values.pop("started")), float(values.pop("clock"))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        if not all(isinstance(value, str) for value in values.values()) or not math.isfinite(started + clock):
            return None
        return cls(pid=pid, started=started, clock=clock, **{name: value[:LONGEST] for name, value in values.items()})

    @staticmethod
    def is_begun(content: bytes) -> bool:
        """Whether a process may have died while it wrote this: it is the beginning of what `to_json` gives.

        >>> Owner.is_begun(b'{"us'), Owner.is_begun(b"a letter")
        (True, False)
        """
        begin = f'{{"{fields(Owner)[0].name}": "'.encode()
        return content.startswith(begin) or begin.startswith(content)

    def to_json(self) -> bytes:
        """As a lock holds it."""
        return json.dumps(asdict(self)).encode()

    def is_near(self) -> bool:
        """Whether it is, or was, a process of this system since its start, which then knows whether the lock is held."""
        return self.boot == _boot() if self.boot else self.host == socket.gethostname()

    def is_dead(self) -> bool | None:
        """Whether the process is gone; None if that can't be known from here."""
        if self.is_near() and self.space == _space():
            started = _start_of(self.pid)
            near = 0.5 if self.boot else 2.0  # ticks are exact, clocks are not
            return started is None or abs(started - self.started) > near
        if self.host == socket.gethostname() and self.boot != _boot():
            return True  # the machine was started again
        return None

    def __str__(self) -> str:
        """For people: `captrain caption` of ada on box (process 4242, for 3 min 12 s)."""
        age = f"for {told_time(_clock() - self.clock)}" if self.is_near() else f"since {self.since}"
        return f"`{self.command}` of {self.user} on {self.host} (process {self.pid}, {age})"


def command_of(words: list[str]) -> str:
    """What a process is called: captrain's command, or a script's name; nothing else of its words, which may be private.

    >>> command_of(["/usr/bin/captrain", "-q", "data", "get", "coco"]), command_of(["train_it.py", "x"]), command_of([""])
    ('captrain data get', 'train_it.py', 'python')
    """
    program = Path(words[0]).name if words else ""
    if program not in ("captrain", "captrain.exe", "__main__.py"):
        return program if program not in ("", "-c", "-m") else "python"
    plain = [word for word in words[1:] if not word.startswith("-")]
    return " ".join(["captrain", *plain[: 2 if plain[:1] and plain[0] in GROUPS else 1]])


def told_time(seconds: float) -> str:
    """A duration in words.

    >>> told_time(4.2), told_time(192), told_time(7500)
    ('4 s', '3 min 12 s', '2 h 5 min')
    """
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "somebody"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _clock() -> float:
    """Seconds since the machine's start, its sleep included where that is known."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


def _start_of(pid: int) -> float | None:
    """When a process was started, as `Owner.started` has it; None if there is none."""
    if _boot():
        try:
            told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            return None if told[0] in "ZX" else float(told[19])
        except (OSError, IndexError, ValueError):
            return None
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None
