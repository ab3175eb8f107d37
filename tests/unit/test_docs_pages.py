"""Pages that say what the code says: the table of formats, the zoo, and the messages of the troubleshooting page."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from captrain.cli.app import make_app
from captrain.data.readers import READERS, reader
from captrain.data.readers.detection import detect
from captrain.data.writers import WRITERS
from captrain.models.zoo import CHECKPOINTS
from captrain.records import Rejects

ROOT = Path(__file__).parents[2]
FORMATS = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
ZOO = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
TROUBLES = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTION_OR_EXAMPLE = re.compile(r"^### (\S+)$|<!-- example: (\S+) -->\n```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
PICTURES = ("dog.jpg", "cat.jpg", "beach/cat.png", "pictures/dog.jpg")
QUOTED = re.compile(r"^### .*`.*$", re.MULTILINE)
VARIES = "…"
WRITTEN_AS = {"jsonl": "metadata-jsonl"}  # where a format has different names in --format and in --to


def rows_of(page: str) -> list[list[str]]:
    """The cells of the page's tables, without headers."""
    lines = re.findall(r"^\|(.*)\|$", page, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines if not line.startswith((" ---", " `--"))]


def test_the_table_of_formats_is_complete() -> None:
    rows = {re.findall(r"`([\w-]+)`", row[0])[0]: row for row in rows_of(FORMATS) if row[0].startswith("[`")}
    assert list(rows) == list(READERS)
    written = {row[3].removeprefix("`--to ").strip("`") for row in rows.values() if "--to" in row[3]}
    assert written == set(WRITERS)
    assert all(WRITTEN_AS.get(name, name) in row[3] for name, row in rows.items() if "--to" in row[3])
    assert {found[1] for found in SECTION_OR_EXAMPLE.finditer(FORMATS) if found[1]} == set(READERS)


def examples() -> list[tuple[str, str, str]]:
    """Section, file name and content of each example of a format."""
    section, found = "", []
    for match in SECTION_OR_EXAMPLE.finditer(FORMATS):
        section = match[1] or section
        if match[2]:
            found.append((section, match[2], match[3]))
    return found


@pytest.mark.parametrize(("section", "name", "content"), examples(), ids=lambda value: value[:24].splitlines()[0])
def test_examples_are_read_as_their_format(section: str, name: str, content: str, tmp_path: Path) -> None:
    """An example in a folder with the pictures that it names is found to be of its format, with the caption it shows."""
    for picture in PICTURES:
        if Path(picture).stem in content and (picture.partition("/")[0] in content or "/" not in picture):
            (tmp_path / picture).parent.mkdir(exist_ok=True)
            Image.new("RGB", (9, 9)).save(tmp_path / picture)
    (tmp_path / name).write_text(content, encoding="utf-8")
    source = str(tmp_path / name) if section == "kohya-toml" else str(tmp_path)
    assert detect(source) == section
    rejects = Rejects()
    samples = [sample for split in reader(section).read(source, rejects).values() for sample in split]
    assert not rejects.summary().strip() or rejects.summary().startswith("0"), rejects.summary()
    assert "a dog runs on the grass" in {caption for sample in samples for caption in sample.captions}


def test_the_zoo_is_that_of_the_code() -> None:
    rows = {row[0].split("`")[1]: row for row in rows_of(ZOO)}
    assert list(rows) == [checkpoint.name for checkpoint in CHECKPOINTS]
    for checkpoint in CHECKPOINTS:
        _, family, _, pixels, cider, bleu_4, licence, hub_id = rows[checkpoint.name]
        assert family.startswith(f"[{checkpoint.family}]")
        assert licence.removesuffix(" (1)") == checkpoint.licence
        assert hub_id.strip("`") == (checkpoint.hub_id or "")
        shown = [str(value or "") for value in (checkpoint.image_size, checkpoint.cider, checkpoint.bleu_4)]
        assert [pixels, cider, bleu_4] == shown


def texts_of_the_code() -> list[str]:
    """Every string of the package; what an f-string puts in is one sign for what varies."""
    texts = []
    for path in (ROOT / "src" / "captrain").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(_text(part) for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def _text(part: ast.expr) -> str:
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else VARIES


def test_quoted_messages_are_in_the_code() -> None:
    """Each quotation in a heading: its fixed parts stand in one string of the code, in their order."""
    headings = [quoted for heading in QUOTED.findall(TROUBLES) for quoted in re.findall(r"`([^`]*)`", heading)]
    assert len(headings) >= 30
    texts = texts_of_the_code()
    missing = [heading for heading in headings if not any(_holds(text, heading) for text in texts)]
    assert not missing, f"docs/troubleshooting.md quotes messages that the code does not have: {missing}"


def _holds(text: str, heading: str) -> bool:
    place = 0
    for part in filter(None, (piece.strip(" :;,./") for piece in heading.split(VARIES))):
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True


def commands() -> list[str]:
    """Commands that pages show and do not run: in plain blocks, and in the tables for those who come from other tools."""
    found = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            found += re.findall(r"^captrain [a-z].*$", block.replace("\\\n", " "), re.MULTILINE)
        if page.parent.name == "coming-from":
            found += [
                code for code in re.findall(r"`(captrain [a-z]+ [^`]+)`", text) if code != "captrain config import"
            ]
    return list(dict.fromkeys(found))


def test_commands_that_are_shown_can_be_parsed() -> None:
    """Every flag of theirs exists, and takes the value that it is given."""
    app, shown = make_app(), commands()
    assert len(shown) > 20
    for command in shown:
        app.parse_args(shlex.split(command, comments=True)[1:], exit_on_error=False, print_error=False)
