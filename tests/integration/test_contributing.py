"""The recipes of CONTRIBUTING.md, followed letter by letter in a copy of the package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

HOME = Path(__file__).parents[2]


def blocks_of(section: str, language: str = "python") -> list[str]:
    """The code blocks of a language in a section of CONTRIBUTING.md, in order."""
    text = (HOME / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"CONTRIBUTING.md has no section '{section}'"
    indented = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", found[1], re.DOTALL | re.MULTILINE)
    return [
        "".join(line.removeprefix(indent) for line in block.splitlines(keepends=True)) for indent, block in indented
    ]


def test_a_format_is_one_file_and_one_line(tmp_path: Path) -> None:
    module, line, form = blocks_of("Add a data format")
    shutil.copytree(HOME / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (tmp_path / "src/captrain/data/readers/albums.py").write_text(module, encoding="utf-8")
    readers = tmp_path / "src/captrain/data/readers/__init__.py"
    before = readers.read_text(encoding="utf-8")
    assert before.count('    "sidecar": ') == 1
    readers.write_text(before.replace('    "sidecar": ', f'{line}    "sidecar": '), encoding="utf-8")
    forms = tmp_path / "contract/forms"
    forms.mkdir(parents=True)
    shutil.copy(HOME / "tests/contract/test_readers.py", tmp_path / "contract")
    (forms / "albums.py").write_text(form, encoding="utf-8")

    tests = run(tmp_path, "pytest", "contract", "-q", "-k", "albums", "-p", "no:cacheprovider", "-o", "addopts=")
    assert re.search(r"\b9 passed, \d+ deselected", tests), tests
    listed = run(tmp_path, "captrain", "data", "formats")
    assert "Albums of photos" in listed and "albums.xml" in listed
    for place, text in (("src/captrain/data/readers/albums.py", module), ("tests/contract/forms/albums.py", form)):
        check_style(place, text)


def check_style(place: str, text: str) -> None:
    """Hold a file that a recipe writes to the rules of this repository, as if it were there."""
    for words in (("check", "-q"), ("format", "--check", "-q")):
        command = [sys.executable, "-m", "ruff", *words, "--stdin-filename", place, "-"]
        done = subprocess.run(command, cwd=HOME, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def run(folder: Path, *words: str) -> str:
    """What a Python module prints that is run with the copy of the package."""
    environment = {"PYTHONPATH": str(folder / "src"), "PATH": "", "HOME": str(folder), "COLUMNS": "200"}
    code = textwrap.dedent(f"""
        import runpy, sys, captrain
        assert captrain.__file__.startswith({str(folder)!r}), captrain.__file__
        sys.argv = {list(words)!r}
        runpy.run_module({words[0]!r}, run_name="__main__", alter_sys=True)
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
