"""Help comes at once: no heavy import, little processor time."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import pytest

from captrain.cli.help import load_pages

HEAVY = ("torch", "transformers", "peft", "PIL", "matplotlib", "numpy", "pydantic", "cyclopts", "rich", "tqdm")
SECONDS = 0.3
LATER = ("torch", "transformers", "peft", "datasets", "pandas", "pyarrow", "matplotlib", "scipy", "sklearn")
"""What no command needs to refuse a wrong call."""


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
    code = f"import sys, captrain.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run(code).strip() == "[]"


def test_help_of_no_command_loads_anything_heavy() -> None:
    """All pages in one interpreter: what one of them loaded would stay."""
    commands = [name.split() for name in load_pages()]
    code = f"""
import sys
import captrain.cli
for command in {commands!r}:
    assert captrain.cli.main([*command, "--help"]) == captrain.cli.main([*command, "--help-all"]) == 0
print("loaded:", *[name for name in {HEAVY!r} if name in sys.modules])
"""
    assert len(commands) > 20
    assert run(code).rsplit("loaded:", 1)[1].split() == []


def test_the_version_loads_no_settings() -> None:
    assert set(loaded_by(["--version"])) <= {"cyclopts", "rich", "tqdm"}


@pytest.mark.parametrize("command", ["", "train", "config show"])
def test_help_takes_less_than_three_tenths_of_a_second(command: str) -> None:
    """Processor time, median of five: a machine that is busy with other work changes the time on the wall only."""
    seconds = []
    for _ in range(5):
        before = os.times()
        words = [sys.executable, "-m", "captrain", *command.split(), "--help"]
        subprocess.run(words, capture_output=True, check=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert statistics.median(seconds) < SECONDS


@pytest.mark.parametrize("module", ["captrain.cli.train", "captrain.cli.caption", "captrain.cli.score"])
def test_a_command_checks_its_words_before_what_is_heavy(module: str) -> None:
    """matplotlib alone was two fifths of the time that `captrain train` took to refuse a wrong flag."""
    assert run(f"import sys, {module}; print(*[name for name in {LATER!r} if name in sys.modules])").split() == []


@pytest.mark.parametrize(
    ("module", "not_needed"),
    [
        ("captrain.training.run", ("matplotlib", "scipy", "sklearn", "tensorboard", "wandb", "mlflow", "ray")),
        ("captrain.inference.caption_files", ("matplotlib", "peft", "datasets", "pandas", "scipy", "sklearn", "ray")),
    ],
)
def test_work_begins_without_what_it_may_never_need(module: str, not_needed: tuple[str, ...]) -> None:
    """Curves are drawn at the end, and adapters are read where there are some."""
    assert run(f"import sys, {module}; print(*[name for name in {not_needed!r} if name in sys.modules])").split() == []
