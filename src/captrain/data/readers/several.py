"""Folders in which tables lie side by side, of one form or of several: which are read, and which are not.

Pictures that lie in the folder of a data set and that none of its tables lists: learned by nobody, so they are told.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from captrain.data.options import BY_LOOKING, ReadOptions
from captrain.data.places import IMAGE_FOLDERS, IMAGE_SUFFIXES, Root, is_hidden
from captrain.data.readers import READERS, reader
from captrain.data.readers.tables import Listed, choose, refuse_links, split_in_words
from captrain.data.samples import key_of, keys_of, merged
from captrain.errors import DataError
from captrain.records import Rejects, Sample

logger = logging.getLogger(__name__)

TOLD = frozenset({"marked", "unread", "unlisted"})  # remarks that are logged when the data is read
LISTS = frozenset(  # forms that list pictures by their names
    (
        *("jsonl", "json", "csv", "parquet", "coco", "karpathy", "flickr"),
        *("names", "grouped", "conversations", "headerless"),
    )
)
# Forms that have a whole folder to themselves. All others are files that list pictures.
OF_A_FOLDER = frozenset({"features", "webdataset", "datasets", "kohya", "kohya-toml", "sidecar"})
TABLE_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
MOST_TABLES = 200  # files of a suffix; more are something else, one an image say
SUFFIXES = frozenset({".json", ".jsonl"})  # of files that a form without `tables` may recognise
MOST_FILES = 20  # of them that are looked at; more are something else, one an image say
MOST_SHOWN = 3  # tables in an error


def read_and_note(
    source: str, form: str, rejects: Rejects, options: ReadOptions, captioned: bool, is_guess: bool
) -> dict[str, Sequence[Sample]]:
    """What the reader of a form finds, and, where the form `is_guess`, those of other tables in the folder.

    What is good to know besides is logged: tables that are not read, pictures that no table lists.
    """
    noted, path = len(rejects.remarks), Path(source)
    splits = read_tables(source, form, rejects, options, captioned) if is_guess and os.path.isdir(source) else None
    if splits is None:
        splits = dict(reader(form).read(source, rejects, options, captioned=captioned))
    folder = path if path.is_dir() else path.parent
    if form in LISTS and (folder == path or len(_files(folder, TABLE_SUFFIXES)) <= 1):  # else others may list the rest
        home = folder.parent if folder.name == "annotations" else folder
        note_unlisted(Root(options.image_root or home, follow_links=options.follow_links), splits.values(), rejects)
    if is_guess and path.is_dir() and form != "kohya-toml":
        _note_configurations(path, rejects)
    for line in rejects.remarks[noted:]:
        if line["problem"] in TOLD:
            logger.warning("%s %s", line["where"], line["reason"])
    return splits


def _note_configurations(folder: Path, rejects: Rejects) -> None:
    """Note configurations of sd-scripts that lie in a folder which is read by something else."""
    for file in _files(folder, (".toml",)):
        if reader("kohya-toml").recognises(str(file)):
            reason = (
                "is a configuration of sd-scripts and is not read here; give its path to read what it names as it says"
            )
            rejects.remark("unread", file.name, str(file), reason)


def read_tables(
    source: str, form: str, rejects: Rejects, options: ReadOptions, captioned: bool
) -> dict[str, Sequence[Sample]] | None:
    """The samples of all tables of a folder that `form` was found in; None if one reader alone is to read it.

    Tables that are not read, as their names don't say what of, are noted. Raises `DataError` as `choose` does.
    """
    folder = Path(source)
    if form in OF_A_FOLDER and (form != "sidecar" or not _files(folder, TABLE_SUFFIXES)):
        return None
    found = tables_of(folder, form, options)
    chosen = _chosen(folder, found, form)
    refuse_links(folder, chosen.values(), options.follow_links)
    read = [path.relative_to(folder).as_posix() for path in chosen.values()]
    for table in (table for listed in found.values() for table in listed):
        if table.captions and table.path not in chosen.values():
            beside = ", ".join(read) or "the captions of the pictures"
            reason = f"lists pictures and is not read beside {beside}; give its path to read it"
            rejects.remark("unread", table.path.name, str(table.path), reason)
    of_form = {name: [table for table in listed if table.path in chosen.values()] for name, listed in found.items()}
    forms = [name for name, listed in of_form.items() if listed]
    if forms in ([], [form]):
        return None
    splits: dict[str, Sequence[Sample]] = {}
    for name in forms:
        merged(splits, _read(name, source, of_form[name], rejects, options, captioned))
    return splits


def _chosen(folder: Path, found: dict[str, list[Listed]], form: str) -> dict[str, Path]:
    """Which of the tables that were found are read, by split."""
    tables = [table for listed in found.values() for table in listed]
    chosen, _ = choose(folder, tables)
    says_split = any(table.split or table.whole for table in tables if table.path in chosen.values())
    if chosen and (says_split or found.get(form)):
        return chosen
    return choose(folder, found.get(form, []))[0]  # no name says more than another, so the first form has it


def tables_of(folder: Path, form: str, options: ReadOptions = BY_LOOKING) -> dict[str, list[Listed]]:
    """By form, the tables that lie in a folder; of a form that many files seem to be of, only if it is `form`."""
    found: dict[str, list[Listed]] = {}
    for name in READERS:
        if name not in OF_A_FOLDER:
            module: Any = reader(name)
            if hasattr(module, "tables"):
                many = name != form and len(_files(folder, getattr(module, "SUFFIXES", ()))) > MOST_TABLES
                found[name] = [] if many else module.tables(folder, options)
    taken = {table.path for listed in found.values() for table in listed}
    others = [file for file in _files(folder, SUFFIXES) if file not in taken][:MOST_FILES]
    for name in READERS:
        if name not in OF_A_FOLDER and name not in found:
            known = [file for file in others if reader(name).recognises(str(file), options)]
            found[name] = [Listed(file, split_in_words(folder, file) or "") for file in known]
    return found


def columns_seen(folder: Path) -> dict[str, list[str]]:
    """The first few tables of a folder by name, whatever is in them, and their columns."""
    seen: dict[str, list[str]] = {}
    for name in ("jsonl", "json", "csv"):
        module: Any = reader(name)
        for file in _files(folder, module.SUFFIXES)[:MOST_SHOWN]:
            try:
                seen[file.name] = list(module.first_row(file))
            except DataError:
                continue
    return seen


def _files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    with os.scandir(folder) as listing:
        names = sorted(entry.name for entry in listing if os.path.splitext(entry.name)[1].lower() in suffixes)
    return [folder / name for name in names if not is_hidden(name)]


def _read(
    form: str, source: str, tables: list[Listed], rejects: Rejects, options: ReadOptions, captioned: bool
) -> dict[str, Sequence[Sample]]:
    """The splits of a form's tables in a folder: by its reader, if that knows what to do with several, else one by one."""
    module: Any = reader(form)
    if hasattr(module, "tables"):
        return dict(module.read(source, rejects, options, captioned=captioned))
    splits: dict[str, Sequence[Sample]] = {}
    for table in tables:
        for split, samples in module.read(str(table.path), rejects, options, captioned=captioned).items():
            merged(splits, {table.split if split == "all" and table.split else split: samples})
    return splits


MOST = 200_000  # entries of folders that are looked at, and pictures of a table that is compared with its folder
SHOWN = 3


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
    """A picture's name as a table may have it that does not say in which of the known folders it lies."""
    top, _, rest = name.partition("/")
    return rest if top in IMAGE_FOLDERS else name


def _pictures(root: Root) -> Iterator[str]:
    """Paths of pictures below a folder, sorted folder by folder, as far as `MOST` entries go."""
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
