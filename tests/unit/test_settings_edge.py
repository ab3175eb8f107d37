"""Settings stop at the edge: which files may know the schema of settings. The list may only get shorter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import captrain

SOURCES = Path(captrain.__file__).parent
SCHEMA = "captrain.settings.schema"

MAY_IMPORT = {
    # Where settings come in.
    "cli/flags.py", "cli/train.py", "demo/run.py",
    "api/checks.py", "api/captioning.py", "api/options.py", "api/recipes.py", "api/scoring.py", "api/training.py",
    # Where a training takes them apart.
    "training/run.py", "training/filled.py", "training/resolve.py", "training/distributed/launch.py",
    # Where other commands check what they are given by the rules of the schema, or read the settings of a run.
    "features/encode.py", "features/stream.py",
    "inference/captioner.py", "inference/evaluate.py", "inference/evaluation_data.py",
    "inference/score.py",
    "models/decoding.py", "models/defaults.py",
    "data/read_options.py", "data/recipe_data.py",
}  # fmt: skip

WHY = (
    "Below the files that set a training up, functions take plain values or small frozen dataclasses of their own, so that they "
    "can be called and tested without a recipe. Let training/resolve.py take the settings apart, and pass on what is needed."
)


def importers() -> set[str]:
    """Files outside of the settings that import the schema."""
    found = set()
    for path in SOURCES.rglob("*.py"):
        name = path.relative_to(SOURCES).as_posix()
        if not name.startswith("settings/") and any(SCHEMA in module for module in _imported(path)):
            found.add(name)
    return found


def _imported(path: Path) -> list[str]:
    modules = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules.append(node.module)
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return modules


def test_no_other_file_imports_the_schema() -> None:
    new = sorted(importers() - MAY_IMPORT)
    assert not new, f"{', '.join(new)}: imports {SCHEMA}. {WHY}"


def test_the_list_is_as_short_as_it_can_be() -> None:
    gone = sorted(MAY_IMPORT - importers())
    assert not gone, f"{', '.join(gone)}: no longer imports {SCHEMA}; take it from the list, so that it stays so"


def test_reading_data_needs_no_command_line_library() -> None:
    program = "import sys, captrain.data.readers.jsonl, captrain.data.read_options; print('cyclopts' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
