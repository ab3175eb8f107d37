"""JSON files that are one list of objects: [{"image": "a.jpg", "text": "a dog"}], as people write for CC3M or LAVIS.

A `.json` file; or a folder with `metadata.json`, with one file a split (`train.json`, `coco_karpathy_train.json`), or with
one such file. Objects about the same image become one sample; a caption may be a list. The file is read an object at a
time, so it may be larger than memory. COCO's and Karpathy's files are objects, not lists, and have readers of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from captrain.data.readers.columns import Columns
from captrain.data.readers.options import BY_LOOKING, ReadOptions
from captrain.data.readers.tables import Listed, Table, gather, has_tables, one_table_each, tables_at, tables_in
from captrain.data.readers.turns import holds_talk
from captrain.disk.reading import open_file
from captrain.errors import DataError
from captrain.limits import LARGEST_LINE, LONG_LINE, shortened
from captrain.records import SURROGATE_HALVES, Rejects, Sample, parse_json

SUFFIXES = (".json",)
CHUNK = 1 << 20  # characters read at a time
LARGEST_LOOK = 1 << 16  # bytes of a file's beginning, to see what it is

_SPACE = " \t\r\n"
_EXAMPLE = 'expected a list like [{"image": ..., "caption": ...}]'


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a .json file that is a list of objects, or a folder with such files."""
    path = Path(source)
    try:
        if path.is_dir():
            return has_tables(path, tables(path, options))
        return path.suffix.lower() in SUFFIXES and path.is_file() and _is_list(path)
    except (OSError, ValueError):
        return False


def tables(folder: Path, options: ReadOptions = BY_LOOKING) -> list[Listed]:
    """The lists of objects with images in a folder: COCO's results, say, name none."""
    columns = Columns(options.image_column, options.caption_column)

    def look(path: Path) -> tuple[bool, bool]:
        try:
            return columns.look(first_row(path))
        except DataError:
            return False, False

    return tables_in(folder, SUFFIXES, look, lambda file: _is_list(file) and not holds_talk(file, first_row, options))


def first_row(path: Path) -> dict[str, Any]:
    """The first object of a list, empty if there is none."""
    return next((values for _, values in objects(path)), {}) if _is_list(path) else {}


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All samples of a list, or of a folder with lists, in the order in which images are first named.

    Rejected are images that are missing or have no caption. Raises `DataError` for what is not a JSON list of objects, an
    object without a file name or with one that leaves the folder, and if nothing is left.
    """
    columns = Columns(options.image_column, options.caption_column)

    def rows(table: Table) -> dict[str, Sequence[Sample]]:
        return gather(table, columns, objects(table.path), rejects, captioned)

    return one_table_each(source, tables_at(source, options, SUFFIXES, tables), rows, rejects, _EXAMPLE)


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and content of each object of a list. Raises `DataError` naming the first thing that is none."""
    reader = Characters(path)
    if not reader.skip("["):
        raise DataError(f"{path}: not a JSON list; {_EXAMPLE}")
    for number in reader.members("]", "object {} of the list"):
        yield number, reader.value(f"{path}:{number}", number)
    if reader.next():
        raise DataError(f"{path}: something follows the list; {_EXAMPLE}")


class Characters:
    """The text of a JSON file, of which only what is being parsed is held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = _opened(path)
        self.text, self.at = "", 0
        self.decode = json.JSONDecoder().raw_decode

    def next(self) -> str:
        """The next character that is not space; "" at the file's end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def skip(self, character: str) -> bool:
        """Go past a character, if it is the next."""
        found = self.next() == character
        self.at += found
        return found

    def members(self, close: str, what: str) -> Iterator[int]:
        """Numbers, from 1, of the members of a list or object that was just opened; each is to be read before the next.

        `what` names a member in the error: "object {} of the list".
        """
        number = 0
        while not self.skip(close):
            if number and not self.skip(","):
                after = f"no comma or {close} after {what.replace('{}', str(number))}"
                raise DataError(f"{self.path}:{number}: {after}, or the file ends there")
            number += 1
            yield number

    def key(self, where: str, what: str) -> str:
        """The next member's key, and go past its colon."""
        key = self.any(where, what)
        if not isinstance(key, str) or not self.skip(":"):
            raise DataError(f"{where}: {what} has no key; expected JSON")
        return key

    def value(self, where: str, number: int) -> dict[str, Any]:
        """The next object."""
        if self.next() != "{":
            raise DataError(f"{where}: entry {number} of the list is no object; {_EXAMPLE}")
        return dict(self.any(where, f"object {number} of the list"))

    def any(self, where: str, what: str) -> Any:
        """The next value, whatever it is; `what` names it in the error."""
        while True:
            self.next()
            try:
                value, at = self.decode(self.text, self.at)
            except (ValueError, RecursionError) as error:
                if isinstance(error, RecursionError) or len(self.text) - self.at > LARGEST_LINE or not self._more():
                    raise DataError(f"{where}: {what} is not valid JSON, or far too long") from None
            else:
                if any(self.text.find(half, self.at, at) >= 0 for half in SURROGATE_HALVES):
                    value = parse_json(self.text[self.at : at])
                if at < len(self.text) or isinstance(value, dict | list | str) or not self._more():  # else "1" of "12"
                    self.at = at
                    return value

    def _more(self) -> bool:
        """Read on, at least as much again as is waiting, so that an object is not parsed over and over."""
        waiting = self.text[self.at :]
        if len(waiting) > LONG_LINE:
            waiting = shortened(waiting)
        try:
            read = self.file.read(max(CHUNK, len(waiting)))
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
        except OSError as error:
            raise DataError(f"{self.path}: can't be read ({error.strerror})") from None
        self.text, self.at = waiting + read, 0
        return bool(read)


def _opened(path: Path) -> Any:
    try:
        return TextIOWrapper(open_file(path), encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: can't be opened ({error.strerror})") from None


def _is_list(path: Path) -> bool:
    """Whether a file begins as a list of objects, or is an empty list."""
    try:
        with open_file(path) as file:
            start = file.read(LARGEST_LOOK).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return False
    return start.startswith(b"[") and start[1:].lstrip()[:1] in (b"{", b"]")
