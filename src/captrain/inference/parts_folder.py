"""Captions of a collection while it is being captioned: a folder `OUT.parts` with one file per part, joined into OUT at the end.

A part's file begins with a line that notes what it is of; its captions follow, then its rejected pictures, as JSON lines. A file
that can be seen is whole. The folder says what model and which settings write it, so that nobody continues with different ones.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from captrain.data.feature_store.layout import StoreFolder, is_temporary
from captrain.data.samples import key_of
from captrain.disk.folders import check_way, remove
from captrain.disk.writing import new_file
from captrain.errors import DataError
from captrain.records import Rejects, lines_with_ids, parse_json_line

ABOUT = "about.json"
BEFORE = "before.jsonl"
"""Captions that OUT had when this was begun; they stay."""
JOINED = "joined"
"""In place of what is noted when OUT is whole, or is to be written again: what is left may go."""
LARGEST_NOTE = 1 << 16
SAME = ("decoding", "prompt", "preparation", "precision", "part_images")


@dataclass(frozen=True, slots=True)
class CaptionPartNote:
    """What is known of a written part: of which source, what that was, and how many lines follow."""

    name: str
    source: str
    fingerprint: str
    part: int
    last: bool
    captions: int
    rejected: int


@dataclass(slots=True)
class CaptionPart:
    """A finished part in memory."""

    note: CaptionPartNote
    lines: list[dict[str, Any]]
    rejects: Rejects

    @property
    def last(self) -> bool:
        """Whether it is its source's last."""
        return self.note.last


@dataclass
class PartsFolder:
    """The folder beside OUT. `done` has the notes of all parts that are there, by name."""

    output: Path
    done: dict[str, CaptionPartNote] = field(default_factory=dict)

    @property
    def folder(self) -> StoreFolder:
        """Its files."""
        return StoreFolder(f"{self.output}.parts")

    def about(self) -> dict[str, Any] | None:
        """What writes it; None if nothing was begun. Raises `DataError` if captrain did not write it, `UserError` for a link."""
        check_way(Path(self.folder.place), self.output.parent)
        if not self.folder.exists(ABOUT):
            return None
        return parse_json_line(self.folder.read(ABOUT, LARGEST_NOTE), self.folder.where(ABOUT))

    def begin(self, about: Mapping[str, Any], *, from_scratch: bool) -> None:
        """Begin, or continue what was begun, unless everything is to be written `from_scratch`.

        Raises `DataError` if that was with another model or other settings, or the folder holds something else.
        """
        found = self.about()
        if found is not None and (from_scratch or JOINED in found):
            self.clear()
        elif found is not None:
            check_same_settings(self.folder.label, found, about)
            self._look()
            return
        if any(name != BEFORE and not is_temporary(name) for name in self.folder.names("")):
            raise DataError(f"{self.folder.label}: holds other files; expected a folder of captrain, or none")
        self.folder.remove(BEFORE)
        if self.output.exists() and not from_scratch:
            self.folder.write(BEFORE, map(_line, lines_with_ids(self.output)))
        self.folder.write(ABOUT, [_line(about)])

    def known(self) -> np.ndarray:
        """`key_of` each id that had a caption before, sorted, as uint64."""
        path = self._path(BEFORE)
        keys = array("Q", (key_of(str(line["id"])) for line in lines_with_ids(path)) if path.exists() else ())
        return np.sort(np.array(keys, dtype=np.uint64))

    def write(self, part: CaptionPart) -> CaptionPartNote:
        """Write a part's file."""
        lines = ([asdict(part.note)], part.lines, part.rejects.lines)
        self.folder.write(f"{part.note.name}.jsonl", (_line(line) for group in lines for line in group))
        self.done[part.note.name] = part.note
        return part.note

    def find(self, name: str) -> CaptionPartNote | None:
        """The note of a part, if it is there. Raises `DataError` if captrain did not write it."""
        path = self._path(f"{name}.jsonl")
        try:
            with path.open("rb") as file:
                line = file.readline(LARGEST_NOTE)
        except FileNotFoundError:
            return None
        found = parse_json_line(line, f"{path}:1")
        kinds = {field.name: field.type for field in fields(CaptionPartNote)}
        if {key: type(value).__name__ for key, value in found.items()} != kinds or found["name"] != name:
            raise DataError(f"{path}:1: not what captrain writes; remove {self.folder.label} and begin again")
        return CaptionPartNote(**found)

    def forget(self, names: Iterable[str]) -> None:
        """Take parts back."""
        for name in names:
            self.done.pop(name, None)
            self.folder.remove(f"{name}.jsonl")

    def empty(self) -> PartsFolder:
        """The same without knowledge of parts, for another machine."""
        bare = copy(self)
        bare.done = {}
        return bare

    def join(self, names: Sequence[str], rejects: Rejects, rejects_path: Path) -> int:
        """Write OUT and the list of rejected pictures from parts, in this order; returns how many were rejected."""
        rejected = len(rejects) + sum(self.done[name].rejected for name in names)
        with ExitStack() as stack:
            captions = stack.enter_context(new_file(self.output))
            listed = stack.enter_context(new_file(rejects_path)) if rejected else None
            if (before := self._path(BEFORE)).exists():
                captions.writelines(stack.enter_context(before.open("rb")))
            if listed:
                listed.writelines(map(_line, rejects.lines))
            for name in names:
                with self._path(f"{name}.jsonl").open("rb") as file:
                    captions.writelines(islice(file, 1, 1 + self.done[name].captions))
                    if listed:
                        listed.writelines(file)
        if not rejected:
            remove(rejects_path)
        return rejected

    def clear(self) -> None:
        """Remove all files that captrain wrote there; when this is interrupted, the next start goes on with it."""
        self.folder.write(ABOUT, [_line({JOINED: True})])
        names = [name for name in self.folder.names("") if name.endswith(".jsonl") or is_temporary(name)]
        for name in [*names, ABOUT]:
            self.folder.remove(name)
        self.done.clear()

    def leave(self) -> None:
        """Remove the folder if nothing is in it."""
        try:
            os.rmdir(self.folder.place)
        except OSError:
            return

    def _look(self) -> None:
        """Find the parts that are there."""
        for name in self.folder.names(""):
            if is_temporary(name):
                self.folder.remove(name)
            elif name.endswith(".jsonl") and name != BEFORE and (note := self.find(name.removesuffix(".jsonl"))):
                self.done[note.name] = note

    def _path(self, name: str) -> Path:
        return Path(self.folder.place, name)


def check_same_settings(label: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise `DataError` naming what differs, unless captions were begun with the present settings.

    >>> check_same_settings("a.parts", {"model": "m", "weights": "x"}, {"model": "n", "weights": "y"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    captrain.errors.DataError: a.parts: holds captions of m (weights x), not of n (weights y); give another --output, or ...
    """
    change = "give another --output, or --existing overwrite"
    if found.get("weights") != wanted["weights"]:
        names = [f"{one.get('model')} (weights {str(one.get('weights'))[:12]})" for one in (found, wanted)]
        raise DataError(f"{label}: holds captions of {names[0]}, not of {names[1]}; {change}")
    for name in SAME:
        old, new = found.get(name), wanted[name]
        if old != new:
            what = " and ".join(_differences(name, old, new))
            raise DataError(f"{label}: holds captions written with {what}; go on with the same, or {change}")


def _differences(name: str, old: Any, new: Any) -> Iterator[str]:
    """What differs, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in new.items():
            if old.get(key) != value:
                yield f"{key} {old.get(key)}, not {value}"
    else:
        yield f"{name.replace('_', ' ')} {old!r}, not {new!r}"


def _line(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "replace")
