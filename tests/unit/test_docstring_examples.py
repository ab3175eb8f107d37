"""The examples in docstrings say what is so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import captrain


def test_every_example_gives_what_it_says(tmp_path: Path) -> None:
    source = Path(captrain.__file__).parent
    options = (
        "-q",
        "--doctest-modules",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--basetemp",
        str(tmp_path / "run"),
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
