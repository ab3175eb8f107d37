"""Help comes at once: no heavy import, little processor time."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "PIL", "matplotlib", "numpy", "pydantic")
SECONDS = 0.3
COMMANDS = (
    "train", "caption", "evaluate", "encode", "estimate", "demo", "report", "doctor", "config show", "config schema"
)  # fmt: skip


def run(code: str) -> str:
    """Stdout of Python code in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def loaded_by(words: list[str]) -> list[str]:
    """Heavy modules in a fresh interpreter after a command line."""
    code = f"""
import sys
import captrain.cli
captrain.cli.main({words!r})
print("loaded:", *[name for name in {HEAVY!r} if name in sys.modules])
"""
    return run(code).rsplit("loaded:", 1)[1].split()


def test_importing_the_command_line_loads_next_to_nothing() -> None:
    code = (
        f"import sys, captrain.cli; print([name for name in {(*HEAVY, 'cyclopts', 'rich')!r} if name in sys.modules])"
    )
    assert run(code).strip() == "[]"


def test_help_loads_nothing_heavy() -> None:
    assert loaded_by(["--help"]) == []
    assert loaded_by(["--version"]) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_nothing_but_the_settings(command: str) -> None:
    assert loaded_by([*command.split(), "--help"]) in ([], ["pydantic"])


def test_help_takes_less_than_three_tenths_of_a_second() -> None:
    """Processor time, median of five: a machine that is busy with other work changes the time on the wall only."""
    seconds = []
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, "-m", "captrain", "--help"], capture_output=True, check=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert statistics.median(seconds) < SECONDS
