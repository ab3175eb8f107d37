"""Pictures by web address, many at a time: what came is mapped to its file, what failed is listed with the reason.

For `train.tsv` (caption and address a line): `train.map.tsv`, which the reader of tables knows, and `train.failed.log`.
For a COCO JSON with `coco_url`: `images/NAME` by the JSON's own file names, and `STEM.failed.log`.
"""

from __future__ import annotations

import io
import json
import re
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from captrain.data.get.catalogue import PictureList
from captrain.data.get.transfer import TransferError, TransferLimits, download_file
from captrain.data.samples import key_of
from captrain.disk.folders import make_folders, remove
from captrain.disk.writing import open_to_append, write_text
from captrain.errors import DataError
from captrain.progress import track
from captrain.records import drop_half_line

LARGEST_PICTURE = 64 << 20  # bytes
LARGEST_TABLE = 4 << 30  # bytes of a JSON
LONGEST_LINE = 1 << 16
A_FOLDER = 1000  # pictures in each subfolder
FOR_GOOD = "for good"  # of a failure: not to be tried again
PATIENCE = TransferLimits(LARGEST_PICTURE, attempts=2, timeout=15)

_KINDS = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
}
_PLAIN_NAME = re.compile(r"[\w-][\w.-]{0,200}\.[A-Za-z]{3,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A picture's address, and where it goes: `name` without ending where the content decides about it."""

    url: str
    name: str


@dataclass(frozen=True, slots=True)
class FetchedPictures:
    """How many pictures of a list are there, how many failed, and where those are listed."""

    there: int
    failed: int
    failures: Path


def fetch_pictures(listed: PictureList, folder: Path, workers: int, mirror: str = "") -> FetchedPictures:
    """Fetch all pictures of a list that are not there yet and did not fail for good before.

    Those that failed for other reasons (a silent server) are tried again by the next call.
    """
    table = folder / listed.table
    if listed.form == "coco":
        wanted = list(_of_coco(table, mirror))
        return _fetch(wanted, len(wanted), folder, table, workers, mapped=False)
    return _fetch(_of_tsv(table), _lines(table), folder, table, workers, mapped=True)


def _fetch(
    wanted: Iterable[Wanted], total: int, folder: Path, table: Path, workers: int, *, mapped: bool
) -> FetchedPictures:
    books = _Books(folder, table.with_suffix(""), mapped)
    todo = (one for one in wanted if not books.is_done(one))
    with books, track(f"pictures of {table.name}", total - books.settled, "img") as advance:
        for one, result in _in_parallel(lambda one: _one(one, folder), todo, workers):
            books.note(one, result)
            advance(1)
    return FetchedPictures(books.there, books.failed, books.failures)


def _one(one: Wanted, folder: Path) -> str | TransferError:
    """Fetch one picture; its name, or why it is not there."""
    target = folder / one.name
    make_folders(target.parent, folder)
    try:
        if not one.url.lower().startswith(("http://", "https://")):
            raise TransferError("is not a web address", for_good=True)
        download_file(one.url, target, PATIENCE)
        kind = _kind(target)
        if not kind:
            raise TransferError("is no picture", for_good=True)
    except TransferError as problem:
        for left in (target, target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")):
            remove(left)
        return problem
    if target.suffix:
        return one.name
    target.replace(target.with_name(f"{target.name}.{kind}"))
    return f"{one.name}.{kind}"


def _kind(path: Path) -> str:
    """The ending that fits a file's first bytes; "" for what is not a picture."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return next((kind for start, kind in _KINDS.items() if head.startswith(start)), "")


class _Books:
    """What is known of a list: the map of what came and the list of what failed, both written as it happens."""

    def __init__(self, folder: Path, stem: Path, mapped: bool) -> None:
        self.folder = folder
        self.mapped = mapped
        self.map = stem.with_name(stem.name + ".map.tsv")
        self.failures = stem.with_name(stem.name + ".failed.log")
        self.there = self.failed = 0
        keys = array("Q")
        for path in (self.map, self.failures):
            drop_half_line(path)
        self._forget_passing_failures()
        for path in (self.failures, self.map) if mapped else (self.failures,):
            keys.extend(key_of(line.partition("\t")[0]) for line in _text_lines(path))
            self.failed = len(keys) if path == self.failures else self.failed
        self.there = len(keys) - self.failed
        self.known = np.sort(np.array(keys, dtype=np.uint64))
        self.settled = len(keys)

    def _forget_passing_failures(self) -> None:
        """Leave in the list only what failed for good."""
        lasting = [line for line in _text_lines(self.failures) if line.split("\t")[1:2] == [FOR_GOOD]]
        write_text(self.failures, "".join(f"{line}\n" for line in lasting))

    def is_done(self, one: Wanted) -> bool:
        """Whether a picture is there, or failed for good."""
        key = np.uint64(key_of(one.url))
        place = int(np.searchsorted(self.known, key))
        if place < len(self.known) and self.known[place] == key:
            return True
        if self.mapped or not (self.folder / one.name).is_file():
            return False
        self.there += 1
        return True

    def note(self, one: Wanted, result: str | TransferError) -> None:
        """Write down what became of a picture."""
        if isinstance(result, TransferError):
            self.failed += 1
            lasting = FOR_GOOD if result.for_good else "this time"
            self._failed_file.write(f"{one.url}\t{lasting}\t{' '.join(str(result).split())}\n")
            self._failed_file.flush()
        else:
            self.there += 1
            if self._map_file:
                self._map_file.write(f"{one.url}\t{result}\n")
                self._map_file.flush()

    def __enter__(self) -> _Books:
        self._map_file = _text_to_append(self.map) if self.mapped else None
        self._failed_file = _text_to_append(self.failures)
        return self

    def __exit__(self, *_: object) -> None:
        self._failed_file.close()
        if self._map_file:
            self._map_file.close()


def _text_to_append(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(open_to_append(path), "utf-8")


def _in_parallel(
    work: Callable[[Wanted], str | TransferError], todo: Iterator[Wanted], workers: int
) -> Iterator[tuple[Wanted, str | TransferError]]:
    """Run the work on threads, with few items waiting; results come as they are ready."""
    stop = threading.Event()

    def guarded(one: Wanted) -> str | TransferError:
        return TransferError("was not begun") if stop.is_set() else work(one)

    with ThreadPoolExecutor(workers, thread_name_prefix="captrain-get") as pool:
        running: dict[Future[str | TransferError], Wanted] = {}
        try:
            while True:
                for one in islice(todo, 2 * workers - len(running)):
                    running[pool.submit(guarded, one)] = one
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _of_tsv(table: Path) -> Iterator[Wanted]:
    """Pictures of a table of captions and addresses, named by the number of their line."""
    for number, line in enumerate(_text_lines(table), start=1):
        url = next((cell for cell in line.split("\t") if cell.lower().startswith(("http://", "https://"))), "")
        if not url:
            raise DataError(f"{table}:{number}: no web address; expected a caption, a tab and an address")
        yield Wanted(url, f"images/{table.stem}/{number // A_FOLDER:05d}/{number:09d}")


def _of_coco(table: Path, mirror: str) -> Iterator[Wanted]:
    """Pictures of a COCO JSON; from a mirror by their names."""
    try:
        if table.stat().st_size > LARGEST_TABLE:
            raise ValueError("too large")
        images = json.loads(table.read_bytes())["images"]
        pairs = [(image["coco_url"], image["file_name"]) for image in images]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{table}: not a COCO JSON with addresses ({type(error).__name__}: {error})"[:300]) from None
    for url, name in pairs:
        if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name) or not isinstance(url, str):
            raise DataError(f"{table}: {str(name)[:100]!r} is not a plain file name such as 0013ea2087020901.jpg")
        yield Wanted(f"{mirror.rstrip('/')}/{name}" if mirror else url, f"images/{name}")


def _text_lines(table: Path) -> Iterator[str]:
    if not table.is_file():
        return
    with table.open("rb") as file:
        while line := file.readline(LONGEST_LINE):
            text = line.decode("utf-8", errors="replace").strip("\r\n")
            if text:
                yield text


def _lines(table: Path) -> int:
    return sum(1 for _ in _text_lines(table))
