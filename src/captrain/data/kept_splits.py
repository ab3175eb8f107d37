"""The splits of a run, kept in its folder: which pictures it was trained on, and which it held out.

JSON lines, compressed, each with some thousand pictures of a split: {"split": "train", "ids": [...], "contents": [...]}.
Contents are keys of encoded pictures (`captrain.data.content`), null where they are not known.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np

from captrain.data.samples import key_of
from captrain.errors import DataError

FILE = "splits.jsonl.gz"
EARLIER = "earlier"
"""Pictures that were trained on before: by the model that a run began with, or before its data changed. Content tells them."""
TRAINED = ("train", EARLIER)
AT_ONCE = 5000
LEVEL = 3  # of compression: ids shrink to a fifth, keys of content not at all

Rows = Mapping[str, tuple[Iterable[str], Iterable[str] | None]]
"""For each split the ids of its pictures, and their content keys ("" where one is not known)."""


@dataclass(frozen=True, slots=True)
class KeptSplit:
    """One split as it was: ids, their keys (`key_of`), and the first half of content keys, 0 where one is not known."""

    ids: list[str]
    keys: np.ndarray
    contents: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class KeptSplits:
    """All splits of a run. Ids of pictures that were trained on are kept as keys alone: there may be millions."""

    parts: Mapping[str, KeptSplit]

    def part(self, name: str) -> KeptSplit:
        """A split; an empty one where the run has none of that name."""
        nothing = np.empty(0, np.uint64)
        return self.parts.get(name, KeptSplit([], nothing, nothing))

    def trained(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys of ids, and of contents, of all that was ever trained on."""
        contents = [self.part(name).contents for name in TRAINED]
        return self.part("train").keys, known(np.concatenate(contents))


def write_kept_splits(path: Path, rows: Rows) -> None:
    """Write the file, whole or not at all; equal splits give equal bytes."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as raw, gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as file:
        for split, (ids, contents) in rows.items():
            left = zip(ids, repeat("") if contents is None else contents, strict=False)
            while some := list(islice(left, AT_ONCE)):
                found = [content or None for _, content in some]
                line = {"split": split, "ids": [id for id, _ in some], "contents": found if any(found) else None}
                file.write(json.dumps(line).encode() + b"\n")
    os.replace(temporary, path)


def read_kept_splits(folder: Path) -> KeptSplits | None:
    """The splits of a run folder; None if it has no file of them. Raises `DataError` if that is broken."""
    path = folder / FILE
    if not path.is_file():
        return None
    found: dict[str, list[KeptSplit]] = {}
    for split, ids, contents in _lines(path):
        keys = np.array([key_of(id) for id in ids], dtype=np.uint64)
        found.setdefault(split, []).append(KeptSplit([] if split in TRAINED else ids, keys, contents))
    if "train" not in found:
        raise _broken(path, "it has no picture that was trained on")
    return KeptSplits({name: _joined(parts) for name, parts in found.items()})


def read_trained(folder: Path) -> Iterator[tuple[str, str]]:
    """Ids and content keys of the pictures that a run was trained on; none where it does not say."""
    if (folder / FILE).is_file():
        for line in _parsed(folder / FILE):
            if line["split"] in TRAINED:
                yield from zip(line["ids"], line["contents"] or repeat(""), strict=False)


def run_folder_of(model: str) -> Path | None:
    """The run folder that a captioner lies in: given itself, or by its model folder; None if it is in none.

    >>> run_folder_of("no/such/folder") is None
    True
    """
    path = Path(model)
    places = (path, path.parent) if path.name == "model" else (path,)
    return next((place for place in places if (place / "settings.yaml").is_file()), None)


def numbers(contents: Iterable[str]) -> np.ndarray:
    """The first half of content keys as uint64, 0 of "" (one that is not known).

    >>> numbers(["00000000000000ff00000000000000aa", ""]).tolist()
    [255, 0]
    """
    return np.array([int(content[:16], 16) if content else 0 for content in contents], dtype=np.uint64)


def known(contents: np.ndarray) -> np.ndarray:
    """Without those that are not known: two of these are not the same picture."""
    return contents[contents != 0]


def _lines(path: Path) -> Iterator[tuple[str, list[str], np.ndarray]]:
    for line in _parsed(path):
        ids = line["ids"]
        contents = line["contents"]
        found = np.zeros(len(ids), np.uint64) if contents is None else numbers(content or "" for content in contents)
        yield line["split"], ids, found


def _parsed(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for text in file:
                line = json.loads(text)
                if len(line["ids"]) != len(line["contents"] or line["ids"]) or not isinstance(line["split"], str):
                    raise ValueError("ids and contents differ in number")
                yield line
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise _broken(path, " ".join(str(error).split())[:100]) from None


def _broken(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: can't be read as the splits of a run ({reason}); copy it again, or remove it to draw them anew"
    )


def _joined(parts: list[KeptSplit]) -> KeptSplit:
    return KeptSplit(
        [id for part in parts for id in part.ids],
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.contents for part in parts]),
    )
