"""What a fetch would do: which files come from where, what is here already, how much room it takes.

A folder's ledger lists what was fetched into it, with checksums. By it, later fetches know what is there, and notice what
has changed at the source.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from captrain.data.get.catalogue import CATALOGUE, CatalogueFile, DataSet, PictureList
from captrain.data.get.transfer import check_address
from captrain.data.safe_paths import IMAGE_SUFFIXES, existing
from captrain.disk.writing import check_target, write_text
from captrain.errors import DataError, nearest

GLANCE = 1000  # entries of a folder looked at for pictures


@dataclass(frozen=True, slots=True)
class Step:
    """One file, and where it comes from: an address, a local path, or nowhere as it is here."""

    file: CatalogueFile
    source: Literal["web", "local", "here"]
    place: str

    @property
    def to_fetch(self) -> int:
        """Bytes that come over the network."""
        return self.file.size if self.source == "web" else 0

    @property
    def room(self) -> int:
        """Bytes on the disk at the worst moment: archives stay until they are unpacked."""
        if self.source == "here":
            return 0
        return self.to_fetch + (self.file.size if self.file.unpack or self.source == "local" else 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps, the lists of pictures to fetch by address, and the folder of pictures that are used in place."""

    name: str
    data_set: DataSet
    folder: Path
    steps: tuple[Step, ...]
    lists: tuple[PictureList, ...]
    mirror: str
    image_root: Path | None

    @property
    def to_fetch(self) -> int:
        """Bytes that come over the network, about."""
        return sum(step.to_fetch for step in self.steps) + sum(listed.size for listed in self.lists)

    @property
    def room(self) -> int:
        """Bytes that the disk must have, about."""
        return sum(step.room for step in self.steps) + sum(listed.size for listed in self.lists)


def make_plan(
    name: str, folder: Path, *, mirror: str = "", local: Path | None = None, annotations_only: bool = False
) -> Plan:
    """Look at the catalogue, the folder and the local copy.

    Args:
        mirror: address of a folder with the files under their names, instead of the source's.
        local: folder with a copy of the files, or of the pictures alone; the pictures stay there.

    Raises `DataError` for an unknown data set, something that is not an address, or a local copy with nothing to use.
    """
    if name not in CATALOGUE:
        raise DataError(f"data set '{name}' is unknown: expected {', '.join(CATALOGUE)}.{nearest(name, CATALOGUE)}")
    data_set = CATALOGUE[name]
    if mirror:
        check_address(mirror)
    image_root = _picture_root(data_set, existing(local)) if local else None
    with_pictures = image_root is None and not annotations_only
    ledger = FetchLedger(folder)
    steps = tuple(
        _step(file, folder, ledger, mirror, local) for file in data_set.files if with_pictures or not file.pictures
    )
    if local and image_root is None and all(step.source != "local" for step in steps):
        raise DataError(f"{local}: nothing of {name} is there; expected {' or '.join(_local_names(data_set))} in it")
    return Plan(name, data_set, folder, steps, data_set.lists if with_pictures else (), mirror, image_root)


def saved_at(file: CatalogueFile, folder: Path) -> Path:
    """Where a file, or what is taken out of it, is in the data set's folder; for many members the archive's own name."""
    if file.unpack and "*" not in file.unpack:
        return folder / file.unpack
    return folder / (file.saved_as or file.name)


def _step(file: CatalogueFile, folder: Path, ledger: FetchLedger, mirror: str, local: Path | None) -> Step:
    if _is_here(file, folder, ledger):
        return Step(file, "here", str(saved_at(file, folder)))
    if local and (copy := _local_copy(file, local)):
        return Step(file, "local", str(copy))
    return Step(file, "web", f"{mirror.rstrip('/')}/{file.name}" if mirror else file.url)


def _is_here(file: CatalogueFile, folder: Path, ledger: FetchLedger) -> bool:
    """Whether a file is in the folder as it came, or an archive's members are all there."""
    if not file.unpack:
        return ledger.has(file.name, saved_at(file, folder))
    entry = ledger.entries.get(file.name)
    return entry is not None and 0 < entry.unpacked <= _count(folder, file.unpack)


def _count(folder: Path, pattern: str) -> int:
    """How many files of a folder match `train2014/*.jpg`."""
    where, _, names = pattern.rpartition("/")
    if not (folder / where).is_dir():
        return 0
    with os.scandir(folder / where) as entries:
        return sum(os.path.isfile(entry) and fnmatchcase(entry.name, names) for entry in entries)


def _local_copy(file: CatalogueFile, local: Path) -> Path | None:
    """A file in a local copy: the file itself, or what would be taken out of it."""
    names = [file.name, file.saved_as, file.unpack if "*" not in file.unpack else ""]
    paths = [local / where / name for where in ("", "annotations") for name in names if name]
    return next((path for path in paths if path.is_file()), None)


def _picture_root(data_set: DataSet, local: Path) -> Path | None:
    """The folder to give as `--image-root`, if the pictures are in a local copy."""
    for root in (local, local / "images"):
        if all(_has_pictures(root / folder) for folder in data_set.folders):
            return root
        if len(data_set.folders) == 1 and _has_pictures(root):
            return root
    return None


def _has_pictures(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        names = [entry.name for entry, _ in zip(entries, range(GLANCE), strict=False)]
    return any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names)


def _local_names(data_set: DataSet) -> list[str]:
    """What a local copy could hold, for people."""
    folders = [f"{folder}/" for folder in data_set.folders if folder] or ["pictures"]
    return [*(file.name for file in data_set.files), *folders]


NAME = ".captrain-get.json"
LARGEST = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """One file as it came.

    `unpacked`: how many members were taken out of an archive. `left`: whether that is still to be deleted.
    """

    bytes: int
    sha256: str
    unpacked: int = 0
    left: bool = False


class FetchLedger:
    """The entries of a folder, kept in `.captrain-get.json`."""

    def __init__(self, folder: Path) -> None:
        """Raises `DataError` if the file there is of another form."""
        self.path = folder / NAME
        self.entries: dict[str, FetchedFile] = {}
        if check_target(self.path) is not None:
            try:
                self.entries = {name: _entry(values) for name, values in self._load().items()}
            except (OSError, ValueError, TypeError, AttributeError, RecursionError):
                raise DataError(f"{self.path}: not what captrain wrote; delete it to fetch everything again") from None

    def has(self, name: str, file: Path) -> bool:
        """Whether a file is there as it was noted. It is read whole, but for another size."""
        entry = self.entries.get(name)
        return (
            entry is not None and file.is_file() and file.stat().st_size == entry.bytes and digest(file) == entry.sha256
        )

    def note(self, name: str, entry: FetchedFile) -> None:
        """Note a fetched file."""
        self.entries[name] = entry
        write_text(self.path, json.dumps({key: asdict(value) for key, value in self.entries.items()}, indent=2) + "\n")

    def _load(self) -> dict[str, dict[str, object]]:
        if self.path.stat().st_size > LARGEST:
            raise ValueError
        found: dict[str, dict[str, object]] = json.loads(self.path.read_text(encoding="utf-8"))
        return found


def _entry(values: dict[str, object]) -> FetchedFile:
    """An entry as it was written; raises `ValueError` for another form."""
    length, found, unpacked = values.get("bytes"), values.get("sha256"), values.get("unpacked", 0)
    left = values.get("left") is True
    if not (isinstance(length, int) and isinstance(found, str) and isinstance(unpacked, int)):
        raise ValueError
    return FetchedFile(length, found, unpacked, left)


def digest(file: Path, algorithm: str = "sha256") -> str:
    """Checksum of a file's content, as hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def check_digest(file: Path, published: str, noted: FetchedFile | None, source: str) -> FetchedFile:
    """The entry of a fetched file, if it matches the published checksum and the first fetch.

    Raises `DataError` otherwise. `published`: `md5:...` or "". `source`: the address, for the error.
    """
    algorithm, _, expected = published.partition(":")
    if expected and (found := digest(file, algorithm)) != expected:
        raise DataError(
            f"{source}: wrong checksum: {algorithm} {found}, expected {expected}; the copy is damaged or not the same file: "
            "try again, or another --mirror"
        )
    entry = FetchedFile(file.stat().st_size, digest(file))
    if noted and noted.sha256 != entry.sha256:
        raise DataError(
            f"{source}: not the file that came the first time: sha256 {entry.sha256}, noted is {noted.sha256} "
            f"in {NAME}; delete that file if the change is right"
        )
    return entry
