"""Two processes in a group, as torchrun starts them, that run command lines one after another: torch is imported once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from run_tools import Result

PROGRAM = """
import contextlib, io, json, os, sys
import torch
from captrain.cli import main
from captrain.report import page

page.draw_curve = lambda *_: "<svg></svg>"  # a third of a tiny training
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    request = json.loads(line)
    os.chdir(request["folder"])
    os.environ["CAPTRAIN_CACHE"] = request["cache"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(request["words"])
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]), file=answers, flush=True)
"""


class Pair:
    """The two processes."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(2)
        ]  # fmt: skip

    def run(self, folder: Path, *words: str | Path) -> list[Result]:
        """Run `captrain WORDS` in both; a word with spaces in it is split unless it is a path."""
        split = [part for word in words for part in ([str(word)] if isinstance(word, Path) else word.split())]
        request = {"folder": str(folder), "cache": os.environ["CAPTRAIN_CACHE"], "words": split}
        for process in self.processes:
            assert process.stdin is not None
            print(json.dumps(request), file=process.stdin, flush=True)
        return [self._answer(process) for process in self.processes]

    def _answer(self, process: subprocess.Popen[str]) -> Result:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the process ended"
        return Result(*json.loads(line))

    def close(self) -> None:
        """End both."""
        for process in self.processes:
            process.kill()
            process.wait()
