"""The recipe "Add a model family" of CONTRIBUTING.md, followed to the letter: its code, in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("src", "tests/conftest.py", "tests/contract", "pyproject.toml")
FAMILIES, TESTING = "src/captrain/models/families/__init__.py", "src/captrain/testing.py"
OWL = "src/captrain/models/families/owl.py"
AT_RUN_TIME = """
from captrain import Family, register_family
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.testing import *
from captrain.testing import _enliven, _word_tokenizer

{tiny}
family = Family("owl", "zoo_owl:OwlCaptioner", {{"owl": "zoo_owl:OwlModel"}}, own_models=("zoo_owl:OwlModel",))
register_family(family)
register_family(family)  # a second time, as a module that is imported twice would
captioner = load_captioner(str(tiny_owl(Path("tiny"))))
save_captioner(captioner, Path("run/model"))
again = load_captioner("run")
pixels = torch.from_numpy(clear_pictures(2))
assert again.generate(again.encode(pixels)) == captioner.generate(captioner.encode(pixels))
print(type(again).__module__, again.family)
"""


def recipe() -> dict[str, str]:
    """The code blocks of the recipe by the file that their first line names."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Add a model family\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"```python\n# (\S+)\n(.*?)```", section, re.DOTALL))


def insert(path: Path, before: str, text: str) -> None:
    """Put a text before the only place where another stands."""
    content = path.read_text(encoding="utf-8")
    assert content.count(before) == 1, f"{path}: {before!r}"
    path.write_text(content.replace(before, text + before), encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of captrain and of its contract tests."""
    for name in COPIED:
        source, target = ROOT / name, tmp_path / "copy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return tmp_path / "copy"


def run(folder: Path, source: Path, *arguments: str) -> str:
    """The output of Python in a folder, with captrain from `source`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (source, folder)))}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_recipe_adds_a_family(copy: Path) -> None:
    """One file and one record make a family that keeps the contract; two more places give it tests."""
    blocks = recipe()
    assert set(blocks) == {OWL, FAMILIES, TESTING}
    (copy / OWL).write_text(blocks[OWL], encoding="utf-8")
    insert(copy / FAMILIES, ")\n\nFAMILIES: dict", blocks[FAMILIES])
    insert(copy / TESTING, "TINY_CAPTIONERS = {\n", blocks[TESTING] + "\n\n")
    insert(copy / TESTING, '    "prefix": tiny_prefix,\n', '    "owl": tiny_owl,\n')
    contract = ("tests/contract/test_captioners.py", "-k", "owl")
    told = run(copy, copy / "src", "-m", "pytest", "-q", "-p", "no:cacheprovider", *contract)
    passed = re.search(r"(\d+) passed", told)
    assert passed and int(passed[1]) >= 16, told
    assert "failed" not in told and "skipped" not in told


def test_a_family_is_registered_at_run_time(tmp_path: Path) -> None:
    """A family in a module outside of captrain: nothing in captrain is edited."""
    blocks = recipe()
    (tmp_path / "zoo_owl.py").write_text(blocks[OWL], encoding="utf-8")
    tiny = blocks[TESTING].replace("captrain.models.families.owl", "zoo_owl")
    (tmp_path / "program.py").write_text(AT_RUN_TIME.format(tiny=tiny), encoding="utf-8")
    assert run(tmp_path, ROOT / "src", "program.py").split() == ["zoo_owl", "owl"]
