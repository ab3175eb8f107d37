"""Which formats are read of what is at a path: `detect` finds the format by looking, `read_and_note` reads what was found.

In a folder, tables may be side by side, of one format or of several. Their names say which of them are read, and the
others are reported.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers import READERS, csv_table, reader, recognises
from captrain.data.readers.columns import Columns, listed_columns
from captrain.data.readers.line_index import opened_lines
from captrain.data.readers.remarks import TABLES, names_in_folder, note_unlisted, unpacking
from captrain.data.readers.tables import ListedTable, choose, refuse_links, split_in_words
from captrain.data.safe_paths import Root, existing, is_hidden, is_remote, refuse_pointer
from captrain.data.samples import merged
from captrain.errors import DataError, nearest
from captrain.limits import next_json_line
from captrain.records import Rejects, Sample, parse_json_line

logger = logging.getLogger(__name__)

TOLD = frozenset({"marked", "unread", "unlisted"})  # remarks that are logged when the data is read
TABLE_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
MOST_TABLES = 200  # files of a suffix; more are something else, one per image say
SUFFIXES = frozenset({".json", ".jsonl"})  # of files that a form without `tables` may recognise
MOST_BELOW = 20  # folders below a folder, and files in each, that are looked at
MOST_FILES = 20  # of them that are looked at; more are something else, one per image say
MOST_SHOWN = 3  # tables in an error
BOM = b"\xef\xbb\xbf"


def detect(source: str, options: ReadOptions = BY_LOOKING) -> str:
    """The format's name, by what is at `source`; tables are looked for by the columns that `options` name.

    Raises `DataError` if nothing is there, if no reader reads it, or if no table has those columns.
    """
    if not is_remote(source):
        refuse_pointer(Path(source))
    for name in READERS:
        if recognises(name, source, options):
            if name == "sidecar" and (options.image_column or options.caption_column):
                _miss_table(source, options)
            return name
    if not is_remote(source):
        existing(Path(source))
        if command := unpacking(Path(source).name):
            raise DataError(f"{source}: an archive; unpack it first ({command}), then give the folder")
    raise DataError(
        f"{source}: not a data set; expected a folder of images with captions, a table of them (.jsonl, .json, .csv, .tsv, "
        f".parquet) or .tar shards; --format says which of {', '.join(READERS)} it is"
    )


def _miss_table(source: str, options: ReadOptions) -> None:
    """Raise `DataError` if no table of a folder has the columns that a person names; if it has no tables, say so."""
    flag, column = "--image-column", options.image_column
    if not column:
        flag, column = "--caption-column", options.caption_column
    seen = columns_seen(Path(source))
    if not seen:
        logger.warning(
            "%s: there is no table with the column '%s' of %s; captions beside pictures are read", source, column, flag
        )
        return
    found = "; ".join(f"{name} has {', '.join(names) or 'none'}" for name, names in seen.items())
    named = next((name for name, names in seen.items() if column in names), "")
    other = "--caption-column" if flag == "--image-column" else "--image-column"
    near = nearest(column, (name for names in seen.values() for name in names))
    hint = f" For {named} say {other} too." if named else near
    raise DataError(
        f"{source}: no table with a column '{column}', which {flag} names, and one of images; {found}.{hint}"
    )


def read_and_note(
    source: str, form: str, rejects: Rejects, options: ReadOptions, captioned: bool, is_guess: bool
) -> dict[str, Sequence[Sample]]:
    """What the reader of a form finds and, if the form `is_guess`, what other tables in the folder hold.


    What else is good to know is logged: tables that are not read, pictures that no table lists.
    """
    noted, path = len(rejects.remarks), Path(source)
    splits = read_tables(source, form, rejects, options, captioned) if is_guess and os.path.isdir(source) else None
    if splits is None:
        splits = dict(reader(form).read(source, rejects, options, captioned=captioned))
    folder = path if path.is_dir() else path.parent
    if not READERS[form].whole_folder and (
        folder == path or len(_files(folder, TABLE_SUFFIXES)) <= 1  # else others may list the rest
    ):
        home = folder.parent if folder.name == "annotations" else folder
        note_unlisted(Root(options.image_root or home, follow_links=options.follow_links), splits.values(), rejects)
    if is_guess and path.is_dir() and form != "kohya-toml":
        _note_configurations(path, rejects)
    for line in rejects.remarks[noted:]:
        if line["problem"] in TOLD:
            logger.warning("%s %s", line["where"], line["reason"])
    return splits


def _note_configurations(folder: Path, rejects: Rejects) -> None:
    """Note configurations of sd-scripts that are in a folder which is read by something else."""
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

    Tables that are not read, because their names say no split, are noted. Raises `DataError` as `choose` does.
    """
    folder = Path(source)
    if READERS[form].whole_folder and (form != "sidecar" or not _files(folder, TABLE_SUFFIXES)):
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


def _chosen(folder: Path, found: dict[str, list[ListedTable]], form: str) -> dict[str, Path]:
    """Which of the tables that were found are read, by split."""
    tables = [table for listed in found.values() for table in listed]
    chosen, _ = choose(folder, tables)
    says_split = any(table.split or table.whole for table in tables if table.path in chosen.values())
    if chosen and (says_split or found.get(form)):
        return chosen
    return choose(folder, found.get(form, []))[0]  # no name says more than another, so the first form has it


def tables_of(folder: Path, form: str, options: ReadOptions = BY_LOOKING) -> dict[str, list[ListedTable]]:
    """By form, the tables in a folder. A form that many files seem to have counts only if it is `form`."""
    found: dict[str, list[ListedTable]] = {}
    for name in READERS:
        if not READERS[name].whole_folder:
            module: Any = reader(name)
            if hasattr(module, "tables"):
                many = name != form and len(_files(folder, getattr(module, "SUFFIXES", ()))) > MOST_TABLES
                found[name] = [] if many else module.tables(folder, options)
    taken = {table.path for listed in found.values() for table in listed}
    others = [file for file in _files(folder, SUFFIXES) if file not in taken][:MOST_FILES]
    for name in READERS:
        if not READERS[name].whole_folder and name not in found:
            known = [file for file in others if reader(name).recognises(str(file), options)]
            found[name] = [ListedTable(file, split_in_words(folder, file) or "") for file in known]
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
    form: str, source: str, tables: list[ListedTable], rejects: Rejects, options: ReadOptions, captioned: bool
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


def tables_there(folder: Path) -> list[str]:
    """The tables right in a folder, or in one of its folders, that are not read, and why.

    Tables with known columns are left unread when there are several and no name says a split. Others are reported with
    the columns that they have.
    """
    known: list[str] = []
    said: list[str] = []
    for name in names_in_folder(folder):
        columns = _columns_of(folder / name)
        if columns and all(Columns().look(dict.fromkeys(columns), names_only=True)):
            known.append(name)
        elif columns:
            said.append(
                f"{folder / name} is there with the columns {listed_columns(columns)}; "
                "--image-column and --caption-column say which ones count"
            )
    if len(known) > 1:
        names = f"{', '.join(known[:3])}{', ...' if len(known) > 3 else ''}"
        said.insert(0, f"{names} list pictures, and their names say no split (train, val, test); give the path of one")
    return said[:2] or _tables_below(folder)


def _tables_below(folder: Path) -> list[str]:
    """The first table of pictures that is in one of a folder's folders."""
    folders = [folder / name for name in names_in_folder(folder) if (folder / name).is_dir()]
    for below in folders[:MOST_BELOW]:
        tables = [file for file in names_in_folder(below) if file.lower().endswith((*TABLES, ".txt", ".token"))]
        for table in tables[:MOST_BELOW]:
            if _lists_pictures(below / table):
                return [f"{below / table} lists pictures; give {below} to read it"]
    return []


def _lists_pictures(path: Path) -> bool:
    """Whether a file is one of the forms that list pictures."""
    return any(recognises(form, str(path)) for form, format in READERS.items() if not format.whole_folder)


def _columns_of(path: Path) -> Sequence[str]:
    """The columns of a table by its first line; nothing for other files."""
    try:
        if path.suffix.lower() in csv_table.SUFFIXES:
            cells = csv_table.cells_in_any_encoding(path, Columns())
            return cells.header if cells is not None and len(cells.header) > 1 else ()
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            with opened_lines(path) as file:
                return tuple(parse_json_line(next_json_line(file).removeprefix(BOM), str(path)))
    except DataError:
        pass
    return ()
