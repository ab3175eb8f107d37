"""What was fetched into a folder, with checksums: later fetches know what is there, and notice what has changed at the source."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from captrain.disk.writing import check_target, write_text
from captrain.errors import DataError

NAME = ".captrain-get.json"
LARGEST = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One file as it came.

    `unpacked`: how many members were taken out of an archive. `left`: whether that is still to be deleted.
    """

    bytes: int
    sha256: str
    unpacked: int = 0
    left: bool = False


class Ledger:
    """The entries of a folder, kept in `.captrain-get.json`."""

    def __init__(self, folder: Path) -> None:
        """Raises `DataError` if the file there is of another form."""
        self.path = folder / NAME
        self.entries: dict[str, Entry] = {}
        if check_target(self.path) is not None:
            try:
                self.entries = {name: _entry(values) for name, values in self._load().items()}
            except (OSError, ValueError, TypeError, AttributeError, RecursionError):
                raise DataError(f"{self.path}: not what captrain wrote; delete it to fetch all anew") from None

    def has(self, name: str, file: Path) -> bool:
        """Whether a file is there as it was noted. It is read whole, but for another size."""
        entry = self.entries.get(name)
        return (
            entry is not None and file.is_file() and file.stat().st_size == entry.bytes and digest(file) == entry.sha256
        )

    def note(self, name: str, entry: Entry) -> None:
        """Note what came."""
        self.entries[name] = entry
        write_text(self.path, json.dumps({key: asdict(value) for key, value in self.entries.items()}, indent=2) + "\n")

    def _load(self) -> dict[str, dict[str, object]]:
        if self.path.stat().st_size > LARGEST:
            raise ValueError
        found: dict[str, dict[str, object]] = json.loads(self.path.read_text(encoding="utf-8"))
        return found


def _entry(values: dict[str, object]) -> Entry:
    """An entry as it was written; raises `ValueError` for another form."""
    length, found, unpacked = values.get("bytes"), values.get("sha256"), values.get("unpacked", 0)
    left = values.get("left") is True
    if not (isinstance(length, int) and isinstance(found, str) and isinstance(unpacked, int)):
        raise ValueError
    return Entry(length, found, unpacked, left)


def digest(file: Path, algorithm: str = "sha256") -> str:
    """Checksum of a file's content, as hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def check(file: Path, published: str, noted: Entry | None, source: str) -> Entry:
    """What has come, once it is what was published and what came the first time.

    Raises `DataError` otherwise. `published`: `md5:...` or "". `source`: the address, for the error.
    """
    algorithm, _, expected = published.partition(":")
    if expected and (found := digest(file, algorithm)) != expected:
        raise DataError(
            f"{source}: wrong checksum: {algorithm} {found}, expected {expected}; the copy is damaged or not the same file: "
            "try again, or another --mirror"
        )
    entry = Entry(file.stat().st_size, digest(file))
    if noted and noted.sha256 != entry.sha256:
        raise DataError(
            f"{source}: not the file that came the first time: sha256 {entry.sha256}, noted is {noted.sha256} "
            f"in {NAME}; delete that file if the change is right"
        )
    return entry
