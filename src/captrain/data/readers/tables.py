"""Which files of a folder are tables of images, of which split each is, and where the images that they name are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from captrain.data.caption_buffers import GatheredCaptions
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers.columns import Columns
from captrain.data.readers.remarks import nothing_to_use
from captrain.data.safe_paths import Root, existing, is_hidden, refuse_pointer
from captrain.data.samples import merged
from captrain.data.splits import SPLIT_NAMES
from captrain.disk.reading import NOT_READ_THROUGH
from captrain.disk.walking import is_folder
from captrain.errors import DataError
from captrain.records import Rejects, Sample
from captrain.tabular.cells import MARKS

Test = Callable[[Path], bool]
Look = Callable[[Path], tuple[bool, bool]]  # whether a table has images, and whether it has captions

LOOKED_AT = 1000  # rows that are searched for the columns that hold captions

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # between the words of "iconclassTrain"


@dataclass(frozen=True, slots=True)
class ListedTable:
    """A table that is in a folder.

    split: what its name says, "" if nothing. whole: it is about all pictures (`metadata.csv`). by_name: its name says that
    it is a table of pictures. captions: it has a column of them.
    """

    path: Path
    split: str = ""
    whole: bool = False
    by_name: bool = False
    captions: bool = True


class TableFile:
    """A file of rows: the folder that its image names are relative to, and what its place gives to ids and splits."""

    def __init__(self, path: Path, folder: Path, split: str = "", options: ReadOptions = BY_LOOKING) -> None:
        """`folder` is the data set's, `split` what the file's name says (or "")."""
        refuse_pointer(path)
        self.path = path
        self.split = split
        self.columns: tuple[str, ...] = ()  # as far as they are known
        given = None if options.image_root is None else folder_of_images(options.image_root)
        self.root = Root(given or path.parent, given=given is not None, follow_links=options.follow_links)
        within = path.parent.relative_to(folder).as_posix()
        self.prefix = "" if within == "." else f"{within}/"
        self.name = self.prefix + path.name

    def relative(self, image: str) -> str:
        """A name as relative to the images' folder where it is an absolute path below it, else as it is."""
        if not os.path.isabs(image):
            return image
        inside = os.path.join(os.path.abspath(self.root.folder), "")
        return image.removeprefix(inside) or image

    def find(self, image: str, where: str) -> str | None:
        """As `Root.find`, for absolute paths below the images' folder too."""
        return self.root.find(self.relative(image), where)

    def absence(self, image: str, where: str) -> str:
        """As `Root.absence`."""
        return self.root.absence(self.relative(image), where)

    def gathered(self) -> GatheredCaptions:
        """An empty collector of this table's rows."""
        return GatheredCaptions(self.root, self.path, self.prefix)


def folder_of_images(folder: Path) -> Path:
    """The folder given by --image-root. Raises `DataError` if it is none."""
    if not existing(folder).is_dir():
        raise DataError(
            f"{folder}: not a folder; expected --image-root to be the folder that image names are relative to"
        )
    return folder


def tables_at(
    source: str,
    options: ReadOptions,
    suffixes: tuple[str, ...],
    tables: Callable[[Path, ReadOptions], list[ListedTable]],
) -> list[TableFile]:
    """The tables of a data set: a file, or those of a folder. Raises `DataError` if there are none."""
    path = existing(Path(source))
    if path.is_file():
        return [TableFile(path, path.parent, "", options)]
    found, _ = choose(path, tables(path, options))
    if not found:
        kinds = " or ".join(suffixes)
        raise DataError(
            f"{path}/: no table; expected metadata{suffixes[0]}, train{suffixes[0]} or one other {kinds} file with image names"
        )
    refuse_links(path, found.values(), options.follow_links)
    return [TableFile(file, path, split, options) for split, file in found.items()]


def refuse_links(path: Path, files: Iterable[Path], follow_links: bool) -> None:
    """Raise `DataError` for a file that was found in a folder, and is a link that leaves it; not for `path` itself."""
    root = Root(path, follow_links=follow_links)
    for file in files:
        if file != path and not root.holds(str(file)):
            raise DataError(f"{file}: {NOT_READ_THROUGH}, or give its path")


def has_tables(folder: Path, tables: list[ListedTable]) -> bool:
    """Whether a folder has such tables, even if they contradict each other: reading them will say so."""
    try:
        return bool(choose(folder, tables)[0])
    except DataError:
        return True


def tables_in(folder: Path, suffixes: tuple[str, ...], look: Look, is_kind: Test = Path.is_file) -> list[ListedTable]:
    """The tables of a folder that pass `is_kind`: those that have a table's name, and others in which `look` sees images."""
    with os.scandir(folder) as listing:  # once: a folder may hold a hundred thousand pictures
        names = {entry.name: is_folder(entry) for entry in listing}
    below = [folder / name / f"metadata{suffix}" for suffix in suffixes for name in sorted(names) if names[name]]
    files = [folder / name for name in sorted(names) if name.lower().endswith(suffixes) and not is_hidden(name)]
    tables = []
    for file in filter(is_kind, [*files, *filter(os.path.lexists, below)]):
        split = exact_split(folder, file)
        if split is not None:
            tables.append(ListedTable(file, split, by_name=True, whole=not split))
        elif file.parent == folder:
            images, captions = look(file)
            if images:
                tables.append(ListedTable(file, split_in_words(folder, file) or "", captions=captions))
    return tables


def choose(folder: Path, tables: Sequence[ListedTable]) -> tuple[dict[str, Path], list[Path]]:
    """Which tables of a folder are read, by split ("" if a name says none), and which are left, as no name says their split.

    A name is a split's (`train.csv`, `dev.csv`, `train/metadata.csv`), `metadata.csv`, or has a split as a word of it
    (`coco_karpathy_train.json`, `iconclassTrain.json`); tables of other names are read where there is only one. Raises
    `DataError` for two tables of the same split, or of all pictures and of a split.
    """
    if len(tables) > 1:  # a table of scores is not a data set if another has captions
        tables = [table for table in tables if table.by_name or table.captions]
    named = [table for table in tables if table.split or table.whole]
    if not named:
        return ({"": tables[0].path}, []) if len(tables) == 1 else ({}, [table.path for table in tables])
    chosen: dict[str, Path] = {}
    for table in named:
        first = next(iter(chosen.values()), None)
        if other := chosen.get(table.split) or chosen.get("") or (None if table.split else first):
            both = " and ".join(path.relative_to(folder).as_posix() for path in (other, table.path))
            raise DataError(
                f"{folder}/: {both} are tables of the same images; give the path of the one to use, or say --format"
            )
        chosen[table.split] = table.path
    return chosen, [table.path for table in tables if table not in named]


def exact_split(folder: Path, file: Path) -> str | None:
    """The split that a name is: "" for metadata, None for other names."""
    if file.parent == folder and file.stem.lower() == "metadata":
        return ""
    return SPLIT_NAMES.get((file.stem if file.parent == folder else file.parent.name).lower())


def split_in_words(folder: Path, file: Path) -> str | None:
    """The split that is the last of a name's words to be one.

    >>> [split_in_words(Path("."), Path(name)) for name in ("coco_karpathy_val.json", "iconclassTrain.json")]
    ['validation', 'train']
    """
    words = re.findall("[a-z]+", _HUMP.sub("_", file.stem).lower())
    return next((SPLIT_NAMES[word] for word in reversed(words) if word in SPLIT_NAMES and word != "all"), None)


def gather(
    table: TableFile, columns: Columns, rows: Iterable[tuple[int, dict[str, Any]]], rejects: Rejects, captioned: bool
) -> dict[str, Sequence[Sample]]:
    """The samples of a table that is read whole, from its rows with their numbers."""
    gathered, rows = table.gathered(), iter(rows)
    first = list(islice(rows, LOOKED_AT))
    if first:
        table.columns = tuple(first[0][1])
        columns.check(table.columns, f"{table.path}:{first[0][0]}")
    columns = columns.of(name for _, values in first for name in values)
    marked = 0
    for number, values in chain(first, rows):
        row = columns.row(values, f"{table.path}:{number}")
        marked += row.marked
        split = row.split or table.split or "all"
        gathered.add(table.relative(row.image), row.captions + row.odd, number, rejects, split)
    note_marked(table.path, marked, rejects)
    check_row_splits(gathered.names, table)
    return gathered.samples(rejects, captioned=captioned)


def note_marked(file: Path, marked: int, rejects: Rejects) -> None:
    """Note how many captions of a file say that they are not to be used, and so are left out."""
    if marked:
        reason = f"has {marked:,} captions marked {' or '.join(MARKS)}; they are left out"
        rejects.remark("marked", file.name, str(file), reason)


def check_row_splits(names: Sequence[str], table: TableFile) -> None:
    """Raise `DataError` if only some rows of a table name a split; `names` are the splits of all rows."""
    if "all" in names and len(names) > 1:
        raise DataError(f"{table.path}: some lines name a split and some don't; expected all or none")


def one_table_each(
    source: str,
    tables: Sequence[TableFile],
    read: Callable[[TableFile], dict[str, Sequence[Sample]]],
    rejects: Rejects,
    expected: str,
) -> dict[str, Sequence[Sample]]:
    """The splits of several tables. Raises `DataError`, ending with `expected`, if no sample is left."""
    splits: dict[str, Sequence[Sample]] = {}
    for table in tables:
        merged(splits, read(table))
    if not splits:
        columns = next((table.columns for table in tables if table.columns), ())
        raise nothing_to_use(source, rejects, expected, [table.root for table in tables], columns)
    return splits
