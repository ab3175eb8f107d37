"""Tables of JSON lines: {"file_name": "images/dog.jpg", "captions": ["a dog runs", "a dog on grass"]}.

A folder with `metadata.jsonl` (and an optional column `split`), with one file a split (`train.jsonl`, `dev.jsonl`, or
`train/metadata.jsonl`), or with exactly one other table; or the path of a table. File names are relative to the table's
folder, or to `images/` in it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from captrain.data.places import Root, existing, is_hidden
from captrain.data.readers import SPLIT_NAMES
from captrain.data.readers.options import BY_LOOKING, ReadOptions
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


class Table:
    """A file of lines, the folder that its file names are relative to, and the prefix that its place gives to ids."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.root = Root(path.parent)
        within = path.parent.relative_to(folder).as_posix()
        self.prefix = "" if within == "." else f"{within}/"
        self.name = self.prefix + path.name


class TableSamples(LazySamples):
    """Samples by the byte offsets of their lines. A sample's lines are parsed when it is asked for."""

    def __init__(
        self, table: Table, offsets: np.ndarray, numbers: np.ndarray, starts: np.ndarray, keys: np.ndarray
    ) -> None:
        """Sample i has the lines starts[i] to starts[i + 1]; line j is at byte offsets[j] and is number numbers[j]."""
        self.table = table
        self.offsets, self.numbers, self.starts, self._keys = offsets, numbers, starts, keys

    def __len__(self) -> int:
        return len(self._keys)

    def keys(self) -> np.ndarray:
        return self._keys

    def sample_at(self, index: int) -> Sample:
        first, end = int(self.starts[index]), int(self.starts[index + 1])
        rows = self._rows(first, end)
        number = self.numbers[first]
        name = self.table.root.find(rows[0].image, f"{self.table.path}:{number}")
        if name is None:
            raise DataError(f"{self.table.path}:{number}: '{rows[0].image}' has gone since the table was read")
        captions = tuple(text for row in rows for text in row.captions)
        return Sample(self.table.prefix + name, self.table.root.folder / name, captions, f"{self.table.name}:{number}")

    def _rows(self, first: int, end: int) -> list[Row]:
        rows = []
        # Opened anew each time: an open file must not be shared by processes, and it costs little beside a picture.
        with _opened(self.table.path) as file:
            for line in range(first, end):
                file.seek(int(self.offsets[line]))
                rows.append(parse_row(file.readline(LARGEST_LINE), f"{self.table.path}:{self.numbers[line]}"))
        return rows


def recognises(source: str) -> bool:
    """Whether this is a .jsonl file, or a folder with tables that can be told apart."""
    path = Path(source)
    return bool(tables(path)) if path.is_dir() else path.is_file() and path.suffix.lower() == ".jsonl"


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All samples of a table or of a folder with tables, in the order of their first lines.

    Lines about the same image become one sample. Rejected are images that are missing or have no caption. Raises
    `DataError` for a line that is not a JSON object in UTF-8, has no file name or one that leaves the folder, and if
    nothing is left.
    """
    path = existing(Path(source))
    folder = path.parent if path.is_file() else path
    files = {"": path} if path.is_file() else tables(path)
    if not files:
        raise DataError(f"{path}/: no table; expected metadata.jsonl, train.jsonl or one other .jsonl file")
    splits: dict[str, Sequence[Sample]] = {}
    for named, file in files.items():
        splits.update(_read_table(Table(file, folder), named, rejects, captioned))
    if not splits:
        found = rejects.summary() if rejects else "no lines"
        raise DataError(f'{path}: nothing to use ({found}); expected lines like {{"file_name": ..., "text": ...}}')
    return splits


def tables(folder: Path) -> dict[str, Path]:
    """The tables of a folder by split, "" where a name says none; empty if there are none that can be told apart."""
    files = sorted(entry for entry in folder.glob("*.jsonl") if entry.is_file() and not is_hidden(entry.name))
    named: dict[str, Path] = {}
    for file in (*files, *sorted(folder.glob("*/metadata.jsonl"))):
        word = file.stem if file.parent == folder else file.parent.name
        split = "" if file == folder / "metadata.jsonl" else SPLIT_NAMES.get(word.lower())
        if split is None:
            continue
        if other := named.get(split) or named.get("") or (named and not split and next(iter(named.values()))):
            both = " and ".join(path.relative_to(folder).as_posix() for path in (other, file))
            raise DataError(f"{folder}/: {both} are tables of the same images; give the path of the one to use")
        named[split] = file
    if not named and len(files) == 1 and _has_images(files[0]):
        return {"": files[0]}
    return named


def _has_images(table: Path) -> bool:
    """Whether a .jsonl file is a table of images: there may be others, of scores say, in a folder of pictures."""
    with _opened(table) as file:
        line = file.readline(LARGEST_LINE)
    return any(f'"{column}"'.encode() in line for column in IMAGE_COLUMNS)


def _opened(table: Path) -> BinaryIO:
    try:
        return table.open("rb")
    except OSError as error:
        raise DataError(f"{table}: can't be opened ({error.strerror})") from None


class _Index:
    """Where the lines of a table lie, and to which image and split each belongs: 25 bytes a line."""

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

    def samples(self, table: Table) -> dict[str, Sequence[Sample]]:
        """Lines gathered into samples, split by split."""
        splits = np.array(self.splits)
        return {name: self._gather(table, np.flatnonzero(splits == place)) for place, name in enumerate(self.names)}

    def _gather(self, table: Table, lines: np.ndarray) -> TableSamples:
        offsets, numbers, keys = (np.array(values)[lines] for values in (self.offsets, self.numbers, self.keys))
        _, first, image = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first[image], kind="stable")  # lines of an image together, images by their first lines
        starts = np.flatnonzero(np.diff(first[image][order], prepend=-1))
        return TableSamples(table, offsets[order], numbers[order], np.append(starts, len(order)), keys[order][starts])


def _read_table(table: Table, named: str, rejects: Rejects, captioned: bool) -> dict[str, Sequence[Sample]]:
    """Every line is parsed once, here: what is wrong with it is to be known before hours of training, not after."""
    index = _Index()
    bare: dict[str, str] = {}  # images with a line without caption → that line; another line may have one
    missing: set[str] = set()
    for number, offset, line in _lines(table.path):
        where = f"{table.path}:{number}"
        row = parse_row(line, where)
        name = table.root.find(row.image, where)
        if name is None:
            if row.image not in missing:
                missing.add(row.image)
                rejects.add(table.prefix + row.image, where, "names an image that is not there")
        elif captioned and not row.captions:
            bare.setdefault(table.prefix + name, where)
        else:
            index.add(offset, number, table.prefix + name, row.split or named or "all")
    _reject_bare(bare, index, rejects)
    if "all" in index.names and len(index.names) > 1:
        raise DataError(f"{table.path}: some lines name a split and some don't; expected all or none")
    return index.samples(table)


def _lines(table: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number, byte offset and bytes of each line that is not blank."""
    offset = number = 0
    with _opened(table) as file:
        while line := file.readline(LARGEST_LINE):
            number += 1
            if len(line) == LARGEST_LINE:
                raise DataError(f"{table}:{number}: over {LARGEST_LINE} bytes long; expected one JSON object a line")
            if line.strip() not in (b"", _BOM):
                yield number, offset, line
            offset += len(line)


def _reject_bare(bare: dict[str, str], index: _Index, rejects: Rejects) -> None:
    captioned = set(index.keys) if bare else set()
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
    columns = ", ".join(list(values)[:8]) or "none"
    raise DataError(f"{where}: no file name (columns: {columns}); expected an image's path in 'file_name'.{hint}")


def _captions(values: dict[str, Any], where: str) -> tuple[str, ...]:
    """The captions of the first text column that holds any."""
    for column in TEXT_COLUMNS:
        found = values.get(column)
        texts = found if isinstance(found, list) else [] if found is None else [found]
        for text in texts:
            if not isinstance(text, str):
                kind = type(text).__name__
                raise DataError(f"{where}: found a {kind} in '{column}'; expected a string or a list of strings")
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
        raise DataError(f"{where}: unknown split '{str(split)[:80]}'; expected train, validation or test.{hint}")
    return SPLIT_NAMES[split.lower()]
