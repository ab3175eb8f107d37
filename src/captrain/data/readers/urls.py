"""Which local file was downloaded from which web address, for tables of addresses (Conceptual Captions, LAION's)."""

from __future__ import annotations

import posixpath
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

from captrain.data.caption_buffers import FlatTexts
from captrain.data.readers.tables import TableFile, refuse_links
from captrain.data.samples import key_of
from captrain.disk.reading import open_file, read_file
from captrain.errors import DataError
from captrain.records import parse_json

URL_COLUMNS = ("url", "image_url", "img_url", "image_link")
LARGEST_LINE = 1 << 16  # bytes of a map

_NOT_ONE = "several addresses end in the same name; say in map.tsv which file is from which"


def is_url(text: str) -> bool:
    """Whether a cell is a web address.

    >>> is_url("https://example.org/dog.jpg"), is_url("a dog: see http://example.org")
    (True, False)
    """
    return text.lower().startswith(("http://", "https://")) and not any(map(str.isspace, text))


def last_part(url: str) -> str:
    """The name that an address ends in, "" if it ends in none.

    >>> last_part("https://example.org/a/my%20dog.jpg?width=400")
    'my dog.jpg'
    """
    try:
        return unquote(posixpath.basename(urlsplit(url).path)).replace("/", "_")
    except ValueError:  # a broken address: "http://[x"
        return ""


class UrlFiles:
    """From a web address to a file name: by a map where there is one, else by the name that the address ends in."""

    def __init__(self, table: TableFile, urls: Iterable[str]) -> None:
        """`urls` are all addresses of the table: names that two of them end in can't be used."""
        self.map = _map_of(table)
        self.shared = frozenset() if self.map else _shared_names(urls)

    def find(self, url: str) -> tuple[str, str]:
        """An address's file name, or "" and the reason why it has none."""
        if self.map:
            name = self.map.get(url)
            return name, "" if name else f"has an address that {self.map.path.name} does not list"
        name = last_part(url)
        if key_of(name) in self.shared:
            return "", _NOT_ONE
        return name, "" if name else "has an address that ends in no file name"


class UrlMap:
    """The lines of a map, as a few bytes each: names end to end, found by the keys of their addresses."""

    def __init__(self, path: Path, pairs: Iterable[tuple[str, str]]) -> None:
        self.path = path
        self.names = FlatTexts()
        keys = array("Q")
        for url, name in pairs:
            keys.append(key_of(url))
            self.names.append(name)
        self.order = np.argsort(np.array(keys, dtype=np.uint64), kind="stable")
        self.keys = np.array(keys, dtype=np.uint64)[self.order]

    def get(self, url: str) -> str:
        """The file name of an address, "" if the map has none."""
        key = np.uint64(key_of(url))
        place = int(np.searchsorted(self.keys, key))
        return self.names[int(self.order[place])] if place < len(self.keys) and self.keys[place] == key else ""


def _map_of(table: TableFile) -> UrlMap | None:
    names = (f"{table.path.stem}.map.tsv", "map.tsv", "map.json")
    for folder in (table.path.parent, table.root.folder):
        for name in names:
            if (path := folder / name).is_file():
                refuse_links(folder, [path], table.root.follow_links)
                return UrlMap(path, _pairs(path))
    return None


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    """The addresses of a map and their files."""
    try:
        yield from _json_pairs(path) if path.suffix == ".json" else _tsv_pairs(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}); save the map as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from None


def _tsv_pairs(path: Path) -> Iterator[tuple[str, str]]:
    with open_file(path) as file:
        number = 0
        while line := file.readline(LARGEST_LINE):
            number += 1
            url, tab, name = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n").partition("\t")
            if url.strip() and not tab:
                raise DataError(f"{path}:{number}: no tab; expected an address, a tab and a file name")
            if name.strip():
                yield url.strip(), name.strip()


def _json_pairs(path: Path) -> Iterator[tuple[str, str]]:
    try:
        found = parse_json(read_file(path).decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise DataError(f'{path}: expected an object like {{"https://...": "dog.jpg"}}')
    yield from found.items()


def _shared_names(urls: Iterable[str]) -> frozenset[int]:
    """Keys of the names that more than one address ends in."""
    pairs = np.array(_keys(urls), dtype=np.uint64).reshape(-1, 2)
    names, counts = np.unique(np.unique(pairs, axis=0)[:, 0], return_counts=True)
    return frozenset(names[counts > 1].tolist())


def _keys(urls: Iterable[str]) -> array[int]:
    keys = array("Q")
    for url in urls:
        keys.extend((key_of(last_part(url)), key_of(url)))
    return keys
