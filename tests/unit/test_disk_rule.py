"""Nothing writes, renames or removes a file but `captrain.disk`, and the few places here, each with its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import captrain

SOURCES = Path(captrain.__file__).parent
BY_NAME = {
    "replace", "rename", "renames", "truncate", "link", "symlink", "unlink", "remove", "rmtree", "copy", "copy2",
    "copyfile", "copytree", "move", "mkstemp", "mknod", "mkfifo",
}  # fmt: skip
"""Functions of `os` and `shutil`."""
METHODS = {
    "write_text", "write_bytes", "unlink", "touch", "symlink_to", "hardlink_to", "save_pretrained", "savefig",
    "extractall", "to_csv", "to_parquet", "save_to_disk", "imwrite", "tofile", "get_file",
}  # fmt: skip
FUNCTIONS = {"save_file", "NamedTemporaryFile", "mkstemp", "FileHandler", "ParquetWriter", "write_table"}
LIBRARIES = {("torch", "save"), ("np", "save"), ("np", "savez"), ("tempfile", "mkstemp"), ("os", "open")}
FRESH = "into a folder that is new, and renamed when it is full"
FILE = "into a file that is open already"
PRIVATE = "into a private temporary folder, of a random name"

ALLOWED = {
    ("api/data.py", "write_table"): FILE,
    ("cli/pages.py", "write_text"): "run by developers: writes the help and the schema into the checkout",
    ("cli/__init__.py", "os.open"): "the system's null device",
    ("data/feature_store/layout.py", "get_file"): "to the random name that `new_file` made",
    (
        "data/get/fetch.py",
        "unlink",
    ): "what was fetched and is not what it should be, or is unpacked; a link is removed itself",
    ("data/get/pictures.py", "path.replace"): "gives a fetched picture its ending; a rename follows no link",
    ("data/get/transfer.py", "path.replace"): "gives a fetched file its name; a rename follows no link",
    ("data/writers/coco.py", "unlink"): FRESH,
    ("data/writers/parquet.py", "ParquetWriter"): FILE,
    ("data/writers/parquet.py", "write_table"): FILE,
    ("data/writers/picture_output.py", "os.link"): FRESH,
    ("demo/run.py", "save_pretrained"): FRESH,
    ("features/manage.py", "np.save"): FILE,
    ("features/manage.py", "write_table"): FILE,
    ("metrics/java.py", "write_text"): PRIVATE,
    ("models/checkpoint/archive.py", "ZipFile"): FILE,
    ("models/checkpoint/archive.py", "open"): PRIVATE + "; or a member of a zip",
    ("models/checkpoint/folder.py", "save_pretrained"): FRESH,
    ("models/checkpoint/export.py", "os.replace"): "gives a new folder its name; a rename follows no link",
    ("report/curves.py", "savefig"): "into memory",
    ("training/optimization/weight_average.py", "save_file"): FRESH,
    ("training/run_folder/checkpoints.py", "save_file"): FRESH,
    ("training/run_folder/checkpoints.py", "os.replace"): "gives a new folder its name; a rename follows no link",
    ("training/run_folder/folder.py", "os.replace"): "gives a new folder its name; a rename follows no link",
    ("training/loop/trainer_adapter.py", "torch.save"): FRESH,
    ("data/writers/webdataset.py", "TarFile"): FILE,
}


def writing_calls(tree: ast.AST) -> Iterator[str]:
    """What a module calls that may write, rename or remove a file."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        words = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        modes = [word for word in words if set(word) <= set("wraxbt+") and set(word) & set("wax+")]
        match node.func:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if (module, name) in LIBRARIES:
                yield f"{module}.{name}"
            case ast.Attribute(value=ast.Name(id="os" | "shutil" as module), attr=name) if name in BY_NAME:
                yield f"{module}.{name}"
            case ast.Attribute(attr="replace") if len(node.args) == 1 and not node.keywords:
                yield "path.replace"
            case ast.Attribute(attr="rename") if len(node.args) == 1 and not node.keywords:
                yield "path.rename"
            case ast.Attribute(attr=name) if name in METHODS | FUNCTIONS:
                yield name
            case ast.Name(id=name) if name in FUNCTIONS:
                yield name
            case ast.Name(id="open" as name) | ast.Attribute(attr="open" | "ZipFile" | "TarFile" as name) if modes:
                yield name


def test_nothing_writes_past_the_writer() -> None:
    found = {
        (path.relative_to(SOURCES).as_posix(), call)
        for path in sorted(SOURCES.rglob("*.py"))
        if path.parent.name != "disk" and path.name != "testing.py"  # tools for tests, into folders of their own
        for call in writing_calls(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert sorted(found - ALLOWED.keys()) == []
    assert sorted(ALLOWED.keys() - found) == []  # reasons that are no longer needed


def test_the_rule_sees_what_writes() -> None:
    source = """
open(p, "w"); p.open("ab"); p.write_text(t); os.replace(a, b); a.replace(b); shutil.rmtree(p); torch.save(x, p)
model.save_pretrained(p); zipfile.ZipFile(p, "w"); os.truncate(p, 3); p.touch(); np.save(p, x); os.open(p, flags)
text.replace("a", "b"); date.replace(year=1); open(p); p.open("rb"); write_text(p, t)
"""
    assert len(list(writing_calls(ast.parse(source)))) == 13
