"""Shell completion: one command installs it, and bash then completes commands, flags and choices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")

COMPLETE = """
. "$HOME/.bashrc"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_captrain
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which completion is installed."""
    folder = tmp_path_factory.mktemp("home")
    done = subprocess.run(
        [sys.executable, "-m", "captrain", "--install-completion", "--shell", "bash"],
        env={**os.environ, "HOME": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ".local/share/bash-completion/completions/captrain" in done.stdout
    return folder


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("captrain tr", {"train"}),
        ("captrain e", {"encode", "estimate", "evaluate", "export"}),
        ("captrain data c", {"check", "compile", "convert"}),
        ("captrain train --learning", {"--learning-rate"}),
        ("captrain train --keep", {"--keep-checkpoints", "--keep-tags"}),
        ("captrain train photos runs/x --rank 4 --meth", {"--method"}),
        ("captrain train photos --method l", {"lora"}),
        ("captrain data get coco", {"coco-karpathy"}),
        ("captrain caption m a.jpg --existing a", {"append"}),
        ("captrain features verify --help", {"--help", "--help-all"}),
    ],
)
def test_bash_completes(words: str, expected: set[str], home: Path) -> None:
    done = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE, "bash", *words.split()],
        env={**os.environ, "HOME": str(home)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {word.strip() for word in done.stdout.splitlines()} == expected
