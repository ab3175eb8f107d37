"""A process that starts `captrain` in forks of itself, and kills them: a start costs no imports, so thirty kills are cheap.

Run as `python nursery.py` with a JSON object on stdin: `words` (of `captrain train`, without the run folder), `data` (a folder,
or null), `folder` (to work in), `kills` and `seed`. Prints a JSON object: `kills` that struck, and `runs`, the folders of all
runs that came to their end; the first two, `whole` and `again`, were never killed.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

STARTS_AT_MOST = 200
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"}
HABITS = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


class Writing:
    """Counts what a process does to the disk (as Python's audit events tell it), and dies before the n-th time."""

    def __init__(self, last: int | None) -> None:
        self.last = last
        self.count = 0

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR))
        if writes or event in CHANGES:
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)


class Nursery:
    """Starts runs of one and the same training."""

    def __init__(self, words: list[str], data: str | None, folder: Path) -> None:
        self.words, self.data, self.folder = words, data, folder
        self.facts = folder / "facts.json"

    def start(self, run: str, cache: str, writes: int | None = None, seconds: float | None = None) -> int:
        """One process: its exit code, or -9 when it was killed before a certain write or after some seconds."""
        child = os.fork()
        if child == 0:
            self._work(run, cache, writes)
        end = None if seconds is None else time.monotonic() + seconds
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if end is not None and time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                end = None
            time.sleep(0.002)
        return os.waitstatus_to_exitcode(ended[1])

    def _work(self, run: str, cache: str, writes: int | None) -> None:
        """What the child does."""
        import torch

        from captrain.cli import main

        os.environ["CAPTRAIN_CACHE"] = str(self.folder / cache)
        output = os.open(self.folder / f"{run}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        torch.set_num_threads(1)
        writing = Writing(writes)
        sys.addaudithook(writing)
        places = [str(self.folder / run)] if self.data is None else [self.data, str(self.folder / run)]
        code = main(["train", *places, *self.words])
        writing.last = None
        self.facts.write_text(json.dumps({"writes": writing.count, "modules": sorted(sys.modules)}))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def killed_again_and_again(nursery: Nursery, kills: int, seed: int) -> dict[str, Any]:
    """Runs that nobody kills; then others, killed before random writes or after random seconds until there were enough kills."""
    assert nursery.start("whole", "cache-whole") == 0
    facts = json.loads(nursery.facts.read_text())
    for name in facts["modules"]:
        with suppress(Exception):
            importlib.import_module(name)
    begin = time.monotonic()
    assert nursery.start("again", "cache-again") == 0
    seconds = time.monotonic() - begin
    draw = random.Random(seed)
    done, struck = ["whole", "again"], 0
    for _ in range(STARTS_AT_MOST):
        run = f"run-{len(done)}"
        enough = struck == kills
        by_writes = not enough and draw.random() < 0.7
        writes = draw.randrange(1, facts["writes"] // 2) if by_writes else None
        after = None if enough or by_writes else draw.uniform(0, 0.8 * seconds)
        code = nursery.start(run, f"cache-{run}", writes, after)
        struck += code == -signal.SIGKILL
        if code == 0:
            done.append(run)
            if enough:
                return {"kills": struck, "runs": done}
        elif code != -signal.SIGKILL:
            raise SystemExit(f"{run} ended with {code}")
    raise SystemExit(f"only {struck} kills struck")


if __name__ == "__main__":
    os.environ.update(HABITS)
    task = json.load(sys.stdin)
    import captrain.training.run  # noqa: F401 (so that no child has to)
    from captrain.report import page

    page.draw_curve = lambda *_: "<svg></svg>"  # a third of a tiny training
    nursery = Nursery(task["words"], task["data"], Path(task["folder"]))
    print(json.dumps(killed_again_and_again(nursery, task["kills"], task["seed"])))
