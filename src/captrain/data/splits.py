"""Splits: their names, which of them are for training, choosing and testing, and those that a run kept.

A run keeps its splits in its folder, to know later which pictures it was trained on and which it held out. The file has
compressed JSON lines, each with some thousand pictures of a split: {"split": "train", "ids": [...], "contents": [...]}.
Contents are keys of encoded pictures (`captrain.data.picture_files`), null where they are not known. Held-out pictures have
"captions" too: a number for those of each picture, which tells whether they have changed since.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np

from captrain.data.samples import key_of
from captrain.disk.writing import new_file
from captrain.errors import DataError, nearest
from captrain.limits import BROKEN_GZIP, gzipped_lines
from captrain.records import Sample

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

FILE = "splits.jsonl.gz"
EARLIER = "earlier"
"""Pictures that were trained on before: by the model that a run began with, or before its data changed. Found by content."""
TRAINED = ("train", EARLIER)
AT_ONCE = 5000
CONTENT = re.compile(r"([0-9a-f]{32})?")
LEVEL = 3  # of compression: ids shrink to a fifth, keys of content not at all


@dataclass(frozen=True, slots=True)
class Rows:
    """The pictures of a split: their ids, content keys ("" where one is not known), and marks of their captions."""

    ids: Iterable[str]
    contents: Iterable[str] | None = None
    captions: Iterable[int] | None = None


@dataclass(frozen=True, slots=True)
class KeptSplit:
    """One split as it was: ids, their keys (`key_of`), the first half of content keys, and marks of captions.

    What is not known is 0.
    """

    ids: list[str]
    keys: np.ndarray
    contents: np.ndarray
    captions: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class KeptSplits:
    """All splits of a run. Ids of pictures that were trained on are kept as keys alone: there may be millions."""

    parts: Mapping[str, KeptSplit]

    def part(self, name: str) -> KeptSplit:
        """A split; an empty one if the run has none of that name."""
        nothing = np.empty(0, np.uint64)
        return self.parts.get(name, KeptSplit([], nothing, nothing, nothing))

    def trained(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys of ids, and of contents, of all that was ever trained on."""
        contents = [self.part(name).contents for name in TRAINED]
        return self.part("train").keys, known(np.concatenate(contents))


def captions_mark(captions: Sequence[str]) -> int:
    """A number that tells the captions of a picture from others; never 0.

    >>> captions_mark(("a dog", "a brown dog"))
    1884080986
    """
    return zlib.crc32("\n".join(captions).encode("utf-8", "surrogatepass")) or 1


def write_kept_splits(path: Path, splits: Mapping[str, Rows]) -> None:
    """Write the file, whole or not at all; equal splits give equal bytes."""
    with new_file(path) as raw, gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as file:
        for split, rows in splits.items():
            left = zip(rows.ids, rows.contents or repeat(""), rows.captions or repeat(0), strict=False)
            while some := list(islice(left, AT_ONCE)):
                ids, contents, captions = zip(*some, strict=True)
                found = [content or None for content in contents] if any(contents) else None
                line = {"split": split, "ids": ids, "contents": found}
                line |= {"captions": captions} if any(captions) else {}
                file.write(json.dumps(line).encode() + b"\n")


def read_kept_splits(folder: Path) -> KeptSplits | None:
    """The splits of a run folder; None if it has no file of them. Raises `DataError` if that is broken."""
    path = folder / FILE
    if not path.is_file():
        return None
    found: dict[str, list[KeptSplit]] = {}
    for line in _parsed(path):
        split, ids, nothing = line["split"], line["ids"], [0] * len(line["ids"])
        keys = np.array([key_of(id) for id in ids], dtype=np.uint64)
        contents = numbers(content or "" for content in line["contents"] or [""] * len(ids))
        captions = np.array(line.get("captions") or nothing, dtype=np.uint64)
        found.setdefault(split, []).append(KeptSplit([] if split in TRAINED else ids, keys, contents, captions))
    if "train" not in found:
        raise _broken(path, "it has no picture that was trained on")
    return KeptSplits({name: _joined(parts) for name, parts in found.items()})


def read_trained(folder: Path) -> Iterator[tuple[str, str]]:
    """Ids and content keys of the pictures that a run was trained on; none if it does not say."""
    if (folder / FILE).is_file():
        for line in _parsed(folder / FILE):
            if line["split"] in TRAINED:
                yield from zip(line["ids"], line["contents"] or repeat(""), strict=False)


def run_folder_of(model: str) -> Path | None:
    """The run folder that a captioner is in: given itself, or by its model folder; None if it is in none.

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
    """Without those that are not known: two unknown ones are not the same picture."""
    return contents[contents != 0]


def _parsed(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for text in gzipped_lines(path):
            line = json.loads(text)
            _check(line)
            yield line
    except (*BROKEN_GZIP, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise _broken(path, " ".join(str(error).split())[:100]) from None


def _check(line: dict[str, Any]) -> None:
    """Raise `ValueError`, `KeyError` or `TypeError` for a line that `write_kept_splits` does not write."""
    ids, contents, captions = line["ids"], line["contents"], line.get("captions")
    if any(len(ids) != len(other or ids) for other in (contents, captions)):
        raise ValueError("ids, contents and captions differ in number")
    if not all(isinstance(id, str) for id in [line["split"], *ids]):
        raise TypeError("a name is not text")
    if not all(CONTENT.fullmatch(content or "") for content in contents or ()):
        raise ValueError("a key of content is not one")
    np.array(captions or [0], dtype=np.uint64)


def _broken(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: can't be read as the splits of a run ({reason}); copy it again, or remove it to draw them again"
    )


def _joined(parts: list[KeptSplit]) -> KeptSplit:
    return KeptSplit(
        [id for part in parts for id in part.ids],
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.contents for part in parts]),
        np.concatenate([part.captions for part in parts]),
    )


@dataclass(frozen=True, slots=True)
class SplitNames:
    """Which of a data set's splits are for what. None: by their usual names; (): nothing is."""

    train: Sequence[str] | None = None
    validation: Sequence[str] | None = None
    test: Sequence[str] | None = None


USUAL = SplitNames()


@dataclass(frozen=True, slots=True)
class Roles:
    """The data's own names of the splits for each purpose. With `draws`, validation pictures are drawn from those to train on."""

    train: list[str]
    validation: list[str]
    test: list[str]
    draws: bool

    def of(self, role: str) -> list[str]:
        """The splits for a purpose; empty for another word."""
        return {"train": self.train, "validation": self.validation, "test": self.test}.get(role, [])


def roles_of(path: str, named: Mapping[str, Sequence[Sample]], names: SplitNames = USUAL) -> Roles:
    """What each of the splits `named` is for: as `names` says, else by their usual names; training pictures have no other use.

    Raises `DataError` where `names` has a split that the data does not have.
    """
    train = own_names(path, named, names.train, [name for name in ("train", "all") if name in named][:1])
    free = [name for name in named if name not in train]
    validation = own_names(path, named, names.validation, [name for name in free if name == "validation"])
    test = own_names(path, named, names.test, [name for name in free if name == "test"])
    return Roles(train, validation, test, draws=not validation and names.validation is None)


def own_names(
    path: str, named: Mapping[str, Sequence[Sample]], wanted: Sequence[str] | None, usual: Sequence[str]
) -> list[str]:
    """The data's own names of the wanted splits, each once; without any wanted, the usual ones.

    Raises `DataError` as `own_name` does.
    """
    if wanted is None:
        return list(usual)
    return list(dict.fromkeys(own_name(path, named, name) for name in wanted))


def own_name(path: str, named: Mapping[str, Sequence[Sample]], name: str) -> str:
    """What the data calls a split: as it was asked for, or by its usual name. Raises `DataError` if there is none."""
    own = name if name in named else SPLIT_NAMES.get(name.lower(), name)
    if own not in named:
        raise DataError(f"{path}: no split '{name}'; it has {listed_splits(named)}.{nearest(name, named)}")
    return own


def listed_splits(named: Mapping[str, Sequence[Sample]]) -> str:
    """Names of splits, for people."""
    return ", ".join(f"'{name}'" for name in named)
