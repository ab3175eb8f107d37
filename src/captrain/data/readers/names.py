"""JSON objects from pictures to captions: {"a.jpg": "a dog", "b.jpg": ["a cat", "a black cat"]}.

A caption may be a string, a list of them, or an object with one (`{"caption": "a dog"}`). The entries may be in objects
that are called by splits ({"train": {"a.jpg": "a dog"}, "val": ...}) or `captions`, `images`, `annotations`, `data`.
The file is read an entry at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers.columns import Columns, encodable
from captrain.data.readers.json_entries import (
    JsonEntry,
    captions_in,
    captions_or_reject,
    ends_as_picture,
    entries,
    files_at,
    found_below,
    is_data_set,
    with_unlisted,
)
from captrain.data.readers.json_objects import ends_of
from captrain.data.readers.tables import TableFile, check_row_splits, one_table_each
from captrain.data.safe_paths import Root
from captrain.data.splits import SPLIT_NAMES
from captrain.errors import DataError
from captrain.records import Rejects, Sample
from captrain.tabular.cells import says_nothing

SUFFIXES = (".json",)
WRAPPERS = frozenset({"captions", "images", "annotations", "data", "metadata"})
MOST_LOOKED_AT = 20  # entries of a file that are looked at for a picture with captions

_EXAMPLE = 'expected entries like {"dog.jpg": ["a dog runs"]}'


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a .json file from pictures to captions, or a folder with some and no caption files: by first entries."""
    return is_data_set(source, SUFFIXES, partial(_is_names, options=options), options)


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All pictures by split, in the file's order; ids are the paths they are found under.

    Rejected are pictures that are missing, without caption, or may be several, and captions that are no text. Raises
    `DataError` for what is no JSON object, a name that leaves the folder, and if nothing is left.
    """
    columns = Columns("", options.caption_column)

    def rows(table: TableFile) -> dict[str, Sequence[Sample]]:
        return _read_table(table, columns, rejects, captioned, _first(table.path, options))

    tables = files_at(source, options, SUFFIXES, partial(_is_names, options=options))
    splits = one_table_each(source, tables, rows, rejects, _EXAMPLE)
    return with_unlisted(splits, source, options, captioned)


def _is_group(key: str) -> bool:
    return key.lower() in SPLIT_NAMES or key.lower() in WRAPPERS


def _is_names(path: Path, options: ReadOptions) -> bool:
    return _first(path, options) is not None


def _first(path: Path, options: ReadOptions) -> JsonEntry | None:
    """The first entry of a file that has captions and is called as a picture is; None if none of the first ones is."""
    if not ends_of(path).startswith(b"{"):
        return None
    root = Root(path.parent, follow_links=options.follow_links)
    try:
        for entry in islice(entries(path, _is_group), MOST_LOOKED_AT):
            said = captions_in(entry.value, Columns(), "") if entry.key else []
            captions = [text for text in said if not says_nothing(text)]
            is_picture = ends_as_picture(entry.key) or (bool(captions) and found_below(root, entry.key) is not None)
            if captions and is_picture and not ends_as_picture(captions[0]):
                return entry
    except DataError:
        return None
    return None


def _read_table(
    table: TableFile, columns: Columns, rejects: Rejects, captioned: bool, first: JsonEntry | None
) -> dict[str, Sequence[Sample]]:
    gathered = table.gathered()
    for entry in entries(table.path, _is_group):
        if first is not None and bool(first.group) != bool(entry.group):
            continue  # what stands beside {"images": {...}} is about the file
        name = encodable(entry.key) or entry.group
        texts = captions_or_reject(entry.value, columns, f"{table.path}:{entry.number}", name, rejects)
        if texts is not None:
            split = SPLIT_NAMES.get(entry.group.lower()) or table.split or "all"
            gathered.add(name, texts, entry.number, rejects, split)
    check_row_splits(gathered.names, table)
    return gathered.samples(rejects, captioned=captioned)
