"""What the documentation shows is run: every command, every Python block, every recipe, file by file, in order."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from docs_workplace import furnish
from run_tools import Cli

from captrain.settings.load import load_recipe, resolve

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.relative_to(DOCS).parts),
]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
BLOCK = re.compile(
    r"^(?:(?P<run><!-- run -->)\n|<!-- file: (?P<file>\S+) -->\n)?```(?P<language>[\w{}-]*)[^\n]*\n(?P<content>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NOT_RUN = {
    "make demo": "trains for minutes; CI runs it by itself",
    "make bench": "measures for minutes",
    "git clone": "needs the network, and makes an environment",
}
"""How blocks begin that are neither run nor plain text, and why."""


def named(page: Path) -> str:
    """A page by its path: several folders have an index."""
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    content: str
    runs: bool
    file: str
    """The name that it is saved under, for later commands of its page; empty for others."""


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["language"], match["content"], bool(match["run"]), match["file"] or "") for match in found]


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the checkpoints that pages name."""
    return tmp_path_factory.mktemp("stock")


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.runs for block in blocks_of(page))], ids=named)
def test_pages_run(page: Path, tmp_path: Path, cli: Cli, stock: Path) -> None:
    furnish(tmp_path, page.read_text(encoding="utf-8"), stock)
    names: dict[str, object] = {"__name__": "docs"}
    for block in blocks_of(page):
        if block.file:
            (tmp_path / block.file).write_text(block.content, encoding="utf-8")
        if block.runs:
            RUNNERS[block.language](block.content, tmp_path, cli, names)


def run_commands(content: str, workplace: Path, cli: Cli, names: dict[str, object]) -> None:
    """Each line is a captrain command that ends well, perhaps with some samples rejected."""
    for line in content.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            assert words[0] == "captrain", line
            result = cli(*[Path(word) if " " in word else word for word in words[1:]])
            assert result.code in (0, 3), f"{line}\n{result.err}"


def run_python(content: str, workplace: Path, cli: Cli, names: dict[str, object]) -> None:
    """Blocks of a page share their names, as in a notebook."""
    exec(compile(content, "docs", "exec"), names)


def save_recipe(content: str, workplace: Path, cli: Cli, names: dict[str, object]) -> None:
    """A YAML block is a file, named in its first line, and a valid recipe."""
    path = workplace / content.splitlines()[0].removeprefix("# ")
    path.write_text(content)
    resolve(load_recipe(path))


RUNNERS = {"bash": run_commands, "python": run_python, "yaml": save_recipe}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_is_run_or_has_a_reason(page: Path) -> None:
    for block in blocks_of(page):
        excused = any(block.content.startswith(start) for start in NOT_RUN)
        plain = block.language == "text" or block.language.startswith("{")
        assert block.runs or excused or plain, f"{page.name}: not run:\n{block.content}"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_recipes_are_valid(recipe: Path) -> None:
    """A recipe resolves, begins with a comment that shows its command, and the command names the file itself."""
    resolve(load_recipe(recipe))
    comment = "".join(line for line in recipe.read_text().splitlines() if line.startswith("#"))
    assert "captrain train" in comment
    assert f"recipes/{recipe.name}" in comment
    assert yaml.safe_load(recipe.read_text())


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tree_in_contributing_names_what_there_is() -> None:
    """Every package stands in it, and nothing that is gone."""
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("src/captrain/\n")[1].split("```")[0]
    inside = set(re.findall(r"^  ([\w.]+)/? ", tree, re.MULTILINE))
    outside = set(re.findall(r"^(\w+)/ ", tree, re.MULTILINE))
    packages = {path.parent.name for path in (ROOT / "src" / "captrain").glob("*/__init__.py")}
    missing = {name for name in inside if not (ROOT / "src" / "captrain" / name).exists()}
    assert not missing | {name for name in outside if not (ROOT / name).is_dir()}
    assert packages <= inside
