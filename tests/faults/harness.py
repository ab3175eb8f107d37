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
import errno
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands import COMMANDS, make_inputs
from starts import (
    FILLED,
    KINDS,
    PAGE,
    SIGNALS,
    SKIPPED,
    TOLD,
    Harness,
    Point,
    Start,
    mirror_of,
    preload,
    start_preloaded,
)
from trees import FILLER, broken, differences, lost, results, tree_of


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
        harness, result = self.harness, self.result
        harness.lay_out(self.command)
        first = harness.start(self.command.words, point, seconds, number)
        after = tree_of(harness.work)
        if seconds is None and not first.struck:  # no such call was left that it can happen to
            result.missed += 1
            return
        result.points += 1
        result.kinds[point.kind] += 1
        result.killed += first.code == -signal.SIGKILL
        result.unharmed += first.code == 0
        result.failed += first.code not in (0, -signal.SIGKILL)
        odd = [*self._of_first(first, point, after), *self._of_again()]
        where = (
            f"{point.kind} at {point.call} ({first.struck})"
            if seconds is None
            else f"{point.kind} after {seconds:.3f} s"
        )
        result.faults += [f"{where}: {fault}" for fault in odd]

    def fill(self, free: int) -> None:
        """The same on a disk that is filled but for some bytes: what is told, and what comes of it once there is room again."""
        harness, result = self.harness, self.result
        harness.lay_out(self.command)
        filler = harness.work / FILLER
        with filler.open("wb") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(harness.work).free - free))
        first = harness.start(self.command.words, None)
        after = tree_of(harness.work)
        filler.unlink()
        result.points += 1
        result.kinds[FILLED] += 1
        result.unharmed += first.code == 0
        result.failed += first.code != 0
        odd = [*self._of_first(first, Point(0, FILLED), after), *self._of_again()]
        result.faults += [f"{FILLED} with {free:,} bytes left: {fault}" for fault in odd]

    def _of_first(self, first: Start, point: Point, after: dict[str, bytes]) -> Iterator[str]:
        """What is wrong after the disturbed start."""
        if first.code == 0:
            yield from (f"said all is well, but {odd}" for odd in differences(results(after), results(self.reference)))
        elif point.kind in SIGNALS:
            yield from _of_signal(first, SIGNALS[point.kind][1])
        elif first.code != -signal.SIGKILL:
            yield from _of_failure(first, errno.ENOSPC if point.kind == FILLED else KINDS[point.kind][1])
        yield from (f"at once, {odd}" for odd in broken(after))
        if not self.command.replaces:
            yield from (f"at once, {odd}" for odd in lost(self.before, after, self.reference))

    def _of_again(self) -> Iterator[str]:
        """What is wrong after the next start."""
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


def try_filled(harness: Harness, name: str, wanted: int) -> Result:
    """A disk that has room for nothing, for all that the command needs, and degrees between."""
    harness.lay_out(COMMANDS[name])
    begin = harness.used()
    trial = Trial(harness, name)
    needed = harness.used() - begin
    for degree in range(wanted):
        trial.fill(needed * degree // wanted // PAGE * PAGE)
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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--command",
        default="",
        help="such as train:20,encode or encode:20:4, points and signals (default: all)",
    )
    parser.add_argument("--points", type=int, default=200, help="of each command (default: 200)")
    parser.add_argument("--signals", type=int, default=20, help="SIGINT and SIGTERM, of each command (default: 20)")
    parser.add_argument("--point", default="", help="only this one: 'disk full@17'")
    parser.add_argument(
        "--keep", type=Path, help="folder for copies of what was undisturbed and what was left at the end"
    )
    parser.add_argument("--disk", type=int, default=0, help="on a disk of so many MB that is filled, instead")
    parser.add_argument("--slice", default="1/1", help="2/4: the second quarter of the points")
    parser.add_argument("--results", type=Path, help="file of results to add to")
    parser.add_argument("--table", type=Path, help="show the table of such a file, and do nothing")
    words = parser.parse_args(argv)
    if words.table is not None:
        print(table(read_results(words.table)))
        return 0
    if "CAPTRAIN_FAULTS" not in os.environ:
        return start_preloaded([__file__, *(sys.argv[1:] if argv is None else argv)], words.disk > 0)
    base = Path(os.environ["CAPTRAIN_FAULTS"])
    return try_all(base, words)


def try_all(base: Path, words: argparse.Namespace) -> int:
    """All commands that are asked for; 0 where no fault was found."""
    import torch

    torch.set_num_threads(1)
    harness = Harness(base)
    os.environ["CAPTRAIN_CACHE"] = str(base / "cache")
    if harness.make(make_inputs) != 0:
        raise SystemExit(f"the inputs could not be made\n{harness.log.read_text(errors='replace')}")
    preload(harness.modules)
    if words.disk and not harness.mount(words.disk):
        print("skipped: this user can't mount a disk; nothing was tried", file=sys.stderr)
        return SKIPPED
    found = []
    with mirror_of(harness.inputs / "mirror") as harness.mirror:
        for name, wanted, signals in asked_for(words.command, words.points, words.signals):
            found.append(try_named(harness, name, wanted, signals, words))
    print(table(found))
    return int(any(result.faults for result in found))


def try_named(harness: Harness, name: str, wanted: int, signals: int, words: argparse.Namespace) -> Result:
    """One command, as the words of this program say; what was found is told and added to the results."""
    begin = time.monotonic()
    at, of = map(int, words.slice.split("/"))
    try:
        if words.disk:
            result = try_filled(harness, name, wanted)
        elif words.point:
            result = try_point(harness, name, words.point, words.keep)
        else:
            result = try_command(harness, name, wanted, (at, of), signals)
    except SystemExit as error:
        result = Result(name, faults=[str(error)])
    seconds = time.monotonic() - begin
    print(f"{name}: {result.points} points in {seconds:.0f} s, {result.missed} not reached", file=sys.stderr)
    for fault in result.faults:
        print(f"  {fault}", file=sys.stderr)
    if words.results is not None:
        with words.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(vars(result)) + "\n")
    return result


def asked_for(commands: str, points: int, signals: int) -> list[tuple[str, int, int]]:
    """Names of commands with their numbers of points and of signals; all of them where none is named.

    >>> asked_for("train:20,encode:4:2", 200, 8)
    [('train', 20, 8), ('encode', 4, 2)]
    """
    named = [(*part.split(":"), "", "")[:3] for part in commands.split(",")] if commands else []
    return [
        (name, int(at_calls or points), int(signalled or signals))
        for name, at_calls, signalled in named or [(name, "", "") for name in COMMANDS]
    ]


def read_results(path: Path) -> list[Result]:
    """What `--results` wrote."""
    return [Result(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
