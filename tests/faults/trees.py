"""What lies in a folder, whether each file of it is whole, and whether two such folders are alike."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow.parquet as parquet
import safetensors
import yaml
from PIL import Image

Tree = Mapping[str, bytes]
"""Content by path below the folder; of a folder b"/", of a link its target after b"->"."""

UNFINISHED = re.compile(
    r"(^|/)(\.captrain-[^/]*|[^/]*\.partial|[^/]*\.tmp|\.writing|model\.new|model\.old|\.base\.new|[^/]*\.old|[^/]*\.lock)(/|$)"
)
"""Names under which nobody looks for a result."""
FILLER = "filler"
UNWATCHED = ("tmp", "cache", FILLER)
"""What of the watched folder is no result: what fills a disk, the system's temporary folder, what can be computed again."""
RUN_BY_RUN = ("tensorboard",)
"""Folders that differ from run to run: event files have their second and process in their names."""


TIMES = ("seconds", "date")
"""What lines of logs, and of the list of captions that captrain wrote, say of the time."""


def tree_of(folder: Path) -> dict[str, bytes]:
    """All of a folder, but for what is `UNWATCHED` or differs `RUN_BY_RUN`."""
    tree = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        parts = name.split("/")
        if parts[0] in UNWATCHED or any(part in RUN_BY_RUN for part in parts):
            continue
        if path.is_symlink():
            tree[name] = b"->" + str(path.readlink()).encode()
        else:
            tree[name] = path.read_bytes() if path.is_file() else b"/"
    return tree


def results(tree: Tree) -> dict[str, bytes]:
    """Without what is still being written, and folders."""
    return {name: content for name, content in tree.items() if not UNFINISHED.search(name) and content != b"/"}


def differences(found: Tree, expected: Tree) -> list[str]:
    """Names of what is not as it should be; seconds and dates in logs and reports may differ."""
    odd = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    more = found.keys() - expected.keys()
    odd += [f"{name} is left over" for name in sorted(more) if name.rpartition("/")[0] not in more]
    for name in sorted(found.keys() & expected.keys()):
        if found[name] != expected[name] and calm(name, found[name]) != calm(name, expected[name]):
            odd.append(f"{name} differs ({len(found[name])} bytes, expected {len(expected[name])})")
    return odd


def calm(name: str, content: bytes) -> object:
    """A file's content without what legitimately differs from run to run: the seconds that steps took."""
    if name.endswith(".jsonl"):
        return [_without_seconds(line) for line in content.splitlines()]
    if name.endswith("report.html"):
        return re.sub(rb"(<dt>time</dt><dd>)[^<]*", rb"\1", content)
    return content


def _without_seconds(line: bytes) -> object:
    try:
        value = json.loads(line)
    except ValueError:
        return line
    return {key: item for key, item in value.items() if key not in TIMES} if isinstance(value, dict) else value


def broken(tree: Tree) -> list[str]:
    """Files with a final name that are not whole; of a log that grows, the last line may be half a one."""
    found = []
    for name, content in results(tree).items():
        try:
            _check(name, content)
        except Exception as error:
            found.append(f"{name} is not whole ({type(error).__name__}: {str(error)[:80]})")
    return found


def _check(name: str, content: bytes) -> None:
    """Raise whatever the file's reader raises."""
    if (check := CHECKS.get(name.rpartition(".")[2])) is not None:
        check(content)


def _check_lines(content: bytes) -> None:
    for line in content.splitlines()[: None if content.endswith(b"\n") else -1]:
        json.loads(line)


def _check_yaml(content: bytes) -> None:
    assert yaml.load(content, yaml.CSafeLoader), "is empty"


def _check_tar(content: bytes) -> None:
    assert content.endswith(bytes(1024)), "has no end"
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.getmembers()


def _check_zip(content: bytes) -> None:
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None


def _check_gzip(content: bytes) -> None:
    gzip.decompress(content)


def _check_picture(content: bytes) -> None:
    Image.open(io.BytesIO(content)).load()


def _check_page(content: bytes) -> None:
    assert content.rstrip().endswith(b"</html>"), "has no end"


def _check_text(content: bytes) -> None:
    assert content.endswith(b"\n"), "has no last line"


CHECKS: dict[str, Callable[[bytes], object]] = {
    "jsonl": _check_lines, "json": json.loads, "yaml": _check_yaml, "safetensors": safetensors.deserialize,
    "parquet": lambda content: parquet.read_table(io.BytesIO(content)), "tar": _check_tar, "zip": _check_zip,
    "png": _check_picture, "jpg": _check_picture, "html": _check_page, "txt": _check_text, "caption": _check_text,
    "csv": _check_text, "gz": _check_gzip,
}  # fmt: skip


def lost(before: Tree, after: Tree, reference: Tree) -> list[str]:
    """What was there before, and is now neither as it was, nor as it shall be, nor anywhere else in the folder."""
    if not differences(results(after), results(reference)):
        return []
    contents = set(after.values())
    gone = []
    for name, content in results(before).items():
        now = after.get(name)
        kept = content in contents or (now is not None and now.startswith(content))
        done = now is not None and name in reference and calm(name, now) == calm(name, reference[name])
        if not (kept or done):
            gone.append(f"{name} is lost" if now is None else f"{name} is neither the old nor the new")
    return gone
