"""What integration tests say to the command line, and how they look at what a run left."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import App, Argument, ArgumentCollection

QUICK = "--device cpu --precision fp32 --batch-size 2 --beams 1 --max-new-tokens 6 --log-every 1 --learning-rate 0.01"


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """The last line on stderr: where an error is told."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


Cli = Callable[..., Result]


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file, without the seconds that differ from run to run."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def losses_of(run: Path) -> list[float]:
    """The training loss at each step of a run."""
    return [line["loss"] for line in lines_of(run / "metrics.jsonl") if line["kind"] == "train"]


class Remembered:
    """The arguments of each command, looked up once: cyclopts reads all annotations three times for each command line.

    `App.assemble_argument_collection` gives new arguments without tokens; so does this, as copies of the first ones.
    """

    def __init__(self) -> None:
        self.known: dict[object, list[Argument]] = {}
        self.assemble = App.assemble_argument_collection

    def of(self, app: App, **options: Any) -> ArgumentCollection:
        """What cyclopts would give, in a tenth of the time."""
        function = app.default_command
        if "<locals>" in getattr(function, "__qualname__", "<locals>"):
            return self.assemble(app, **options)
        key = (function, *sorted(options.items()))
        if key not in self.known:
            self.known[key] = list(self.assemble(app, **options))
        copies = {id(argument): copy(argument) for argument in self.known[key]}
        for argument in copies.values():
            argument.tokens = []
            argument.children = ArgumentCollection(copies[id(child)] for child in argument.children)
        return ArgumentCollection(copies.values())


HOLD = """
import sys, time
from pathlib import Path
from captrain.disk.locks import locked, locked_folder
path = Path(sys.argv[1])
with locked_folder(path) if path.is_dir() else locked(path):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holding(path: Path) -> Iterator[int]:
    """Another process, whose number this yields, holds the lock of a file or folder; at the end it is killed by SIGKILL."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        try:
            yield process.pid
        finally:
            process.kill()
