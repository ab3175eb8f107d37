"""A bounded handful of what `make faults` tries: calls that fail, kills, signals, and a disk that really is full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("harness.py")
SKIPPED = 77


def tried(*words: str) -> str:
    """The table that the harness prints; no fault is in it."""
    done = subprocess.run([sys.executable, HARNESS, *words], capture_output=True, text=True, check=False, timeout=600)
    if done.returncode == SKIPPED:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    return done.stdout


def test_calls_that_fail_kills_and_signals() -> None:
    """A call that writes fails, or is the last, or a signal comes: after each, the same command ends with the bytes of an
    undisturbed run."""
    commands = (
        "train:2,caption jsonl:4:4,caption append:4,convert sidecar:6:4,encode:4,export archive:2,evaluate:3,report:3"
    )
    table = tried("--command", commands, "--signals", "0")
    assert table.splitlines()[-1].split()[:2] == ["all", "36"]


def test_a_disk_of_8_mb_that_is_full() -> None:
    """The line names the full disk, what was there stays, and with room again the same command goes on to the same bytes."""
    table = tried(
        "--disk", "8", "--points", "2", "--command", "caption jsonl,convert parquet,encode,export folder,score"
    )
    assert table.splitlines()[-1].split()[:2] == ["all", "10"]
