"""Data formats, one file each.

A format's module has two functions. `recognises(source, options)` says whether the format is what lies there, cheaply and
without raising. `read(source, rejects, options, *, captioned=True)` returns split name → samples. Splits are "train",
"validation", "test", or "all" where the source names none. With `captioned=False`, images without captions are samples too.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from captrain.data.options import BY_LOOKING, ReadOptions
from captrain.data.places import existing, is_remote, refuse_pointer
from captrain.errors import DataError, nearest
from captrain.records import Rejects, Sample

logger = logging.getLogger(__name__)

READERS: dict[str, str] = {  # in the order in which they are tried; `sidecar` takes any folder, so it is the last
    "features": "captrain.data.readers.features",
    "webdataset": "captrain.data.readers.webdataset",
    "datasets": "captrain.data.readers.hub",
    "coco": "captrain.data.readers.coco",
    "karpathy": "captrain.data.readers.karpathy",
    "kohya": "captrain.data.readers.kohya",
    "conversations": "captrain.data.readers.conversations",
    "jsonl": "captrain.data.readers.jsonl",
    "json": "captrain.data.readers.json_list",
    "csv": "captrain.data.readers.csv_table",
    "parquet": "captrain.data.readers.parquet",
    "flickr": "captrain.data.readers.flickr",
    "grouped": "captrain.data.readers.grouped",
    "names": "captrain.data.readers.names",
    "kohya-toml": "captrain.data.readers.kohya_toml",
    "headerless": "captrain.data.readers.headerless",
    "sidecar": "captrain.data.readers.sidecar",
}

SPLIT_NAMES: dict[str, str] = {  # what people call a split → its one name here
    "train": "train",
    "restval": "train",  # of Karpathy's split of COCO, where it is trained on
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "all": "all",
}


class Reader(Protocol):
    """What every format's module offers."""

    def recognises(self, source: str, options: ReadOptions = BY_LOOKING) -> bool: ...

    def read(
        self, source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
    ) -> dict[str, Sequence[Sample]]: ...


def reader(name: str) -> Reader:
    """The module of a format, imported only now."""
    if name not in READERS:
        raise DataError(f"data format '{name}' is unknown: expected {', '.join(READERS)}.{nearest(name, READERS)}")
    return cast(Reader, importlib.import_module(READERS[name]))


def recognises(name: str, source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether a source is of a format; one that the system can't even look at (a name that is too long) is of none."""
    try:
        return reader(name).recognises(source, options)
    except (OSError, ValueError):
        return False


def detect(source: str, options: ReadOptions = BY_LOOKING) -> str:
    """The format's name, by what lies at `source`; tables are looked for by the columns that `options` name.

    Raises `DataError` if nothing does, nothing that a reader reads, or no table that has those columns.
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
        from captrain.data.readers.nothing import unpacking  # which imports this

        if command := unpacking(Path(source).name):
            raise DataError(f"{source}: an archive; unpack it first ({command}), then give the folder")
    raise DataError(
        f"{source}: not a data set; expected a folder of images with captions, a table of them (.jsonl, .json, .csv, .tsv, "
        f".parquet) or .tar shards; --format says which of {', '.join(READERS)} it is"
    )


def _miss_table(source: str, options: ReadOptions) -> None:
    """Raise `DataError` for a folder whose tables lack the columns that a person names; where it has none, say so."""
    from captrain.data.readers.several import columns_seen

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
