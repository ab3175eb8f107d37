"""Lists of names and captions without a header: `0001.jpg<TAB>a man on a rock`, with commas, semicolons or bars too.

A `.txt`, `.csv`, `.tsv` or `.lst` file whose first lines all are so, or all the other way round (`a man on a rock,0001.jpg`);
with a tab, names may lack their endings. Or a folder with such files, by their names one per split (`train.txt`, `val.txt`), or
with one. A number between name and caption, or after the name (`0001.jpg#2`), counts captions and is no part of either.
Everything after it is the caption, whatever separators it holds. Lines of another form are rejected. In a `.txt` or `.lst`
file a first line of column names (`image<TAB>caption`) is passed over; a `.csv` or `.tsv` file with one is a table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers.columns import CAPTION_COLUMNS, IMAGE_COLUMNS, on_one_line
from captrain.data.readers.flickr import is_captions, lines_in, unquoted
from captrain.data.readers.json_objects import LONGEST_NAME
from captrain.data.readers.tables import (
    ListedTable,
    TableFile,
    check_row_splits,
    has_tables,
    one_table_each,
    tables_at,
    tables_in,
)
from captrain.data.readers.urls import is_url
from captrain.data.safe_paths import IMAGE_SUFFIXES, Root, is_hidden
from captrain.errors import DataError
from captrain.records import Rejects, Sample

TABLE_SUFFIXES = (".csv", ".tsv")
SUFFIXES = (".txt", *TABLE_SUFFIXES, ".lst")
LOOKED_AT = 5  # lines that must all be of the form
MOST_FILES = 20  # in a folder of which one may be a list; more are something else, captions beside pictures say

MOST_MARKS = 50  # in a name that comes last

_ENDINGS = "|".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
_NAME = rf'"?(?P<name>(?!\w+://)[^\t]{{0,{LONGEST_NAME}}}?\.(?:{_ENDINGS}))"?(?:#\d+)?'
_NAME_FIRST = re.compile(rf"\s*+{_NAME}[^\S\t]*+(?P<mark>[\t,;|])(?P<caption>.*)", re.IGNORECASE)
_NAME_LAST = re.compile(rf"\s*+{_NAME}\s*+", re.IGNORECASE)
_MARK = re.compile(r"[\t,;|]")
_BARE_NAME = re.compile(r"(?P<name>[^\t]+?)(?:#\d+)?(?P<mark>\t)(?P<caption>.*)")
_COUNT = re.compile(r"\s*\d+\s*[\t,;|](?=.*\w)")
_HEADER = re.compile(
    rf"\ufeff?({'|'.join(IMAGE_COLUMNS)})\s*[\t,;|](\s*\w+\s*[\t,;|])?\s*({'|'.join(CAPTION_COLUMNS)})", re.IGNORECASE
)


class LineParts(NamedTuple):
    """What a line is made of, as it is written."""

    name: str
    mark: str
    caption: str


def _name_first(line: str) -> LineParts | None:
    found = _NAME_FIRST.fullmatch(line)
    return LineParts(found["name"], found["mark"], found["caption"]) if found else None


def _name_last(line: str) -> LineParts | None:
    """By the last mark that only a name follows. One pattern for all of it would take minutes for a line of many marks."""
    tail = max(0, len(line) - LONGEST_NAME)
    for mark in reversed(list(_MARK.finditer(line, tail))[-MOST_MARKS:]):
        caption = line[: mark.start()].rstrip()
        if caption and (found := _NAME_LAST.fullmatch(line, mark.end())):
            return LineParts(found["name"], mark[0], caption)
    return None


def _bare_name(line: str) -> LineParts | None:
    found = _BARE_NAME.fullmatch(line)
    return LineParts(found["name"], found["mark"], found["caption"]) if found else None


_FORMS = {"name first": _name_first, "name last": _name_last, "bare name": _bare_name}


@dataclass(frozen=True, slots=True)
class Form:
    """The form of the lines of a list: the order, what separates, and whether a number stands between."""

    order: str
    mark: str
    counted: bool

    def row(self, line: str) -> tuple[str, str] | None:
        """A line's name and caption; None if it is of another form.

        >>> Form("name first", ",", False).row("0001.jpg, a man, on a rock")
        ('0001.jpg', 'a man, on a rock')
        >>> Form("name first", "|", True).row("0001.jpg| 0| a man")
        ('0001.jpg', 'a man')
        """
        found = _FORMS[self.order](line)
        if found is None or found.mark != self.mark:
            return None
        caption = found.caption
        if self.counted and (count := _COUNT.match(caption)):
            caption = caption[count.end() :]
        return found.name.strip(), unquoted(caption)


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is such a file, or a folder with some and without captions beside its pictures."""
    path = Path(source)
    try:
        if path.is_dir():
            return has_tables(path, tables(path, options))
        return path.suffix.lower() in SUFFIXES and path.is_file() and _is_list(path, options)
    except (OSError, ValueError):
        return False


def tables(folder: Path, options: ReadOptions = BY_LOOKING) -> list[ListedTable]:
    """The lists of a folder."""
    return tables_in(folder, SUFFIXES, lambda path: (True, True), _lists_in(folder, options).__contains__)


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All samples of a list, or of a folder with lists, in the order in which images are first named.

    Rejected are lines of another form, and images that are missing or have no caption. Raises `DataError` for a name that
    leaves the folder, text that is not UTF-8, and if nothing is left.
    """

    def samples(table: TableFile) -> dict[str, Sequence[Sample]]:
        return _read_list(table, options.encoding, rejects, captioned)

    expected = "expected lines such as 0001.jpg<TAB>a man on a rock"
    return one_table_each(source, tables_at(source, options, SUFFIXES, tables), samples, rejects, expected)


def form_of(path: Path, root: Root, encoding: str = "") -> Form | None:
    """The form of a file's lines, from its first ones; None if it is not a list of names and captions.

    Names without endings are recognised by the pictures below `root` that they lead to.
    """
    found_in = (
        line for number, line in lines_in(path, encoding) if line.strip() and not _is_header(path, number, line)
    )
    lines = list(islice(found_in, LOOKED_AT))
    for order, parts_of in _FORMS.items():
        found = [parts_of(line) for line in lines]
        marks = {parts.mark for parts in found if parts}
        if lines and all(found) and len(marks) == 1:
            captions = [parts.caption.strip() for parts in found if parts]
            if not any(captions) or all(_is_name(caption) or is_url(caption) for caption in captions):
                return None
            names = [parts.name for parts in found if parts]
            if order == "bare name" and not _lead_to_pictures(names, lines, root):
                return None
            counted = order == "name first" and all(map(_COUNT.match, captions))
            return Form(order, marks.pop(), counted)
    return None


def _read_list(table: TableFile, encoding: str, rejects: Rejects, captioned: bool) -> dict[str, Sequence[Sample]]:
    form = form_of(table.path, table.root, encoding)
    if form is None:
        raise DataError(
            f"{table.path}: no list of names and captions; expected lines such as 0001.jpg<TAB>a man on a rock"
        )
    gathered = table.gathered()
    for number, line in lines_in(table.path, encoding):
        row = None if _is_header(table.path, number, line) else form.row(line)
        if row:
            gathered.add(row[0], [row[1]], number, rejects, table.split or "all")
        elif line.strip() and not _is_header(table.path, number, line):
            where = f"{table.path}:{number}"
            rejects.add(on_one_line(line), where, "is not a name and a caption, as the first lines are")
    check_row_splits(gathered.names, table)
    return gathered.samples(rejects, captioned=captioned)


def _is_header(path: Path, number: int, line: str) -> bool:
    """Whether a line names columns, in a file that is no table by its ending."""
    return number == 1 and path.suffix.lower() not in TABLE_SUFFIXES and _HEADER.fullmatch(line.strip()) is not None


def _is_list(path: Path, options: ReadOptions) -> bool:
    root = Root(path.parent, follow_links=options.follow_links)
    try:
        return _form_in_any_encoding(path, root) is not None and not is_captions(path)
    except (DataError, OSError):
        return False


def _form_in_any_encoding(path: Path, root: Root) -> Form | None:
    """As `form_of`: what separates names and captions is ASCII, which most encodings share."""
    try:
        return form_of(path, root)
    except DataError:
        return form_of(path, root, "latin-1")


def _lead_to_pictures(names: list[str], lines: list[str], root: Root) -> bool:
    """Whether most names lead to pictures; looked for only where no line is a header or holds a web address."""
    if names[0].strip().lower() in (*IMAGE_COLUMNS, *CAPTION_COLUMNS) or any("://" in line for line in lines):
        return False
    return 2 * sum(len(root.index.named(name.strip())) == 1 for name in names) > len(names)


def _is_name(caption: str) -> bool:
    return " " not in caption and caption.lower().endswith(tuple(IMAGE_SUFFIXES))


def _lists_in(folder: Path, options: ReadOptions) -> frozenset[Path]:
    """The files of a folder that may be lists; none if it has many, or captions beside its pictures."""
    texts: dict[str, Path] = {}
    pictures: set[str] = set()
    for entry in folder.iterdir():
        suffix = entry.suffix.lower()
        if suffix in SUFFIXES and not is_hidden(entry.name):
            texts[entry.name] = entry
        elif suffix in IMAGE_SUFFIXES:
            pictures.update((entry.stem, entry.name))
    if len(texts) > MOST_FILES or any(path.stem in pictures for path in texts.values()):
        return frozenset()
    return frozenset(path for path in texts.values() if path.is_file() and _is_list(path, options))
