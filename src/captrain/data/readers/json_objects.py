"""One large JSON object in a file: a look at it, and its parts with errors that say where. What several readers share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from captrain.data.read_options import ReadOptions
from captrain.data.readers.columns import encodable
from captrain.data.safe_paths import Root, existing, is_hidden, refuse_pointer
from captrain.disk.reading import open_file, read_file
from captrain.errors import DataError
from captrain.records import parse_json

LARGEST_FILE = 4 << 30  # bytes; such a file is read into memory whole, at several times its size
LONGEST_NAME = 4096  # bytes of a path; no system takes longer ones
MOST_FILES = 20  # .json files in a folder of which one may be a data set; more are something else, one per image say

_BOM = b"\xef\xbb\xbf"
_GLANCE = 64 << 10  # bytes


def has_keys(path: Path, *keys: str) -> bool:
    """Whether a .json file looks like an object with such keys somewhere in it, by its ends."""
    ends = ends_of(path)
    return ends.startswith(b"{") and all(re.search(rb'"%s"\s*:' % key.encode(), ends) for key in keys)


def ends_of(path: Path) -> bytes:
    """The first and last kilobytes of a .json file, without what may stand before JSON; b"" if it can't be read."""
    try:
        if path.suffix.lower() != ".json" or not path.is_file():
            return b""
        with open_file(path) as file:
            ends = file.read(_GLANCE)
            if (size := path.stat().st_size) > len(ends):
                file.seek(max(len(ends), size - _GLANCE))
                ends += file.read(_GLANCE)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return b""
    return ends.removeprefix(_BOM).lstrip()


def json_files(folder: Path, are: Callable[[Path], bool]) -> list[Path]:
    """The .json files right in a folder that are of a form, sorted; none if it has too many, or can't be listed."""
    try:
        files = list(islice((file for file in folder.glob("*.json") if not is_hidden(file.name)), MOST_FILES + 1))
    except OSError:
        return []
    return [] if len(files) > MOST_FILES else [file for file in sorted(files) if are(file)]


def image_root(folder: Path, options: ReadOptions) -> Root:
    """The folder that image names are relative to: `options.image_root`, else `folder`."""
    if options.image_root is None:
        return Root(folder, follow_links=options.follow_links)
    if not existing(options.image_root).is_dir():
        raise DataError(f"image_root {options.image_root}: not a folder; expected the folder that holds the images")
    return Root(options.image_root, given=True, follow_links=options.follow_links)


def first_found(root: Root, names: Sequence[str], where: str) -> str:
    """Where the first of several names of an image that leads to a file leads; the first of all if none does."""
    return root.first(names, where) or names[0]


def load_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds. Raises `DataError` if it holds something else or is over `LARGEST_FILE`."""
    refuse_pointer(path)
    try:
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise DataError(f"{path}: {size} bytes, over {LARGEST_FILE}; split the file, or make it a .jsonl table")
        value = parse_json(read_file(path).decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except RecursionError:
        raise DataError(f"{path}: JSON that is nested too deeply; expected an object of images and captions") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: found a JSON {type(value).__name__}, expected an object")
    return value


def objects_at(content: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """The list of objects under a key. Raises `DataError` for anything else, naming the entry."""
    value = content.get(key)
    if not isinstance(value, list):
        raise wrong(value, key, where, "a list of objects")
    for number, entry in enumerate(value, start=1):
        if not isinstance(entry, dict):
            raise DataError(f"{where}: entry {number} of '{key}' is a {type(entry).__name__}; expected an object")
    return value


def text_at(entry: dict[str, Any], key: str, where: str) -> str:
    """The string under a key. Raises `DataError` for anything else."""
    value = entry.get(key)
    if not isinstance(value, str):
        raise wrong(value, key, where, "a string")
    return value


def caption_at(entry: dict[str, Any], key: str, where: str) -> str:
    """The caption under a key; null or a number as text, which is no caption (`tabular.cells`). Raises as `text_at`."""
    value = entry.get(key)
    if key in entry and (value is None or isinstance(value, int | float)):
        return "null" if value is None or isinstance(value, bool) else str(value)
    return text_at(entry, key, where)


def name_at(entry: dict[str, Any], key: str, where: str) -> str:
    """The path under a key. Raises `DataError` if it is not one."""
    name = encodable(text_at(entry, key, where))
    if not name.strip() or len(name.encode()) > LONGEST_NAME or any(letter in name for letter in "\n\r\0"):
        raise DataError(f"{where}: '{key}' is {name[:80]!r}; expected the path of an image")
    return name


def wrong(value: object, key: str, where: str, expected: str) -> DataError:
    """The error for a key with another value than expected."""
    found = f"no '{key}'" if value is None else f"a {type(value).__name__} in '{key}'"
    return DataError(f"{where}: found {found}; expected {expected}")
