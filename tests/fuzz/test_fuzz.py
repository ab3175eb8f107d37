"""What was found is replayed, a bounded run goes over every parser, and the harness tells each kind of fault."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captrain.errors import DataError
from fuzz import harness
from fuzz.found import FOUND, kept, smaller
from fuzz.harness import fault_of, fuzz
from fuzz.inputs import Drawn, Parser, seeds_of
from fuzz.parsers import GROUPS, PARSERS
from fuzz.workplace import Files

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and traces as on Linux")

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("group", GROUPS)
def test_a_bounded_run_finds_nothing(group: str) -> None:
    """In a process of its own: it parts into many, which a process with threads should not."""
    command = [sys.executable, "-m", "fuzz", "--quick", "--parser", group]
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_what_was_found_is_fixed() -> None:
    """One process for all: the seeds are made once a parser."""
    known = {parser.label for parser in PARSERS}
    assert {path.name for path in FOUND.iterdir() if path.is_dir()} <= known
    command = [sys.executable, "-m", "fuzz", "--replay"]
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def seed(folder: Path) -> None:
    (folder / "a.txt").write_text("a dog\n")


def accept(folder: Path) -> None:
    (folder / "a.txt").read_text()


def refuse(folder: Path) -> None:
    if "dog" not in (folder / "a.txt").read_text(errors="replace"):
        raise DataError("no dog")


def fail(folder: Path) -> None:
    (folder / "a.txt").read_bytes().decode("ascii")


def spin(folder: Path) -> None:
    while True:
        time.time()


def eat(folder: Path) -> None:
    bytearray(os.urandom(1) * (1200 << 20))


def die(folder: Path) -> None:
    os.abort()


def parser(parse: object, name: str = "test") -> Parser:
    return Parser(name, parse, {"dog": seed})  # type: ignore[arg-type]


def test_inputs_are_the_same_each_time_and_by_their_trail_alone() -> None:
    one, other = (Drawn(parser(refuse), 3, seeds_of(parser(refuse))) for _ in range(2))
    trails = ["0", "0.5", "0.5.77", "0.5.77.80"]
    found: list[Files] = [one.files(trail) for trail in trails]
    assert [other.files(trail) for trail in reversed(trails)] == found[::-1]
    assert len({file["a.txt"] for file in found}) == 4


def test_what_is_refused_and_accepted_is_counted() -> None:
    report = fuzz(parser(refuse), 200, 0)
    assert report.accepted + report.rejected == report.inputs == 200
    assert report.rejected > 20 and report.accepted > 20 and not report.faults


def test_another_exception_is_told_once_with_its_trail() -> None:
    report = fuzz(parser(fail), 200, 0)
    ((fault, trail),) = report.faults.values()
    assert fault.kind == "exception" and "UnicodeDecodeError" in fault.text
    again = fault_of(parser(fail), Drawn(parser(fail), 0, seeds_of(parser(fail))).files(trail))
    assert again == fault


def test_hangs_crashes_and_memory_are_told_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "SECONDS", 0.3)
    assert fault_of(parser(spin), {"a.txt": b""}).kind == "hang"  # type: ignore[union-attr]
    monkeypatch.undo()
    assert fault_of(parser(eat), {"a.txt": b""}).kind == "memory"  # type: ignore[union-attr]
    assert fault_of(parser(die), {"a.txt": b""}).kind == "crash"  # type: ignore[union-attr]
    assert fuzz(parser(die), 5, 0).counts == {next(iter(fuzz(parser(die), 1, 0).counts)): 5}
    assert fault_of(parser(accept), {"a.txt": b""}) is None


def test_what_is_kept_is_small_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fuzz import found

    monkeypatch.setattr(found, "FOUND", tmp_path)
    files = {"a.txt": b"a dog runs on the grass \xff and more, " * 5}
    fault = fault_of(parser(fail), files)
    assert fault is not None
    small = smaller(parser(fail), files, fault)
    assert small == {"a.txt": b"\xff"}
    found.keep(parser(fail), small, fault)
    assert list(kept(parser(fail)).values()) == [small]
