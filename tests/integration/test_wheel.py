"""The wheel: what is in it, that it works without the checkout, and what a type checker knows of it.

`make wheel` sets CAPTRAIN_DIST to the folder that it built; otherwise a wheel is built here, without network.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

from captrain.testing import tiny_photos
from captrain.version import __version__

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "captrain"
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TYPES = """
from typing import assert_type

assert_type(captrain.load("a"), captrain.Captioner)
assert_type(captrain.load("a")("a.jpg", beams=5), str)
assert_type(captrain.load("a").caption(["a.jpg"], batch_size=2), list[captrain.Caption])
assert_type(captrain.train("photos", "runs/photos", rank=8), captrain.Run)
assert_type(captrain.Run("a").captioner(), captrain.Captioner)
assert_type(captrain.Run("a").scores, dict[str, float])
assert_type(captrain.Run("a").history, captrain.History)
assert_type(captrain.caption("a", "photos"), captrain.Captions)
assert_type(captrain.caption("a", "photos")[0].text, str)
assert_type(captrain.read("photos"), captrain.Samples)
assert_type(captrain.evaluate("a", "photos").scores, dict[str, float])
"""
"""What each call gives, as a type checker must see it: `Any` would be another type. tests/types/uses_api.py has the arguments."""
CHECKING = """
[mypy]
strict = True
pretty = False
error_summary = False
# No public type is made of another library's, and following torch and transformers takes minutes.
follow_imports = skip
ignore_missing_imports = True

[mypy-captrain.*]
follow_imports = silent
"""
QUICK = "--device cpu --precision fp32 --batch-size 4 --epochs 1 --beams 1 --max-new-tokens 6"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    if ready := os.environ.get("CAPTRAIN_DIST"):
        dist = ROOT / ready
    else:
        dist = tmp_path_factory.mktemp("dist")
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(ROOT)]
        built = subprocess.run(command, capture_output=True, text=True)
        assert built.returncode == 0, built.stdout + built.stderr
    (found,) = dist.glob("captrain-*.whl")
    return found


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files, as site-packages has them."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def metadata_of(unpacked: Path) -> Message:
    """What the wheel says of itself."""
    return Parser().parsestr((unpacked / f"captrain-{__version__}.dist-info" / "METADATA").read_text(encoding="utf-8"))


def test_the_wheel_holds_the_package_and_nothing_else(unpacked: Path) -> None:
    """Every file of the package, templates and the mark of types too; no tests, no caches, no files of this machine."""
    ours = {path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    found = {path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()}
    about = {path for path in found if path.parts[0] == f"captrain-{__version__}.dist-info"}
    assert found - about == ours
    assert {Path("captrain/py.typed"), Path("captrain/report/template.html")} <= found
    assert {path.name for path in about} == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE"}


def test_the_source_archive_holds_what_git_holds(tmp_path: Path) -> None:
    """Nothing that happens to be beside the project's files: a linked folder of data once made it 120 MB."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout: there is no list to compare with")
    if ready := os.environ.get("CAPTRAIN_DIST"):
        dist = ROOT / ready
    else:
        dist = tmp_path
        command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(dist), str(ROOT)]
        subprocess.run(command, capture_output=True, check=True)
    (archive,) = dist.glob("captrain-*.tar.gz")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    with tarfile.open(archive) as opened:
        found = {member.name.partition("/")[2] for member in opened if member.isfile()}
    # The index's own file, and what only a checkout needs.
    assert found - {"PKG-INFO"} <= set(listed.stdout.split("\0"))
    assert {"README.md", "Makefile", "tests/conftest.py", "src/captrain/py.typed"} <= found


def test_an_index_shows_what_the_package_is(unpacked: Path) -> None:
    metadata = metadata_of(unpacked)
    assert metadata["Name"] == "captrain" and metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11" and metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert {url.split(",")[0] for url in metadata.get_all("Project-URL", [])} >= {"Documentation", "Source", "Issues"}


def test_installing_brings_nothing_of_the_extras(unpacked: Path) -> None:
    """The demo needs none of them: who has a look does not wait for ray and wandb."""
    needed = [line for line in metadata_of(unpacked).get_all("Requires-Dist", []) if "extra ==" not in line]
    names = {re.split(r"[<>=!\[ ;]", line)[0] for line in needed}
    assert "torch" in names
    assert not names & {"ray", "wandb", "mlflow-skinny", "tensorboard", "pytest", "mypy", "sphinx", "deepspeed"}


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__ and citation["license"] == "Apache-2.0"


def captrain_of(unpacked: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the wheel's `captrain WORDS` in another folder, where nothing of the checkout is found."""
    code = f"""
import sys
sys.path.insert(0, {str(unpacked)!r})
import captrain
assert captrain.__file__.startswith({str(unpacked)!r}), captrain.__file__
from captrain.cli import main
sys.exit(main(sys.argv[1:]))
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_works_without_the_checkout(unpacked: Path, blip: Path, tmp_path: Path) -> None:
    """From photos to a report, which needs the templates and styles in the package."""
    tiny_photos(tmp_path / "photos", count=8)
    assert "train" in captrain_of(unpacked, tmp_path, "--help").stdout
    trained = captrain_of(unpacked, tmp_path, "train", "photos", "run", "--model", str(blip), *QUICK.split())
    assert trained.returncode == 0, trained.stderr
    assert "<style>" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    preview = captrain_of(unpacked, tmp_path, "data", "preview", "photos", "preview.html")
    assert preview.returncode == 0, preview.stderr


def checked(program: str, unpacked: Path, folder: Path) -> str:
    """What `mypy --strict` says of a program that uses the wheel; nothing where all is well."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    (folder / "mypy.ini").write_text(CHECKING)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "program.py"]
    environment = os.environ | {"MYPYPATH": str(unpacked), "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_the_python_of_the_readme_is_typed(unpacked: Path, tmp_path: Path) -> None:
    program = "\n".join(PYTHON_BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert "captrain.train(" in program
    assert checked(program + TYPES, unpacked, tmp_path) == ""
