"""One input after another through a parser, in a child process with limits; what goes wrong is told apart.

Inputs that reach new lines of captrain are changed further.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from mmap import mmap
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import captrain
from captrain.errors import CaptrainError
from fuzz.inputs import FORK, MOST_KEPT, Drawn, Parser, be_silent, seeds_of
from fuzz.workplace import Files, Workplace, work_folder

SECONDS = 10  # of processor time that an input may take
WALL = 60  # seconds that it may take while the machine does other things too
MEMORY = 1 << 30  # bytes above what the process had
ADDRESSES = 6 << 30  # bytes of address space above that: a guard for the machine
LONGEST_MESSAGE = 3000  # characters; an error is one line to read
LONGEST_TRAIL = 10
TRACED = 8  # one input in so many is watched line by line
STATE = struct.Struct("<QQQdQ")  # index, accepted, rejected, slowest seconds, peak bytes
SOURCE = f"{Path(captrain.__file__).parent}{os.sep}"


@dataclass(frozen=True)
class Fault:
    """What went wrong: its kind ("exception", "hang", "memory", "crash"), where, and what was said."""

    kind: str
    where: str
    text: str

    @property
    def signature(self) -> str:
        return f"{self.kind} {self.where}"


@dataclass
class Report:
    """Of one parser: what `make fuzz` prints, and the faults with the trails of their first inputs."""

    parser: str
    inputs: int = 0
    accepted: int = 0
    rejected: int = 0
    slowest: float = 0.0
    peak: int = 0
    faults: dict[str, tuple[Fault, str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, fault: Fault, trail: str) -> None:
        self.faults.setdefault(fault.signature, (fault, trail))
        self.counts[fault.signature] = self.counts.get(fault.signature, 0) + 1


def fuzz(parser: Parser, inputs: int, seed: int, start: int = 0) -> Report:
    """Run inputs through a parser. A child that dies of one is replaced by another that goes on with the next."""
    report = Report(parser.name)
    drawn = Drawn(parser, seed, seeds_of(parser))
    corpus: list[str] = []
    seen: set[Any] = set()
    while start < inputs:
        start = _watch(drawn, range(start, inputs), corpus, seen, report)
    report.inputs = inputs
    return report


def fault_of(parser: Parser, files: Files) -> Fault | None:
    """What goes wrong with one input, in a child of its own."""
    drawn = Drawn(parser, 0, [files], valid=False)
    report = Report(parser.name)
    _watch(drawn, range(1), [], set(), report)
    return next((fault for fault, _ in report.faults.values()), None)


def _watch(drawn: Drawn, numbers: range, corpus: list[str], seen: set[Any], report: Report) -> int:
    """Let a child run some inputs, and see how it ends. Returns the number of the input to go on with."""
    shared = mmap(-1, 4096)
    receiver, sender = FORK.Pipe(duplex=False)
    with work_folder() as folder:
        notes = folder / "trace"
        notes.touch()
        child = FORK.Process(target=_run, args=(drawn, numbers, corpus, seen, shared, sender, folder, notes))
        child.start()
        sender.close()
        ended = _listen(child, receiver, shared, notes, corpus, seen, report)
        index, accepted, rejected, slowest, peak = STATE.unpack_from(shared)
        report.accepted += accepted
        report.rejected += rejected
        report.slowest, report.peak = max(report.slowest, slowest), max(report.peak, peak)
        if child.exitcode == 0:
            return index
        trail = shared[STATE.size :].split(b"\0")[0].decode()
        where = _frames(notes.read_text())
        kind = "hang" if ended else "crash"
        text = f"took over {SECONDS} s" if ended else f"the process died of signal {-(child.exitcode or 0)}"
        report.slowest = max(report.slowest, SECONDS if ended else 0)
        report.add(Fault(kind, where, text), trail)
        return index + 1


def _listen(
    child: Any, receiver: Connection, shared: mmap, notes: Path, corpus: list[str], seen: set[Any], report: Report
) -> bool:
    """Take in what a child tells, until it ends. True if it had to be ended, because an input took too long."""
    since, at = time.monotonic(), -1
    while True:
        ready = wait([receiver, child.sentinel], timeout=0.5)
        if receiver in ready:
            try:
                kind, *content = receiver.recv()
            except EOFError:
                child.join()
                return False
            if kind == "fault":
                report.add(*content)
            else:
                corpus.append(content[0])
                seen |= content[1]
            continue
        if child.sentinel in ready:
            child.join()
            return False
        index = STATE.unpack_from(shared)[0]
        if index != at:
            since, at = time.monotonic(), index
        if time.monotonic() - since > WALL:
            os.kill(child.pid, signal.SIGPROF)
            time.sleep(0.5)
        if notes.stat().st_size and child.is_alive() and b"Fatal" not in notes.read_bytes():
            child.kill()
            child.join()
            return True


def _run(
    drawn: Drawn,
    numbers: range,
    corpus: list[str],
    seen: set[Any],
    shared: mmap,
    sender: Connection,
    folder: Path,
    notes: Path,
) -> None:
    """In the child: input after input, until all are done or one took too much memory."""
    _limit(notes)
    parser, corpus, seen = drawn.parser, list(corpus), set(seen)
    workplace = Workplace(folder / "input", parser.writes)
    accepted = rejected = peak = 0
    slowest = 0.0
    for index in numbers:
        trail = drawn.trail(index, corpus)
        shared[STATE.size : STATE.size + len(trail) + 1] = trail.encode() + b"\0"
        STATE.pack_into(shared, 0, index, accepted, rejected, slowest, peak)
        place = workplace.holding(drawn.files(trail))
        before = _memory()  # what changing a file took is not the parser's
        watched = index % TRACED == 0 or index < len(drawn.seeds)
        outcome, lines, seconds = _one(parser, place, watched)
        accepted += outcome == "accepted"
        rejected += isinstance(outcome, tuple)
        slowest, peak = max(slowest, seconds), max(peak, _memory() - before)
        if isinstance(outcome, Fault):
            sender.send(("fault", outcome, trail))
        elif drawn.valid and index < len(drawn.seeds) and outcome != "accepted":
            sender.send(("fault", Fault("seed", list(parser.seeds)[index], f"is refused: {outcome}"), trail))
        new = (lines | {outcome}) - seen
        if new and not isinstance(outcome, Fault) and trail.count(".") < LONGEST_TRAIL and len(corpus) < MOST_KEPT:
            corpus.append(trail)
            seen |= new
            sender.send(("new", trail, new))
        STATE.pack_into(shared, 0, index + 1, accepted, rejected, slowest, peak)
        if peak > MEMORY:
            sender.send(("fault", Fault("memory", str(outcome)[:200], f"took {peak >> 20} MB"), trail))
            break
    sender.close()
    os._exit(0)


Outcome = str | Fault | tuple[str, str]
"""Accepted, a fault, or where it was refused."""


def _one(parser: Parser, place: Path, watched: bool) -> tuple[Outcome, set[Any], float]:
    """One input: what came of it, the lines of captrain that ran, and seconds of processor time."""
    lines: set[Any] = set()
    began = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    outcome: Outcome = "accepted"
    try:
        if watched:
            sys.settrace(_tracer(lines))
        parser.parse(place)
    except CaptrainError as error:
        outcome = "rejected", _innermost(error)
        if len(str(error)) > LONGEST_MESSAGE:
            outcome = Fault("message", _innermost(error), f"an error of {len(str(error))} characters: {error!s:.200}")
    except BaseException as error:
        outcome = Fault("exception", f"{type(error).__name__} in {_innermost(error)}", _shown(error))
    finally:
        sys.settrace(None)
        signal.setitimer(signal.ITIMER_PROF, 0)
    return outcome, lines, time.process_time() - began


def _tracer(lines: set[Any]) -> Callable[..., Any]:
    """Notes which lines of captrain run."""

    def note(frame: Any, event: str, argument: Any) -> Any:
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return note

    return lambda frame, event, argument: note if SOURCE in frame.f_code.co_filename else None


def _innermost(error: BaseException) -> str:
    """The last place in captrain's own files that an error came through; where there is none, the last of all."""
    places = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    code, line = ([place for place in places if SOURCE in place[0].co_filename] or places)[-1]
    return f"{code.co_filename.rpartition(SOURCE)[2]}:{line} {code.co_name}"


def _shown(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return text.encode("utf-8", "backslashreplace").decode()


def _frames(trace: str) -> str:
    """Where a process was, from faulthandler's lines: the innermost frame in captrain."""
    places = [
        line.split('"')[1] + ":" + line.rpartition("line ")[2] for line in trace.splitlines() if '  File "' in line
    ]
    own = [place.rpartition(SOURCE)[2] for place in places if SOURCE in place]
    return (own or places or ["unknown"])[0]


def _limit(notes: Path) -> None:
    """Silence, a guard for the machine, and a trace of what takes too long or crashes."""
    be_silent()
    trace = notes.open("w")
    faulthandler.enable(trace, all_threads=False)
    faulthandler.register(signal.SIGPROF, trace, all_threads=False)
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESSES, size + ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 30, 4 << 30))
    logging.root.handlers[:] = [_Said()]


class _Said(logging.Handler):
    """Words of the log are made, as on a terminal, and thrown away."""

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()


def _memory() -> int:
    """Most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
