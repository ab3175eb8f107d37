"""`captrain encode`, killed by SIGKILL at any moment and started again, leaves the bytes of a run that nothing disturbed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captrain.data.convert import convert
from captrain.data.feature_store.manifest import MANIFEST
from captrain.testing import tiny_photos

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")

KILLING = """
import os, random, signal, sys, time
import torch
import transformers.models.vit.modeling_vit
import captrain.features.encode, captrain.features.engines
from captrain.cli import main

def records():
    shards = os.path.join(store, "shards")
    return sum(name.endswith(".json") for name in os.listdir(shards)) if os.path.isdir(shards) else 0

def killed_after(shards, seconds):
    "Whether a run that should have been killed, so many seconds after so many further shards were done, was alive then."
    enough, until = records() + shards, None
    child = os.fork()  # a process of its own, which need not import everything again
    if child == 0:
        os._exit(main([*words, store]))
    while until is None or time.monotonic() < until:
        if until is None and records() >= enough:
            until = time.monotonic() + seconds
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert status == 0, status
            return False
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])

store, whole, seed, *words = sys.argv[1:]
torch.set_num_threads(1)
assert main([*words, whole]) == 0
sys.stdin.readline()
draws, left = random.Random(int(seed)), []
while killed_after(draws.randrange(4), draws.uniform(0, 0.01)):
    left.append(records())
print(left)
"""


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_killed_at_random_moments(tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the command itself is killed while it writes; then again and again, until one run gets to its end."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tars, store, whole = (tmp_path / name for name in ("tars", "store", "whole"))
    convert(str(tiny_photos(tmp_path / "photos", count=40)), tars, "webdataset", shard_size=8)
    words = ["-q", "encode", str(tars), "--encoder", str(encoder), "--shard-images", "2", "--batch-size", "2"]
    words += ["--device", "cpu", "--precision", "fp32", "--workers", "2"]

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    killing = subprocess.Popen([sys.executable, "-c", KILLING, str(store), str(whole), "3", *words], **pipes)
    with subprocess.Popen([sys.executable, "-m", "captrain", *words, str(store)]) as command:
        while not list(store.glob("shards/*.json")):
            assert command.poll() is None, "it ended before it was killed"
            time.sleep(0.001)
        command.kill()
    assert command.returncode == -signal.SIGKILL
    assert not json.loads((store / MANIFEST).read_bytes())["complete"]

    out, errors = killing.communicate("go\n")
    assert killing.returncode == 0, errors
    left = json.loads(out.splitlines()[-1])
    assert len(left) > 2, "too few runs were killed"
    assert files_of(store) == files_of(whole)
    assert sum(name.endswith(".safetensors") for name in files_of(whole)) == 20
