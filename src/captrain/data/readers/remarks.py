"""Messages about a data set as a whole: why nothing of it can be used, and which pictures no table lists.

An error says what was found there, archives and other data sets too, and the next step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from captrain.data.readers.columns import listed_columns
from captrain.data.safe_paths import IMAGE_FOLDERS, IMAGE_SUFFIXES, Root, is_hidden
from captrain.data.samples import key_of, keys_of
from captrain.disk.reading import POINTER, is_pointer_file
from captrain.errors import DataError
from captrain.records import Rejects, Sample

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
MOST_LOOKED_AT = 10_000  # entries of a folder
MOST = 200_000  # entries of folders that are looked at, and pictures of a table that is compared with its folder
SHOWN = 3


def nothing_to_use(
    source: object,
    rejects: Rejects,
    expected: str,
    roots: Sequence[Root] = (),
    columns: Sequence[str] = (),
    none: str = "no rows",
    own: tuple[str, ...] = (),
) -> DataError:
    """The error for a data set with nothing left to use.

    Args:
        roots: the folders that images were looked for in: the first path tried is named, and what is there.
        columns: those of the table, if it is one.
        none: what to say if nothing was rejected either.
        own: endings of the data set's own files.
    """
    found = rejects.summary() if rejects else none
    tried = next((root.tried for root in roots if root.tried), "")
    parts = [f"{source}: nothing to use ({found})"]
    if tried:
        parts.append(f"looked for {tried}, and for that name below {Path(roots[0].folder)}")
    elif columns:
        parts.append(f"columns: {listed_columns(columns)}")
    parts += lying_there(dict.fromkeys([*(root.folder for root in roots), *_folder(source)]), own)
    if tried and not all(root.given for root in roots):
        expected = f"{expected}; --image-root FOLDER says where the images are"
    return DataError("; ".join([*parts, expected]))


def lying_there(folders: Iterable[Path], own: tuple[str, ...] = ()) -> list[str]:
    """What is right in folders and may be the missing data: archives, other data sets, pointers of Git LFS."""
    said = []
    for folder in folders:
        for name in names_in_folder(folder):
            ending = next((ending for ending in UNPACKED_BY if name.lower().endswith(ending)), "")
            if (ending or name.lower().endswith(TABLES)) and is_pointer_file(folder / name):
                said.append(f"{folder / name} {POINTER}")
            elif ending:
                said.append(f"{folder / name} is there; unpack it first ({unpacking(name)})")
            elif name.lower().endswith(DATA_SETS) and not (own and name.lower().endswith(own)):
                said.append(f"{folder / name} is there; is that the data set?")
    return said[:3]


def unpacking(name: str) -> str:
    """The command that unpacks an archive, "" for other files.

    >>> unpacking("images.zip"), unpacking("shard.tgz"), unpacking("dog.jpg")
    ('unzip images.zip -d images', 'tar xzf shard.tgz', '')
    """
    ending = next((ending for ending in UNPACKED_BY if name.lower().endswith(ending)), "")
    return UNPACKED_BY[ending].format(name=name, folder=name[: -len(ending)]) if ending else ""


def _folder(source: object) -> list[Path]:
    path = Path(str(source))
    return [path] if path.is_dir() else [path.parent] if path.is_file() else []


def names_in_folder(folder: Path) -> list[str]:
    """The names right in a folder, sorted, without hidden ones; none if it can't be listed."""
    try:
        with os.scandir(folder) as listing:
            names = [entry.name for entry, _ in zip(listing, range(MOST_LOOKED_AT), strict=False)]
    except OSError:
        return []
    return sorted(name for name in names if not is_hidden(name))


def note_unlisted(root: Root, splits: Iterable[Sequence[Sample]], rejects: Rejects) -> None:
    """Note how many pictures below a folder are neither samples nor rejected, and name a few.

    Nothing is noted where no picture below the folder is listed: the ids are then not the paths below it.
    """
    splits = list(splits)
    if sum(map(len, splits)) + len(rejects.lines) > MOST:
        return
    rejected = {key_of(line["id"]) for line in rejects.lines}
    listed = set(rejected)
    for samples in splits:
        listed.update(keys_of(samples).astype(np.uint64).tolist())
    names = list(_pictures(root))
    unlisted = [name for name in names if key_of(name) not in listed and key_of(_within(name)) not in rejected]
    if unlisted and len(unlisted) < len(names):
        few = ", ".join(unlisted[:SHOWN]) + (", ..." if len(unlisted) > SHOWN else "")
        count = f"{len(unlisted):,} picture{'s' * (len(unlisted) > 1)}"
        rejects.remark("unlisted", str(root.folder), str(root.folder), f"holds {count} that no table lists: {few}")


def _within(name: str) -> str:
    """A picture's name without the known folder that it may be in, as a table may have it."""
    top, _, rest = name.partition("/")
    return rest if top in IMAGE_FOLDERS else name


def _pictures(root: Root) -> Iterator[str]:
    """Paths of pictures below a folder, sorted folder by folder, up to `MOST` entries."""
    folders, left, looked = root.folders(), [""], 0
    while left and looked < MOST:
        prefix = left.pop()
        try:
            entries = folders.entries(prefix)
        except OSError:
            continue
        looked += len(entries)
        left += [f"{prefix}{entry.name}/" for entry in reversed(entries) if entry.is_folder and not entry.fault]
        for entry in entries:
            if not entry.fault and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                yield prefix + entry.name
