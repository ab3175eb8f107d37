"""The entries of one large JSON object, one at a time, and what they say: what readers of such objects share.

A file may be larger than memory: of it only the entry that is being parsed is held.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captrain.data.caption_file_names import match, text_suffixes
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers import sidecar
from captrain.data.readers.columns import CAPTION_COLUMNS, Columns, on_one_line, present, texts_of, value_at
from captrain.data.readers.json_list import Characters
from captrain.data.readers.json_objects import LONGEST_NAME, json_files
from captrain.data.readers.tables import ListedTable, TableFile, has_tables, tables_at, tables_in
from captrain.data.safe_paths import IMAGE_SUFFIXES, Root
from captrain.data.samples import ChosenSamples, JoinedSamples, keys_of
from captrain.errors import DataError
from captrain.records import Rejects, Sample
from captrain.tabular.cells import sifted

MOST_ENTRIES = 10_000  # files looked at before a folder counts as one without caption files
DEEPEST = 4  # lists and objects within each other that captions may be in

_TOGETHER = re.compile(r"(raw|report|caption_str|reference_strs)(_?\d+)?", re.IGNORECASE)


class JsonEntry(NamedTuple):
    """One entry: its number in the file, from 1, the key of the group that it is in ("" for none), its own ("" in a list)."""

    number: int
    group: str
    key: str
    value: Any


def entries(path: Path, is_group: Callable[[str], bool]) -> Iterator[JsonEntry]:
    """The entries of an object; of a list or object under a key that is a group's, its entries.

    Raises `DataError` naming the first thing that is no JSON object.
    """
    reader, count = Characters(path), 0
    if not reader.skip("{"):
        raise DataError(f"{path}: not a JSON object; expected {{...}}")
    for outer in reader.members("}", "entry {}"):
        key = reader.key(f"{path}:{count + 1}", f"entry {outer}")
        group = key if is_group(key) and (reader.next() or " ") in "[{" else None
        if group is None:
            count += 1
            yield JsonEntry(count, "", key, reader.any(f"{path}:{count}", f"the value of '{on_one_line(key)}'"))
            continue
        for entry in _grouped(reader, group):
            count += 1
            yield entry._replace(number=count)
    if reader.next():
        raise DataError(f"{path}: something follows the object; expected one JSON object")


def _grouped(reader: Characters, group: str) -> Iterator[JsonEntry]:
    is_list = reader.skip("[")
    if not is_list:
        reader.skip("{")
    what = f"entry {{}} of '{on_one_line(group)}'"
    for number in reader.members("]" if is_list else "}", what):
        where, named = f"{reader.path}:{number}", what.replace("{}", str(number))
        yield JsonEntry(number, group, "" if is_list else reader.key(where, named), reader.any(where, named))


def captions_in(value: Any, columns: Columns, where: str, depth: int = DEEPEST) -> list[str]:
    """The captions that a value holds: a string, a list of them, or objects with captions, which may nest.

    Raises `DataError` for numbers and the like in their place.

    >>> captions_in([{"raw": "a dog"}, {"raw": "a cat"}], Columns(), "x.json:1")
    ['a dog', 'a cat']
    """
    if isinstance(value, list) and any(isinstance(part, list | dict) for part in value):
        if not depth:
            raise DataError(f"{where}: captions nest too deeply; expected a string or a list of strings")
        return [text for part in value for text in captions_in(part, columns, where, depth - 1)]
    if isinstance(value, dict):
        return row_captions(value, columns, where, depth)
    captions, odd = sifted(texts_of(value, columns.given_caption or "caption", where))
    return [*captions, *odd]


def row_captions(values: dict[str, Any], columns: Columns, where: str, depth: int = DEEPEST) -> list[str]:
    """The captions of an object: of the given column, of all that stand together (raw, raw_1, ...), else of the usual ones.

    >>> row_captions({"raw": "a plane", "raw_1": "a jet", "split": "train"}, Columns(), "x.json:1")
    ['a plane', 'a jet']
    """
    if not depth:
        raise DataError(f"{where}: captions nest too deeply; expected a string or a list of strings")
    if columns.given_caption:
        return captions_in(value_at(values, columns.given_caption), columns, where, depth - 1)
    together = [key for key in values if _TOGETHER.fullmatch(key)]
    if together:
        texts = (captions_in(values[key], columns, where, depth - 1) for key in together)
        return list(dict.fromkeys(text for some in texts for text in some))
    for column in present(CAPTION_COLUMNS, tuple(values)):
        if captions := captions_in(values[column], columns, where, depth - 1):
            return captions
    return []


def ends_as_picture(name: str) -> bool:
    """Whether a name has the ending of a picture."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def found_below(root: Root, name: str) -> str | None:
    """Where the picture of a name is, for a look at what a file is: never raising."""
    try:
        return root.find(name, "")
    except DataError:
        return None


def has_caption_files(root: Root) -> bool:
    """Whether pictures below a folder have caption files beside them, so that it can be read by these."""
    folders, left, looked = root.folders(), [""], 0
    while left and looked <= MOST_ENTRIES:
        prefix = left.pop()
        try:
            entries = folders.entries(prefix)
        except OSError:
            continue
        files = [entry.name for entry in entries if not entry.is_folder and not entry.fault]
        if match(list(filter(ends_as_picture, files)), files, text_suffixes())[0]:
            return True
        left += [f"{prefix}{entry.name}/" for entry in reversed(entries) if entry.is_folder and not entry.fault]
        looked += len(files)
    return False


def captions_or_reject(value: Any, columns: Columns, where: str, image: str, rejects: Rejects) -> list[str] | None:
    """As `captions_in`; a value of another form is listed as rejected, and None comes back."""
    try:
        return captions_in(value, columns, where)
    except DataError as error:
        rejects.add(image[:LONGEST_NAME], where, str(error).removeprefix(f"{where}: "))
        return None


def is_data_set(
    source: str, suffixes: tuple[str, ...], is_form: Callable[[Path], bool], options: ReadOptions = BY_LOOKING
) -> bool:
    """Whether this is a file of a form, or a folder with some and without captions beside its pictures."""
    path = Path(source)
    if path.is_dir():
        root = Root(path, follow_links=options.follow_links)
        return bool(json_files(path, is_form)) and has_files(path, suffixes, is_form) and not has_caption_files(root)
    return path.suffix.lower() in suffixes and is_form(path)


def has_files(folder: Path, suffixes: tuple[str, ...], is_form: Callable[[Path], bool]) -> bool:
    """Whether a folder has files of a form that can be told apart, or contradict each other: reading them will say so."""
    return has_tables(folder, object_files_in(folder, suffixes, is_form))


def object_files_in(folder: Path, suffixes: tuple[str, ...], is_form: Callable[[Path], bool]) -> list[ListedTable]:
    """The files of a folder that are of a form."""
    return tables_in(folder, suffixes, lambda file: (True, True), is_form)


def files_at(
    source: str, options: ReadOptions, suffixes: tuple[str, ...], is_form: Callable[[Path], bool]
) -> list[TableFile]:
    """The files of a data set: the given one, or those of a folder that are of a form, by split."""
    return tables_at(source, options, suffixes, lambda folder, _: object_files_in(folder, suffixes, is_form))


def with_unlisted(
    splits: dict[str, Sequence[Sample]], source: str, options: ReadOptions, captioned: bool
) -> dict[str, Sequence[Sample]]:
    """Where pictures need no caption, those of a folder that its file does not name are samples too.

    Such a file beside pictures may be about some of them only, as what a model wrote is.
    """
    if captioned or not os.path.isdir(source) or options.image_root is not None:
        return splits
    every = JoinedSamples(list(sidecar.read(source, Rejects(), options, captioned=False).values()))
    known = np.concatenate([keys_of(samples) for samples in splits.values()])
    others = ChosenSamples(every, np.flatnonzero(~np.isin(keys_of(every), known)))
    return {**splits, "all": JoinedSamples([splits.get("all", ()), others])} if len(others) else splits
