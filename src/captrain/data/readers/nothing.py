"""What to say when nothing of a data set can be used: made of what was seen, with the next step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from captrain.data.places import Root, is_hidden
from captrain.data.readers.columns import Columns, listed
from captrain.disk.reading import POINTER, is_pointer_file
from captrain.errors import DataError
from captrain.limits import next_json_line
from captrain.records import Rejects, parse_json_line

UNPACKED_BY = {  # endings of archives → the command that unpacks them
    ".zip": "unzip {name} -d {folder}",
    ".tar.gz": "tar xzf {name}",
    ".tgz": "tar xzf {name}",
    ".tar.bz2": "tar xjf {name}",
    ".tar.xz": "tar xJf {name}",
    ".tar.zst": "tar --zstd -xf {name}",
    ".tar": "tar xf {name}",
    ".7z": "7z x {name}",
    ".rar": "unrar x {name}",
}
DATA_SETS = (".parquet", ".arrow")  # that are read by themselves
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", *DATA_SETS)
BOM = b"\xef\xbb\xbf"
MOST_LOOKED_AT = 10_000  # entries of a folder
MOST_TABLES = 20  # folders below, and files in each, that are looked at


def nothing_to_use(
    source: object,
    rejects: Rejects,
    expected: str,
    roots: Sequence[Root] = (),
    columns: Sequence[str] = (),
    none: str = "no rows",
    own: tuple[str, ...] = (),
) -> DataError:
    """The error for a data set of which nothing is left.

    Args:
        roots: the folders that images were looked for in: the first path tried is named, and what lies there.
        columns: those of the table, if it is one.
        none: what to say where nothing was rejected either.
        own: endings of the data set's own files.
    """
    found = rejects.summary() if rejects else none
    tried = next((root.tried for root in roots if root.tried), "")
    parts = [f"{source}: nothing to use ({found})"]
    if tried:
        parts.append(f"looked for {tried}, and for that name below {Path(roots[0].folder)}")
    elif columns:
        parts.append(f"columns: {listed(columns)}")
    parts += lying_there(dict.fromkeys([*(root.folder for root in roots), *_folder(source)]), own)
    if tried and not all(root.given for root in roots):
        expected = f"{expected}; --image-root FOLDER says where the images are"
    return DataError("; ".join([*parts, expected]))


def lying_there(folders: Iterable[Path], own: tuple[str, ...] = ()) -> list[str]:
    """What lies right in folders and may be the data that is missed: archives, other data sets, pointers of Git LFS."""
    said = []
    for folder in folders:
        for name in _names(folder):
            ending = next((ending for ending in UNPACKED_BY if name.lower().endswith(ending)), "")
            if (ending or name.lower().endswith(TABLES)) and is_pointer_file(folder / name):
                said.append(f"{folder / name} {POINTER}")
            elif ending:
                said.append(f"{folder / name} lies there; unpack it first ({unpacking(name)})")
            elif name.lower().endswith(DATA_SETS) and not (own and name.lower().endswith(own)):
                said.append(f"{folder / name} lies there; is that the data set?")
    return said[:3]


def tables_there(folder: Path) -> list[str]:
    """The tables right in a folder, or in one of its folders, that are not read, and why.

    Those that name images by columns that are known are several of which no name says a split. Others are told with the
    columns that they have.
    """
    known: list[str] = []
    said: list[str] = []
    for name in _names(folder):
        columns = _columns_of(folder / name)
        if columns and all(Columns().look(dict.fromkeys(columns), names_only=True)):
            known.append(name)
        elif columns:
            said.append(
                f"{folder / name} lies there with the columns {listed(columns)}; "
                "--image-column and --caption-column say which ones count"
            )
    if len(known) > 1:
        names = f"{', '.join(known[:3])}{', ...' if len(known) > 3 else ''}"
        said.insert(0, f"{names} list pictures, and their names say no split (train, val, test); give the path of one")
    return said[:2] or _tables_below(folder)


def _tables_below(folder: Path) -> list[str]:
    """The first table of pictures that lies in one of a folder's folders."""
    folders = [folder / name for name in _names(folder) if (folder / name).is_dir()]
    for below in folders[:MOST_TABLES]:
        tables = [file for file in _names(below) if file.lower().endswith((*TABLES, ".txt", ".token"))]
        for table in tables[:MOST_TABLES]:
            if _lists_pictures(below / table):
                return [f"{below / table} lists pictures; give {below} to read it"]
    return []


def _lists_pictures(path: Path) -> bool:
    """Whether a file is one of the forms that list pictures."""
    from captrain.data.readers import READERS, recognises  # which import this
    from captrain.data.readers.several import OF_A_FOLDER

    return any(recognises(form, str(path)) for form in READERS if form not in OF_A_FOLDER)


def _columns_of(path: Path) -> Sequence[str]:
    """The columns of a table by its first line; none of what is no table."""
    from captrain.data.readers.csv_table import SUFFIXES, cells_in_any_encoding  # which imports this
    from captrain.data.readers.line_index import opened

    try:
        if path.suffix.lower() in SUFFIXES:
            cells = cells_in_any_encoding(path, Columns())
            return cells.header if cells is not None and len(cells.header) > 1 else ()
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            with opened(path) as file:
                return tuple(parse_json_line(next_json_line(file).removeprefix(BOM), str(path)))
    except DataError:
        pass
    return ()


def unpacking(name: str) -> str:
    """The command that unpacks an archive, "" for what is none.

    >>> unpacking("images.zip"), unpacking("shard.tgz"), unpacking("dog.jpg")
    ('unzip images.zip -d images', 'tar xzf shard.tgz', '')
    """
    ending = next((ending for ending in UNPACKED_BY if name.lower().endswith(ending)), "")
    return UNPACKED_BY[ending].format(name=name, folder=name[: -len(ending)]) if ending else ""


def _folder(source: object) -> list[Path]:
    path = Path(str(source))
    return [path] if path.is_dir() else [path.parent] if path.is_file() else []


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as listing:
            names = [entry.name for entry, _ in zip(listing, range(MOST_LOOKED_AT), strict=False)]
    except OSError:
        return []
    return sorted(name for name in names if not is_hidden(name))
