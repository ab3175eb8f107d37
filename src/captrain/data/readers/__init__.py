"""Data formats, one file each.

A reader is a function `read(path, rejects, *, captioned=True)` that returns split name → samples. Splits are "train",
"validation", "test", or "all" where the source names none. With `captioned=False`, images without captions are samples
too.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from captrain.data.places import existing
from captrain.errors import DataError, nearest
from captrain.records import Rejects, Sample

READERS: dict[str, str] = {
    "jsonl": "captrain.data.readers.jsonl:read",
    "sidecar": "captrain.data.readers.sidecar:read",
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
    """What every format offers."""

    def __call__(self, path: Path, rejects: Rejects, *, captioned: bool = True) -> dict[str, Sequence[Sample]]: ...


def reader(name: str) -> Reader:
    """The reader of a format, imported only now."""
    if name not in READERS:
        raise DataError(f"data format '{name}' is unknown: expected {', '.join(READERS)}.{nearest(name, READERS)}")
    module, function = READERS[name].split(":")
    return cast(Reader, getattr(importlib.import_module(module), function))


def detect(path: Path) -> str:
    """The format's name, by what lies at `path`.

    Raises `DataError` if nothing does, or nothing that a reader reads.
    """
    existing(path)
    if path.is_file():
        if path.suffix.lower() == ".jsonl":
            return "jsonl"
        raise DataError(f"{path}: not a data set; expected a folder of images with .txt captions, or a .jsonl file")
    from captrain.data.readers.jsonl import tables

    return "jsonl" if tables(path) else "sidecar"
