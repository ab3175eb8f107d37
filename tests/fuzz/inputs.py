"""What reads files, and the broken files for it: each is drawn from a valid one, again and again the same.

An input has a name, its trail: "3.88.1234" is seed 3, changed as the 88th input was, and then as the 1234th. With the number that
all draws begin with, the trail alone gives the input again.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from random import Random

from fuzz.mutate import KINDS, mutated
from fuzz.workplace import Files, files_in, work_folder

MOST_KEPT = 400  # inputs that are changed further

FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Parser:
    """Something that reads files.

    seeds: by name, what writes a small valid input into an empty folder. parse: reads the folder as the product does; raises
    `CaptrainError` for what it refuses, an AssertionError where a promise is broken, and nothing else. left: endings of
    files that are not changed. quick: inputs of the bounded run. needs: modules to import before processes part. writes:
    whether it changes its folder. mend: puts checksums right that files have of each other.
    """

    name: str
    parse: Callable[[Path], object]
    seeds: Mapping[str, Callable[[Path], object]]
    left: tuple[str, ...] = ()
    quick: int = 100
    needs: tuple[str, ...] = ()
    writes: bool = False
    mend: Callable[[Files], Files] = dict

    @property
    def label(self) -> str:
        """Its name as one word."""
        return self.name.replace(" ", "-")


@dataclass
class Drawn:
    """The inputs of a parser, each from its trail. `valid`: whether seeds that are refused are faults."""

    parser: Parser
    seed: int
    seeds: list[Files]
    valid: bool = True
    made: dict[str, Files] = field(default_factory=dict)

    def trail(self, index: int, corpus: list[str]) -> str:
        """Which input is changed into the one of this number: one of the seeds, or of those that reached something new."""
        if index < len(self.seeds):
            return str(index)
        rng = Random(f"{self.seed} {self.parser.name} {index} parent")
        grown = corpus and rng.random() < 0.6
        return f"{rng.choice(corpus) if grown else rng.randrange(len(self.seeds))}.{index}"

    def files(self, trail: str) -> Files:
        """The input of a trail."""
        if trail not in self.made:
            parent, _, last = trail.rpartition(".")
            if not parent:
                return self.seeds[int(last)]
            rng = Random(f"{self.seed} {self.parser.name} {last}")
            if len(self.made) > 2 * MOST_KEPT:
                self.made.clear()
            self.made[trail] = self._changed(self.files(parent), rng)
        return self.made[trail]

    def _changed(self, files: Files, rng: Random) -> Files:
        """A folder with one of its files changed, or two, or one missing."""
        names = [name for name in files if not name.endswith(self.parser.left)] or list(files)
        changed = dict(files)
        for _ in range(2 if rng.random() < 0.1 else 1):
            name = rng.choice(names)
            kind = KINDS.get(PurePosixPath(name).suffix.lower(), "")
            donors = [seed[name] for seed in self.seeds if name in seed] or [files[name]]
            changed[name] = mutated(changed.get(name, b""), kind, rng, donors)
        if len(names) > 1 and rng.random() < 0.02:
            changed.pop(rng.choice(names), None)
        return self.parser.mend(changed)


def seeds_of(parser: Parser) -> list[Files]:
    """The parser's valid inputs, made in a child: what libraries start up for that stays out of this process."""
    receiver, sender = FORK.Pipe(duplex=False)

    def make() -> None:
        be_silent()
        try:
            sender.send_bytes(pickle.dumps([_written(write) for write in parser.seeds.values()]))
        except BaseException:
            sender.send_bytes(pickle.dumps(traceback.format_exc()))

    child = FORK.Process(target=make)
    child.start()
    sender.close()
    found = pickle.loads(receiver.recv_bytes())
    child.join()
    if isinstance(found, str):
        raise SystemExit(f"{parser.name}: its seeds can't be made\n{found}")
    return list(found)


def _written(write: Callable[[Path], object]) -> Files:
    with work_folder() as folder:
        write(folder)
        return files_in(folder)


def be_silent() -> None:
    """Send what a process prints nowhere."""
    silent = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(silent, handle)
