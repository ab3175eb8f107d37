"""The folder of a feature store, local or behind a URL. A file that can be seen in it is whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from captrain.data.places import is_remote
from captrain.data.shards.remote import protocol_of, shown_url, told_error
from captrain.disk.folders import check_way, make_folders, remove
from captrain.disk.reading import read_file
from captrain.disk.temporary import TEMPORARY
from captrain.disk.writing import new_file
from captrain.errors import DataError
from captrain.paths import cache_folder

EARLIER = ".tmp"  # how temporary names ended before


class StoreFolder:
    """Files by their names, with slashes, below a folder or URL."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/") or place
        if self.place.startswith("file://"):
            self.place = self.place.removeprefix("file://")
        self.remote = is_remote(self.place)
        if self.remote:
            protocol_of(self.place)

    @property
    def label(self) -> str:
        """The place as people may see it."""
        return shown_url(self.place)

    def where(self, name: str) -> str:
        """A file's place as people may see it."""
        return f"{self.label}/{name}"

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        if not self.remote:
            return os.path.isfile(self._path(name))
        with told_error(self.where(name)):
            system, path = self._system(name)
            return bool(system.isfile(path))

    def size(self, name: str) -> int:
        """Bytes of a file. Raises `DataError` if it is not there."""
        if not self.remote:
            try:
                return os.stat(self._path(name)).st_size
            except OSError as error:
                raise DataError(f"{self.where(name)}: {_missing(error)}") from None
        with told_error(self.where(name)):
            system, path = self._system(name)
            return int(system.size(path))

    def read(self, name: str, most: int | None = None) -> bytes:
        """A file's bytes. Raises `DataError` if it is not there, or has more than `most` bytes."""
        if most is not None and (size := self.size(name)) > most:
            raise DataError(f"{self.where(name)}: has {size} bytes, over {most}; expected a small file")
        if not self.remote:
            try:
                return read_file(self._path(name))
            except OSError as error:
                raise DataError(f"{self.where(name)}: {_missing(error)}") from None
        with told_error(self.where(name)):
            system, path = self._system(name)
            return cast(bytes, system.cat_file(path))

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        """Write a file under a temporary name, then rename; behind a URL in one upload. Nothing half-written is seen."""
        if self.remote:
            with told_error(self.where(name)):
                system, path = self._system(name)
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
                system.pipe_file(path, b"".join(chunks))
            return
        final = self._path(name)
        try:
            make_folders(final.parent, Path(self.place))
            with new_file(final, clear=False) as file:  # `features.writing.remove_temporary` does
                file.writelines(chunks)
        except OSError as error:
            error.filename = error.filename or str(final)
            raise

    def names(self, folder: str) -> list[str]:
        """Names of the files right below a folder, sorted; none if it is not there."""
        if not self.remote:
            path = self._path(folder)
            return sorted(entry.name for entry in os.scandir(path) if os.path.isfile(entry)) if path.is_dir() else []
        with told_error(self.where(folder)):
            system, below = self._system(folder)
            if not system.isdir(below):
                return []
            return sorted(str(name).rpartition("/")[2] for name in system.ls(below, detail=False))

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        if not self.remote:
            check_way(self._path(name).parent, Path(self.place))
            remove(self._path(name))
        elif self.exists(name):
            with told_error(self.where(name)):
                system, path = self._system(name)
                system.rm_file(path)

    def local(self, name: str, checksum: str) -> Path:
        """A file to be memory-mapped; one behind a URL is copied once into captrain's cache folder."""
        if not self.remote:
            return self._path(name)
        digest = hashlib.blake2b(f"{self.place}\n{name}\n{checksum}".encode(), digest_size=16).hexdigest()
        copy = cache_folder() / "stores" / f"{digest}-{name.rpartition('/')[2]}"
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with new_file(copy) as file, told_error(self.where(name)):
                system, remote = self._system(name)
                system.get_file(remote, str(file.name))
        return copy

    def _path(self, name: str) -> Path:
        return Path(self.place, name)

    def _system(self, name: str) -> tuple[Any, str]:
        import fsspec.core

        return cast(tuple[Any, str], fsspec.core.url_to_fs(f"{self.place}/{name}"))


def is_temporary(name: str) -> bool:
    """Whether a file of that name is one that is being written, or was left by a killed writer.

    >>> is_temporary("manifest.json.12ab34cd.tmp"), is_temporary("manifest.json")
    (True, False)
    """
    return name.endswith(EARLIER) or TEMPORARY.fullmatch(name) is not None


def _missing(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "not found, though the store should have it; copy it again, or encode again"
    return f"can't be read ({error.strerror})"
