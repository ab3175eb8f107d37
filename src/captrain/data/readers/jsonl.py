"""Tables of JSON lines: {"file_name": "images/dog.jpg", "captions": ["a dog runs", "a dog on grass"]}.

A folder with `metadata.jsonl` (an optional column `split`), with one file a split (`train.jsonl`, `dev.jsonl`, `test.jsonl`), or
with exactly one other table; or the path of a table. File names are relative to the table's folder, or to `images/` in it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captrain.data.places import Root
from captrain.data.readers import SPLIT_NAMES
from captrain.data.samples import LazySamples, key_of
from captrain.errors import DataError, nearest
from captrain.records import Rejects, Sample, parse_json_line

IMAGE_COLUMNS = ("file_name", "image", "filename")
TEXT_COLUMNS = ("captions", "text", "caption")
LARGEST_LINE = 16 << 20  # bytes; a guard against a file without line ends, which would be read into memory whole

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Row:
    """What one line says."""

    image: str
    captions: tuple[str, ...]
    split: str | None


class TableSamples(LazySamples):
    """Samples by the byte offsets of their lines. A sample's lines are parsed when it is asked for."""

    def __init__(self, table: Path, offsets: np.ndarray, numbers: np.ndarray, starts: np.ndarray, keys: np.ndarray):
        """Sample i has the lines starts[i] to starts[i + 1]; `offsets` (bytes) and `numbers` (from 1) are those of the lines."""
        self.table = table
        self.root = Root(table.parent)
        self.offsets, self.numbers, self.starts, self._keys = offsets, numbers, starts, keys

    def __len__(self) -> int:
        return len(self._keys)

    def keys(self) -> np.ndarray:
        return self._keys

    def sample_at(self, index: int) -> Sample:
        lines = range(int(self.starts[index]), int(self.starts[index + 1]))
        source = f"{self.table.name}:{self.numbers[lines[0]]}"
        # Opened anew each time: an open file must not be shared by processes, and it costs little beside a picture.
        with self.table.open("rb") as file:
            rows = [self._row(file.seek(int(self.offsets[line])), file.readline(), line) for line in lines]
        name = self.root.find(rows[0].image, source)
        if name is None:
            raise DataError(
                f"{self.table}:{self.numbers[lines[0]]}: '{rows[0].image}' has gone since the table was read"
            )
        return Sample(name, self.table.parent / name, tuple(text for row in rows for text in row.captions), source)

    def _row(self, _: int, line: bytes, number: int) -> Row:
        return parse_row(line, f"{self.table}:{self.numbers[number]}")


def read(path: Path, rejects: Rejects, *, captioned: bool = True) -> dict[str, Sequence[Sample]]:
    """All samples of a table or of a folder with tables, in the order of their first lines.

    Lines about the same image become one sample. Rejected are images that are missing or have no caption.
    Raises `DataError` for a line that is not a JSON object in UTF-8, has no file name or one that leaves the folder, and if nothing is left.
    """
    files = {"": path} if path.is_file() else tables(path)
    if not files:
        raise DataError(f"{path}/: no table; expected metadata.jsonl, train.jsonl or one other .jsonl file")
    splits: dict[str, Sequence[Sample]] = {}
    rejected = len(rejects)
    for named, table in files.items():
        splits.update(_read_table(table, named, rejects, captioned))
    if not splits:
        summary = rejects.summary() if len(rejects) > rejected else "no lines"
        raise DataError(f'{path}: nothing to use ({summary}); expected lines like {{"file_name": ..., "text": ...}}')
    return splits


def tables(folder: Path) -> dict[str, Path]:
    """The tables of a folder by split ("" where the file's name names none); empty if there are none, or none that can be told apart."""
    files = sorted(entry for entry in folder.glob("*.jsonl") if entry.is_file() and not entry.name.startswith("."))
    metadata = [file for file in files if file.stem == "metadata"]
    named: dict[str, Path] = {}
    for file in files:
        split = SPLIT_NAMES.get(file.stem.lower())
        if split in named or (split and metadata):
            other = metadata[0] if metadata else named[split]
            raise DataError(f"{folder}/: both {other.name} and {file.name} are tables of it; name the one to use")
        if split:
            named[split] = file
    if metadata or named:
        return {"": metadata[0]} if metadata else named
    return {"": files[0]} if len(files) == 1 and _has_images(files[0]) else {}


def _has_images(table: Path) -> bool:
    """Whether a .jsonl file is a table of images: there may be others, of scores say, in a folder of pictures."""
    with table.open("rb") as file:
        line = file.readline(LARGEST_LINE)
    return any(f'"{column}"'.encode() in line for column in IMAGE_COLUMNS)


class _Index:
    """Where the lines of a table lie, to which image and split each belongs, in 29 bytes a line."""

    def __init__(self) -> None:
        self.offsets, self.numbers, self.keys = array("Q"), array("Q"), array("Q")
        self.splits = array("b")
        self.names: list[str] = []  # of the splits, in order of appearance

    def add(self, offset: int, number: int, name: str, split: str) -> None:
        if split not in self.names:
            self.names.append(split)
        self.offsets.append(offset)
        self.numbers.append(number)
        self.keys.append(key_of(name))
        self.splits.append(self.names.index(split))

    def samples(self, table: Path) -> dict[str, Sequence[Sample]]:
        """Lines gathered into samples, split by split."""
        splits = np.array(self.splits)
        return {name: self._gather(table, np.flatnonzero(splits == place)) for place, name in enumerate(self.names)}

    def _gather(self, table: Path, lines: np.ndarray) -> TableSamples:
        offsets, numbers, keys = (np.array(values)[lines] for values in (self.offsets, self.numbers, self.keys))
        _, first, image = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first[image], kind="stable")  # lines of an image together, images by their first lines
        starts = np.flatnonzero(np.diff(first[image][order], prepend=-1))
        return TableSamples(table, offsets[order], numbers[order], np.append(starts, len(order)), keys[order][starts])


def _read_table(table: Path, named: str, rejects: Rejects, captioned: bool) -> dict[str, Sequence[Sample]]:
    index = _Index()
    root = Root(table.parent)
    bare: dict[str, str] = {}  # images with a line without caption → that line; another line may have one
    missing: set[str] = set()
    for number, offset, line in _lines(table):
        where = f"{table}:{number}"
        row = parse_row(line, where)
        name = root.find(row.image, where)
        if name is None:
            if row.image not in missing:
                missing.add(row.image)
                rejects.add(row.image, where, "names an image that is not there")
        elif captioned and not row.captions:
            bare.setdefault(name, where)
        else:
            index.add(offset, number, name, row.split or named or "all")
    _reject_bare(bare, index, rejects)
    if "all" in index.names and len(index.names) > 1:
        raise DataError(f"{table}: some lines name a split and some don't; expected all or none")
    return index.samples(table)


def _lines(table: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number, byte offset and bytes of each line that is not blank."""
    offset = 0
    with table.open("rb") as file:
        number = 0
        while line := file.readline(LARGEST_LINE):
            number += 1
            if len(line) == LARGEST_LINE:
                raise DataError(f"{table}:{number}: over {LARGEST_LINE} bytes long; expected one JSON object a line")
            if line.strip() not in (b"", _BOM):
                yield number, offset, line
            offset += len(line)


def _reject_bare(bare: dict[str, str], index: _Index, rejects: Rejects) -> None:
    if not bare:
        return
    captioned = set(index.keys)
    for name, where in bare.items():
        if key_of(name) not in captioned:
            rejects.add(name, where, "has no caption")


def parse_row(line: bytes, where: str) -> Row:
    """One line of a table.

    >>> parse_row(b'{"file_name": "a.jpg", "text": "a dog ", "split": "dev"}', "train.jsonl:1")
    Row(image='a.jpg', captions=('a dog',), split='validation')
    """
    values = parse_json_line(line.removeprefix(_BOM), where)
    return Row(_image(values, where), _captions(values, where), _split(values, where))


def _image(values: dict[str, Any], where: str) -> str:
    for column in IMAGE_COLUMNS:
        name = values.get(column)
        if isinstance(name, str) and name.strip():
            return _whole(name)
    hint = next((hint for key in values if (hint := nearest(key, IMAGE_COLUMNS))), "")
    columns = ", ".join(str(key) for key in list(values)[:8]) or "none"
    raise DataError(f"{where}: no file name (columns: {columns}); expected the path of an image in 'file_name'.{hint}")


def _captions(values: dict[str, Any], where: str) -> tuple[str, ...]:
    """The captions of the first text column that holds any."""
    for column in TEXT_COLUMNS:
        found = values.get(column)
        texts = found if isinstance(found, list) else [] if found is None else [found]
        for text in texts:
            if not isinstance(text, str):
                raise DataError(
                    f"{where}: found a {type(text).__name__} in '{column}'; expected a string or a list of strings"
                )
        captions = tuple(_whole(text).strip() for text in texts if text.strip())
        if captions:
            return captions
    return ()


def _whole(text: str) -> str:
    """Half a surrogate pair can be written in JSON but not in UTF-8, so it would break whatever is written later."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _split(values: dict[str, Any], where: str) -> str | None:
    split = values.get("split")
    if split is None or split == "":
        return None
    if not isinstance(split, str) or split.lower() not in SPLIT_NAMES:
        hint = nearest(str(split), SPLIT_NAMES)
        raise DataError(f"{where}: unknown split '{split}'; expected train, validation or test.{hint}")
    return SPLIT_NAMES[split.lower()]
