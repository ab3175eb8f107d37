"""Lets every system call that writes fail, or be the last, in every command; then starts the command again and looks.

    python tests/faults/harness.py --points 200 --command train,encode --slice 1/2 --results faults.jsonl
    python tests/faults/harness.py --table faults.jsonl

A process that has imported everything is forked for each start. `shim.c` is preloaded into it, and does what is asked of it
at the n-th call that changes the watched folder. A point is a call and what happens there; points are spread evenly over all
calls of an undisturbed run. After each

- the command has said one clear line and ended with an error, or everything is as an undisturbed run leaves it;
- no file with a final name is half written, and nothing is lost that was there before;
- the same command again leaves the bytes of an undisturbed run, and nothing else.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
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
PATIENCE = 120.0  # seconds that a start may take


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


@dataclass
class Result:
    """What came of the points of one command."""

    command: str
    calls: int = 0
    points: int = 0
    killed: int = 0
    failed: int = 0
    unharmed: int = 0
    missed: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


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
        if point is None:
            self.shim.faults_arm(os.fsencode(self.work), ctypes.c_long(0), NOTHING, 0)
        else:
            point.arm(self.shim, self.work)
        return main(words.format(mirror=self.mirror).split())

    def lay_out(self, command: Any) -> None:
        """The watched folder, as it is before the command."""
        shutil.rmtree(self.work, ignore_errors=True)
        (self.work / "tmp").mkdir(parents=True)
        (self.work / "cache").mkdir()
        if command.before is not None:
            command.before(self.work)


def points_of(calls: int, wanted: int, kinds: dict[str, Any], seed: int = 0) -> list[Point]:
    """Points spread evenly over the calls, the kinds in turn; all of them where that is no more than wanted."""
    if calls * len(kinds) <= wanted:
        return [Point(call, kind) for call in range(1, calls + 1) for kind in kinds]
    names = list(kinds)
    if calls >= wanted:  # the kinds in turn, a call each
        return [Point(1 + at * calls // wanted, names[at % len(names)]) for at in range(wanted)]
    draw = random.Random(seed)
    every = [Point(call, kind) for call in range(1, calls + 1) for kind in names]
    return sorted(draw.sample(every, wanted), key=lambda point: point.call)


class Trial:
    """One command: what an undisturbed run leaves, and what is wrong after each point."""

    def __init__(self, harness: Harness, name: str) -> None:
        from commands import COMMANDS
        from trees import differences, tree_of

        self.harness, self.command = harness, COMMANDS[name]
        self.result = Result(name)
        self.again = self.command.again or self.command.words
        harness.lay_out(self.command)
        self.before = tree_of(harness.work)
        begin = time.monotonic()
        whole = harness.start(self.command.words, None)
        self.seconds = time.monotonic() - begin
        if whole.code != 0:
            raise SystemExit(f"{name}: undisturbed, it ended with {whole.code}\n{whole.out}")
        self.reference = tree_of(harness.work)
        self.result.calls = whole.count
        preload(harness.modules)
        harness.lay_out(self.command)
        harness.start(self.command.words, None)
        if odd := differences(tree_of(harness.work), self.reference):
            raise SystemExit(f"{name}: undisturbed, it does not write the same twice: {', '.join(odd)}")

    def disturb(self, point: Point, seconds: float | None = None, number: int = 0) -> None:
        """One point: strike, look, start again, look."""
        from trees import tree_of

        harness, result = self.harness, self.result
        harness.lay_out(self.command)
        first = harness.start(self.command.words, point, seconds, number)
        after = tree_of(harness.work)
        result.points += 1
        result.kinds[point.kind] += 1
        result.killed += first.code == -signal.SIGKILL
        result.unharmed += first.code == 0
        result.failed += first.code not in (0, -signal.SIGKILL)
        result.missed += seconds is None and not first.struck
        odd = [*self._of_first(first, point, after), *self._of_again()]
        where = f"{point.kind} at {point.call} ({first.struck})" if seconds is None else f"{point.kind} after {seconds:.3f} s"
        result.faults += [f"{where}: {fault}" for fault in odd]

    def _of_first(self, first: Start, point: Point, after: dict[str, bytes]) -> Iterator[str]:
        """What is wrong after the disturbed start."""
        from trees import broken, differences, lost, results

        if first.code == 0:
            yield from (f"said all is well, but {odd}" for odd in differences(results(after), results(self.reference)))
        elif point.kind in SIGNALS:
            yield from _of_signal(first, SIGNALS[point.kind][1])
        elif first.code != -signal.SIGKILL:
            yield from _of_failure(first, KINDS[point.kind][1])
        yield from (f"at once, {odd}" for odd in broken(after))
        if not self.command.replaces:
            yield from (f"at once, {odd}" for odd in lost(self.before, after, self.reference))

    def _of_again(self) -> Iterator[str]:
        """What is wrong after the next start."""
        from trees import differences, tree_of

        again = self.harness.start(self.again, None)
        odd = differences(tree_of(self.harness.work), self.reference)
        if again.code != 0 and (odd or len(again.errors) != 1 or "Traceback" in again.out):
            yield f"again, it ended with {again.code}: {_last_line(again.out)}"
        yield from (f"again, {fault}" for fault in odd)


def _of_failure(start: Start, number: int) -> Iterator[str]:
    """What is wrong with how a start said that a call failed."""
    if "Traceback" in start.out or "did not expect" in start.out or len(start.errors) != 1:
        yield f"ended with {start.code}, not with one clear line: {_last_line(start.out)}"
    elif number in TOLD and not any(words in start.errors[0] for words in TOLD[number]):
        yield f"the line does not say why ({TOLD[number][0]}): {start.errors[0][:200]}"


def _of_signal(start: Start, number: int) -> Iterator[str]:
    """What is wrong with how a start ended that was signalled."""
    if start.code not in (128 + number, -number):
        yield f"ended with {start.code}, expected {128 + number}: {_last_line(start.out)}"
    elif "Traceback" in start.out:
        yield f"said more than one line: {_last_line(start.out)}"


def _last_line(out: str) -> str:
    lines = [line for line in out.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "(nothing said)"


def try_command(harness: Harness, name: str, wanted: int, part: tuple[int, int], signals: int) -> Result:
    """All points of a command that belong to this slice, and signals at writing calls and at random times."""
    trial = Trial(harness, name)
    at, of = part
    for point in points_of(trial.result.calls, wanted, KINDS)[at - 1 :: of]:
        trial.disturb(point)
    draw = random.Random(name)
    for count in range(signals):
        kind = list(SIGNALS)[count % 2]
        after, call = draw.uniform(0.02, 1) * trial.seconds, 1 + draw.randrange(trial.result.calls)
        if count % of == at - 1:
            if count % 4 < 2:
                trial.disturb(Point(call, kind))
            else:
                trial.disturb(Point(0, kind), after, int(SIGNALS[kind][1]))
    return trial.result


def try_point(harness: Harness, name: str, point: str, keep: Path | None) -> Result:
    """One point of a command, to look into it."""
    trial = Trial(harness, name)
    if keep is not None:
        shutil.copytree(harness.work, keep / "undisturbed", dirs_exist_ok=True)
    kind, _, call = point.partition("@")
    trial.disturb(Point(int(call), kind))
    if keep is not None:
        shutil.copytree(harness.work, keep / "disturbed", dirs_exist_ok=True)
    return trial.result


def table(results: list[Result]) -> str:
    """Of each command: calls that write, points, starts that were killed, that failed, that went on to a whole end; faults."""
    head = f"{'command':<24}{'calls':>7}{'points':>8}{'killed':>8}{'failed':>8}{'unharmed':>10}{'faults':>8}"
    lines = [head]
    names = list(dict.fromkeys(result.command for result in results))
    total = [0] * 5
    for name in names:
        found = [result for result in results if result.command == name]
        faulty = sum(len({fault.partition(": ")[0] for fault in result.faults}) for result in found)
        row = [sum(getattr(result, key) for result in found) for key in ("points", "killed", "failed", "unharmed")]
        row.append(faulty)
        total = [before + now for before, now in zip(total, row, strict=True)]
        lines.append(f"{name:<24}{found[0].calls:>7}" + _cells(row))
    lines.append(f"{'all':<24}{'':>7}" + _cells(total))
    return "\n".join(lines)


def _cells(row: list[int]) -> str:
    return "".join(f"{value:>{width}}" for value, width in zip(row, (8, 8, 8, 10, 8), strict=True))


def build_shim(folder: Path) -> Path | None:
    """The shared library, compiled; None where there is no compiler for C, or the system does not preload."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    library = folder / "shim.so"
    words = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "shim.c"), "-ldl"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return library if done.returncode == 0 else None


def preload(modules: Path) -> None:
    """Import what a fork has imported, so that the next ones need not."""
    for name in json.loads(modules.read_text()):
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--command", default="", help="commands, with commas between them (default: all)")
    parser.add_argument("--points", type=int, default=200, help="of each command (default: 200)")
    parser.add_argument("--signals", type=int, default=20, help="SIGINT and SIGTERM, of each command (default: 20)")
    parser.add_argument("--point", default="", help="only this one: 'disk full@17'")
    parser.add_argument("--keep", type=Path, help="folder for copies of what was undisturbed and what was left at the end")
    parser.add_argument("--slice", default="1/1", help="2/4: the second quarter of the points")
    parser.add_argument("--results", type=Path, help="file of results to add to")
    parser.add_argument("--table", type=Path, help="show the table of such a file, and do nothing")
    words = parser.parse_args(argv)
    if words.table is not None:
        print(table(read_results(words.table)))
        return 0
    if "CAPTRAIN_FAULTS" not in os.environ:
        return start_preloaded(sys.argv[1:] if argv is None else argv)
    base = Path(os.environ["CAPTRAIN_FAULTS"])
    return try_all(base, words)


def start_preloaded(words: list[str]) -> int:
    """This program again, with the shim preloaded, in a temporary folder of its own."""
    with tempfile.TemporaryDirectory(prefix="captrain-faults-") as folder:
        library = build_shim(Path(folder))
        if library is None:
            print("skipped: no C compiler here, or no Linux; nothing was tried", file=sys.stderr)
            return 77
        places = {"CAPTRAIN_FAULTS": folder, "LD_PRELOAD": str(library), "HF_HOME": f"{folder}/hub", "MPLCONFIGDIR": f"{folder}/mpl"}
        return subprocess.run([sys.executable, __file__, *words], env={**os.environ, **HABITS, **places}, check=False).returncode


def try_all(base: Path, words: argparse.Namespace) -> int:
    """All commands that are asked for; 0 where no fault was found."""
    sys.path.insert(0, str(HERE))
    import torch

    torch.set_num_threads(1)
    from commands import COMMANDS, make_inputs

    harness = Harness(base)
    os.environ["CAPTRAIN_CACHE"] = str(base / "cache")
    if harness.make(make_inputs) != 0:
        raise SystemExit(f"the inputs could not be made\n{harness.log.read_text(errors='replace')}")
    preload(harness.modules)
    at, of = map(int, words.slice.split("/"))
    found = []
    for name in words.command.split(",") if words.command else COMMANDS:
        begin = time.monotonic()
        try:
            if words.point:
                result = try_point(harness, name, words.point, words.keep)
            else:
                result = try_command(harness, name, words.points, (at, of), words.signals)
        except SystemExit as error:
            result = Result(name, faults=[str(error)])
        found.append(result)
        print(f"{name}: {result.points} points in {time.monotonic() - begin:.0f} s, {result.missed} not reached", file=sys.stderr)
        for fault in result.faults:
            print(f"  {fault}", file=sys.stderr)
        if words.results is not None:
            with words.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(vars(result)) + "\n")
    print(table(found))
    return int(any(result.faults for result in found))


def read_results(path: Path) -> list[Result]:
    """What `--results` wrote."""
    return [Result(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
