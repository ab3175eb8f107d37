"""JSON objects of lists: {"train": [{"image_path": ["1/0.png", "1/1.png"], "report": "..."}], "val": [...]}.

R2Gen's `annotation.json` (a report is the caption of each of its pictures), TextCaps (`data`), NWPU-Captions (a list for
each class, with raw, raw_1, ...), and other files whose lists hold objects that name a picture and its captions.

A list's key may be a split, or the folder that its pictures are in. The file is read an object at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers.columns import IMAGE_COLUMNS, Columns, encodable, present, split_of, value_at
from captrain.data.readers.json_entries import (
    captions_or_reject,
    ends_as_picture,
    entries,
    files_at,
    found_below,
    is_data_set,
    row_captions,
    with_unlisted,
)
from captrain.data.readers.json_objects import ends_of
from captrain.data.readers.tables import TableFile, check_row_splits, one_table_each
from captrain.data.safe_paths import Root
from captrain.data.splits import SPLIT_NAMES
from captrain.errors import DataError
from captrain.records import Rejects, Sample

SUFFIXES = (".json",)
BY_IDS = "annotations"  # a list whose rows name images by their ids
MOST_LOOKED_AT = 20  # entries of a file that are looked at for one that names a picture and its captions

_IMAGE_COLUMNS = (*IMAGE_COLUMNS, "image_paths", "images", "image_id")
_EXAMPLE = 'expected lists like {"train": [{"image_path": ..., "report": ...}]}'


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a .json file of such lists, or a folder with some and no caption files: by first entries."""
    return is_data_set(source, SUFFIXES, partial(_is_grouped, options=options), options)


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All pictures of the lists by split, in the file's order; ids are the paths they are found under.

    Rejected are pictures that are missing, without caption, or may be several, and objects of another form. Raises
    `DataError` for what is no JSON object, an unknown split, a name that leaves the folder, and if nothing is left.
    """
    columns = Columns(options.image_column, options.caption_column)

    def rows(table: TableFile) -> dict[str, Sequence[Sample]]:
        return _read_table(table, columns, rejects, captioned)

    tables = files_at(source, options, SUFFIXES, partial(_is_grouped, options=options))
    splits = one_table_each(source, tables, rows, rejects, _EXAMPLE)
    return with_unlisted(splits, source, options, captioned)


def _is_grouped(path: Path, options: ReadOptions) -> bool:
    if not ends_of(path).startswith(b"{"):
        return False
    try:
        first = list(islice(entries(path, _any), MOST_LOOKED_AT))
    except DataError:
        return False
    # If what is below a picture's name describes it, even if that names the picture again, `names` reads it.
    rows = [entry for entry in first if not entry.key and not ends_as_picture(entry.group) and _is_row(entry.value)]
    return any(
        entry.group != BY_IDS or _leads_to_one(entry.value, Root(path.parent, follow_links=options.follow_links))
        for entry in rows
    )


def _leads_to_one(values: dict[str, Any], root: Root) -> bool:
    """Whether a row's picture is there: annotations may be for scores alone, with ids that name no file."""
    return any(ends_as_picture(name) or found_below(root, name) is not None for name in _images(values, Columns()))


def _is_row(value: Any) -> bool:
    """Whether a list's entry names pictures and says something of them."""
    try:
        return isinstance(value, dict) and bool(_images(value, Columns())) and bool(row_captions(value, Columns(), ""))
    except DataError:
        return False


def _any(key: str) -> bool:
    return True


def _read_table(table: TableFile, columns: Columns, rejects: Rejects, captioned: bool) -> dict[str, Sequence[Sample]]:
    gathered, places = table.gathered(), _Places(table.root)
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
        split = _split(values, entry.group, table, where)
        for image in images:
            name = places.named(image, entry.group, where)
            gathered.add(name, texts, entry.number, rejects, split)
    check_row_splits(gathered.names, table)
    return gathered.samples(rejects, captioned=captioned)


def _images(values: dict[str, Any], columns: Columns) -> list[str]:
    """The pictures that an object is about."""
    given = columns.given_image
    found = [value_at(values, given)] if given else [values[key] for key in present(_IMAGE_COLUMNS, tuple(values))]
    for value in found:
        parts = value if isinstance(value, list) else [value]
        names = [str(part) for part in parts if isinstance(part, str | int) and not isinstance(part, bool)]
        if len(names) == len(parts) and all(name.strip() for name in names) and names:
            return [encodable(name) for name in names]
    return []


class _Places:
    """Where the pictures of a list are: its key may be their folder, and "train/" may mean "train_images/"."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.by_key = False  # whether pictures are in folders that are called as their lists are

    @cached_property
    def folders(self) -> set[str]:
        """What the folders that hold pictures are called."""
        return {folder.rpartition("/")[2] for folder in self.root.index.folders()}

    def named(self, image: str, key: str, where: str) -> str:
        """A picture's path below the root, else its name. If lists have folders, only its own list's folder counts."""
        folder, _, base = image.rpartition("/")
        names = [image, f"{key}/{image}", f"{key}_images/{image}"]
        names += [f"{folder}_images/{base}", base] if folder.lower() in SPLIT_NAMES and base else []
        found = next((found for name in names if (found := self.root.exact(name, where))), None)
        if not found and not folder and (self.by_key or key in self.folders):
            names = names[1:2]
        found = found or self.root.first(names, where)
        self.by_key |= found is not None and found.split("/")[-2:-1] == [key]
        return found or names[0]


def _split(values: dict[str, Any], group: str, table: TableFile, where: str) -> str:
    named = split_of({"split": values.get("split") or values.get("set_name")}, where)
    return named or SPLIT_NAMES.get(group.lower()) or table.split or "all"
