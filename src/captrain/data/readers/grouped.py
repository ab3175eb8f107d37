"""JSON objects of lists: {"train": [{"image_path": ["1/0.png", "1/1.png"], "report": "..."}], "val": [...]}.

R2Gen's `annotation.json` (a report is the caption of each of its pictures), TextCaps (`data`), NWPU-Captions (a list for
each class, with raw, raw_1, ...), and other files whose lists hold objects that name a picture and its captions.

A list's key may be a split, or the folder that its pictures lie in. Pictures are looked for below the file's folder or
`image_root`: there itself, in `images/` and in other folders beside the file. The file is read an object at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from captrain.data.readers import SPLIT_NAMES
from captrain.data.readers.columns import IMAGE_COLUMNS, Columns, present, split_of, value_at, whole
from captrain.data.readers.json_entries import (
    Pictures,
    captions_or_reject,
    collect,
    ends_as_picture,
    entries,
    row_captions,
)
from captrain.data.readers.json_objects import ends_of, json_files
from captrain.data.readers.options import BY_LOOKING, ReadOptions
from captrain.data.readers.tables import Table, check_splits, has_tables, one_table_each, tables_at
from captrain.errors import DataError
from captrain.records import Rejects, Sample

SUFFIXES = (".json",)
MOST_LOOKED_AT = 20  # entries of a file that are looked at for one that names a picture and its captions

_IMAGE_COLUMNS = (*IMAGE_COLUMNS, "image_paths", "images", "image_id")
_EXAMPLE = 'expected lists like {"train": [{"image_path": ..., "report": ...}]}'


def recognises(source: str) -> bool:
    """Whether this is a .json file that is an object of such lists, or a folder with some: by a file's first entries."""
    path = Path(source)
    if path.is_dir():
        return bool(json_files(path, _is_grouped)) and has_tables(path, SUFFIXES, _is_grouped, _is_grouped)
    return path.suffix.lower() in SUFFIXES and _is_grouped(path)


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All pictures of the lists by split, in the file's order; ids are the paths they are found under.

    Rejected are pictures that are missing, without caption, or may be several, and objects of another form. Raises
    `DataError` for what is no JSON object, an unknown split, a name that leaves the folder, and if nothing is left.
    """
    columns = Columns(options.image_column, options.caption_column)

    def rows(table: Table) -> dict[str, Sequence[Sample]]:
        return _read_table(table, columns, rejects, captioned)

    return one_table_each(
        source, tables_at(source, options, SUFFIXES, _is_grouped, _is_grouped), rows, rejects, _EXAMPLE
    )


def _is_grouped(path: Path) -> bool:
    if not ends_of(path).startswith(b"{"):
        return False
    try:
        first = list(islice(entries(path, _any), MOST_LOOKED_AT))
    except DataError:
        return False
    # Under a picture's name stands what is said of it, even where that names the picture again: `names` reads it.
    return any(not entry.key and not ends_as_picture(entry.group) and _is_row(entry.value) for entry in first)


def _is_row(value: Any) -> bool:
    """Whether a list's entry names pictures and says something of them."""
    try:
        return isinstance(value, dict) and bool(_images(value, Columns())) and bool(row_captions(value, Columns(), ""))
    except DataError:
        return False


def _any(key: str) -> bool:
    return True


def _read_table(table: Table, columns: Columns, rejects: Rejects, captioned: bool) -> dict[str, Sequence[Sample]]:
    gathered, pictures = table.gathered(), Pictures(table.root)
    of_rows: dict[str, bool] = {}  # by a list's key: whether its first object has anything to do with pictures
    complete: set[str] = set()  # images of which a row had all captions: TextCaps repeats them in each
    for entry in entries(table.path, _any):
        if entry.key or not isinstance(values := entry.value, dict):
            continue
        images = _images(values, columns)
        if not of_rows.setdefault(entry.group, bool(images)):
            continue
        where = f"{table.path}:{entry.number}"
        if not images:
            rejects.add(table.name, where, "names no image")
            continue
        texts = captions_or_reject(values if images[0] not in complete else None, columns, where, images[0], rejects)
        if texts is None:
            continue
        if "reference_strs" in values:
            complete.add(images[0])
        names = [_names(image, entry.group) for image in images]
        collect(gathered, pictures, names, texts, entry.number, rejects, _split(values, entry.group, table, where))
    check_splits(gathered.names, table)
    return gathered.samples(rejects, captioned=captioned)


def _images(values: dict[str, Any], columns: Columns) -> list[str]:
    """The pictures that an object is about."""
    given = columns.given_image
    found = [value_at(values, given)] if given else [values[key] for key in present(_IMAGE_COLUMNS, tuple(values))]
    for value in found:
        parts = value if isinstance(value, list) else [value]
        names = [str(part) for part in parts if isinstance(part, str | int) and not isinstance(part, bool)]
        if len(names) == len(parts) and all(name.strip() for name in names) and names:
            return [whole(name) for name in names]
    return []


def _names(image: str, group: str) -> list[str]:
    """What a picture may be called below the folder: its list's key may be a folder, and "train/" stand for "train_images/".

    >>> _names("1.jpg", "airplane"), _names("train/1.jpg", "data")[-2:]
    (['1.jpg', 'airplane/1.jpg'], ['train_images/1.jpg', '1.jpg'])
    """
    names = [image, f"{group}/{image}"]
    folder, _, base = image.rpartition("/")
    return [*names, f"{folder}_images/{base}", base] if folder.lower() in SPLIT_NAMES and base else names


def _split(values: dict[str, Any], group: str, table: Table, where: str) -> str:
    named = split_of({"split": values.get("split") or values.get("set_name")}, where)
    return named or SPLIT_NAMES.get(group.lower()) or table.split or "all"
