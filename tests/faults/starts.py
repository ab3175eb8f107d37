"""Starts commands in forks of this process, into which `shim.c` is preloaded, and lets it strike at a point."""

from __future__ import annotations

import ctypes
import errno
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NOTHING, FAIL, FAIL_ON, SHORT, KILL_BEFORE, KILL_AFTER, KILL_HALF, SIGNAL = range(8)
KINDS = {
    "disk full": (FAIL_ON, errno.ENOSPC),
    "killed before": (KILL_BEFORE, 0),
    "I/O error": (FAIL, errno.EIO),
    "killed after": (KILL_AFTER, 0),
    "no permission": (FAIL, errno.EACCES),
    "killed half way": (KILL_HALF, 0),
    "disk full once": (FAIL, errno.ENOSPC),
    "interrupted": (FAIL, errno.EINTR),
    "I/O errors": (FAIL_ON, errno.EIO),
    "half written": (SHORT, 0),
    "no permissions": (FAIL_ON, errno.EACCES),
}
"""What happens at a point; those in the plural happen at all later calls too, as a full disk does."""
FILLED = "a filled disk"
SIGNALS = {"SIGINT": (SIGNAL, signal.SIGINT), "SIGTERM": (SIGNAL, signal.SIGTERM)}
UNSURE = "the disk did not take it"  # all that torch knows
TOLD = {
    errno.ENOSPC: ("disk is full", "No space left on device", UNSURE),
    errno.EIO: ("Input/output error", UNSURE),
    errno.EACCES: ("ermission denied", UNSURE),
    errno.EINTR: ("Interrupted", UNSURE),
}
"""What the line has to say of the reason."""
HABITS = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "NO_COLOR": "1",
}
SKIPPED = 77  # exit code
PAGE = 4096  # bytes: what a tmpfs gives at a time
PATIENCE = 600.0  # seconds that a start may take


class Shared(ctypes.Structure):
    """What the shim tells: see `struct shared`."""

    _fields_ = (
        ("count", ctypes.c_long),
        ("hit", ctypes.c_long),
        ("call", ctypes.c_char * 32),
        ("path", ctypes.c_char * 256),
    )


@dataclass(frozen=True)
class Point:
    """A call, by its number from 1, and what happens there."""

    call: int
    kind: str

    def arm(self, shim: Any, folder: Path) -> None:
        what, number = {**KINDS, **SIGNALS}[self.kind]
        shim.faults_arm(os.fsencode(folder), ctypes.c_long(self.call), what, int(number))


@dataclass(frozen=True)
class Start:
    """How a start ended: its exit code (-9 when it was killed), what it printed, calls that wrote, and where it was struck."""

    code: int
    out: str
    count: int
    struck: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.out.splitlines() if line.startswith("error: ")]


class Harness:
    """Starts commands in forks of this process, which has the shim preloaded."""

    def __init__(self, base: Path, mirror: str = "") -> None:
        self.base, self.work, self.inputs = base, base / "work", base / "inputs"
        self.mirror = mirror
        self.shim = ctypes.CDLL(None)
        self.shim.faults_share.restype = ctypes.POINTER(Shared)
        self.shared = self.shim.faults_share().contents
        self.log, self.modules = base / "out.log", base / "modules.json"

    def make(self, make_inputs: Callable[[Path], None]) -> int:
        """The inputs, made in a process of its own; 0 if they are there."""

        def quietly() -> int:
            os.dup2(os.open(self.log, os.O_WRONLY | os.O_CREAT), 1)
            os.dup2(1, 2)
            leave_charts_out()
            make_inputs(self.inputs)
            return 0

        return self.fork(quietly)

    def fork(self, work: Callable[[], int], seconds: float | None = None, number: int = 0) -> int:
        """Do work in a process of its own, which gets a signal after some seconds; its exit code, negative for a signal."""
        child = os.fork()
        if child == 0:
            os.setsid()
            code = 1
            try:
                code = work()
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                self.shim.faults_disarm()
                self.modules.write_text(json.dumps(sorted(sys.modules)))
                os._exit(code)
        begin, sent = time.monotonic(), seconds is None
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            took = time.monotonic() - begin
            if seconds is not None and not sent and took > seconds:
                os.kill(child, number)
                sent = True
            if took > PATIENCE:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return 999
            time.sleep(0.001)
        return os.waitstatus_to_exitcode(ended[1])

    def start(self, words: str, point: Point | None, seconds: float | None = None, number: int = 0) -> Start:
        """One start of a command in the watched folder."""
        self.log.write_bytes(b"")
        code = self.fork(lambda: self._run(words, point), seconds, number)
        struck = f"{self.shared.call.decode()} {self.shared.path.decode(errors='replace')}" if self.shared.hit else ""
        return Start(code, self.log.read_text(errors="replace"), self.shared.count, struck)

    def _run(self, words: str, point: Point | None) -> int:
        """What the child does."""
        import torch

        from captrain.cli import main

        output = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(self.work)
        os.environ.update(CAPTRAIN_CACHE=str(self.work / "cache"), TMPDIR=str(self.work / "tmp"))
        tempfile.tempdir = None
        torch.set_num_threads(1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not words.startswith("report"):
            leave_charts_out()
        if point is None:
            self.shim.faults_arm(os.fsencode(self.work), ctypes.c_long(0), NOTHING, 0)
        else:
            point.arm(self.shim, self.work)
        return main(words.format(mirror=self.mirror).split())

    def used(self) -> int:
        """Bytes of the disk that the watched folder lies on."""
        return shutil.disk_usage(self.work).used

    def mount(self, megabytes: int) -> bool:
        """Let the watched folder be a disk of its own; whether that could be done."""
        self.work.mkdir(exist_ok=True)
        words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "captrain-faults", str(self.work)]
        return subprocess.run(words, check=False).returncode == 0

    def lay_out(self, command: Any) -> None:
        """The watched folder, as it is before the command. It stays, as it may be a disk of its own."""
        self.work.mkdir(exist_ok=True)
        for path in self.work.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in ("tmp", "cache"):
            (self.work / name).mkdir()
        if command.before is not None:
            command.before(self.work)


def leave_charts_out() -> None:
    """Draw no charts in this process: that is done in memory, and takes half the time of a tiny training."""
    from captrain.report import page

    page.draw_curve = lambda *_: "<svg></svg>"


def build_shim(folder: Path) -> Path | None:
    """The shared library, compiled; None where there is no compiler for C, or the system does not preload."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    library = folder / "shim.so"
    words = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "shim.c"), "-ldl"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return library if done.returncode == 0 else None


def start_preloaded(words: list[str], mounts: bool) -> int:
    """This program again, with the shim preloaded, in a temporary folder of its own, where it can mount what others don't see."""
    with tempfile.TemporaryDirectory(prefix="captrain-faults-") as folder:
        library = build_shim(Path(folder))
        if library is None:
            print("skipped: no C compiler here, or no Linux; nothing was tried", file=sys.stderr)
            return SKIPPED
        places = {"CAPTRAIN_FAULTS": folder, "LD_PRELOAD": str(library)}
        places |= {"HF_HOME": f"{folder}/hub", "MPLCONFIGDIR": f"{folder}/mpl"}
        apart = (["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]) if mounts else []
        command = [*apart, sys.executable, *words]
        return subprocess.run(command, env={**os.environ, **HABITS, **places}, check=False).returncode


class _Files(SimpleHTTPRequestHandler):
    """A web server that says nothing of what it does."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def mirror_of(folder: Path) -> Iterator[str]:
    """The address of a web server that has a folder's files."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def preload(modules: Path) -> None:
    """Import what a fork has imported, so that the next ones need not."""
    for name in json.loads(modules.read_text()):
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)
    gc.freeze()  # collecting garbage in forks needs not look through all of this
