"""The data formats that captrain reads: `READERS` has the module of each, imported when it is asked for.

A format's module has two functions. `recognises(source, options)` says whether a source is of the format. It is cheap and
never raises. `read(source, rejects, options, *, captioned=True)` returns the samples of each split by its name: "train",
"validation", "test", or "all" where the source names none. With `captioned=False`, images without captions are samples too.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.errors import DataError, nearest
from captrain.records import Rejects, Sample


class Format(NamedTuple):
    """Where a format's module is, and whether it reads a whole folder; other formats are files that list pictures by name."""

    module: str
    whole_folder: bool = False


READERS: dict[str, Format] = {  # in the order in which they are tried; `sidecar` takes any folder, so it is the last
    "features": Format("captrain.data.readers.features", whole_folder=True),
    "webdataset": Format("captrain.data.readers.webdataset", whole_folder=True),
    "datasets": Format("captrain.data.readers.hub", whole_folder=True),
    "coco": Format("captrain.data.readers.coco"),
    "karpathy": Format("captrain.data.readers.karpathy"),
    "kohya": Format("captrain.data.readers.kohya", whole_folder=True),
    "conversations": Format("captrain.data.readers.conversations"),
    "jsonl": Format("captrain.data.readers.jsonl"),
    "json": Format("captrain.data.readers.json_list"),
    "csv": Format("captrain.data.readers.csv_table"),
    "parquet": Format("captrain.data.readers.parquet"),
    "flickr": Format("captrain.data.readers.flickr"),
    "grouped": Format("captrain.data.readers.grouped"),
    "names": Format("captrain.data.readers.names"),
    "kohya-toml": Format("captrain.data.readers.kohya_toml", whole_folder=True),
    "headerless": Format("captrain.data.readers.headerless"),
    "sidecar": Format("captrain.data.readers.sidecar", whole_folder=True),
}


class FormatReader(Protocol):
    """What every format's module offers."""

    def recognises(self, source: str, options: ReadOptions = BY_LOOKING) -> bool: ...

    def read(
        self, source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
    ) -> dict[str, Sequence[Sample]]: ...


def reader(name: str) -> FormatReader:
    """The module of a format, imported only now."""
    if name not in READERS:
        raise DataError(f"data format '{name}' is unknown: expected {', '.join(READERS)}.{nearest(name, READERS)}")
    return cast(FormatReader, importlib.import_module(READERS[name].module))


def recognises(name: str, source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether a source is of a format; False for one that the system can't look at (a name that is too long)."""
    try:
        return reader(name).recognises(source, options)
    except (OSError, ValueError):
        return False
