"""Files out of a zip from anywhere: nothing outside of the folder, no links, no more bytes than announced, whole files only."""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from captrain.disk.folders import make_folders, sync_tree
from captrain.disk.reading import within_file
from captrain.disk.writing import check_target, new_file
from captrain.errors import DataError
from captrain.progress import track

MOST_MEMBERS = 1_000_000
LARGEST_MEMBER = 4 << 30  # bytes
CHUNK = 1 << 20
_SAFE = re.compile(r"[\w. ()+-]+(?:/[\w. ()+-]+)*", re.ASCII)


def unpack(archive: Path, folder: Path, pattern: str, largest: int) -> int:
    """Take the members that match `pattern` (`train2014/*.jpg`) out of a zip; those that are there already stay.

    Returns how many there are. Raises `DataError` for an archive that is broken, unsafe, or more than `largest` bytes in all.
    """
    try:
        with within_file(), zipfile.ZipFile(archive) as opened:
            members = list(_members(opened, archive, pattern))
            if (total := sum(member.file_size for member in members)) > largest:
                raise DataError(f"{archive}: {total} bytes unpacked, expected at most {largest}")
            with track(f"unpack {archive.name}", len(members), "files") as advance:
                for member in members:
                    _take(opened, member, folder, archive)
                    advance(1)
                for name in dict.fromkeys(member.filename.partition("/")[0] for member in members):
                    sync_tree(folder / name)
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DataError(f"{archive}: a broken archive ({error}); delete it, and run the same command again") from None
    if not members:
        raise DataError(f"{archive}: holds no {pattern}; expected the archive that the source hands out")
    return len(members)


def _members(opened: zipfile.ZipFile, archive: Path, pattern: str) -> Iterator[zipfile.ZipInfo]:
    """The wanted members, each looked at."""
    infos = opened.infolist()
    if len(infos) > MOST_MEMBERS:
        raise DataError(f"{archive}: {len(infos)} members, expected at most {MOST_MEMBERS}")
    for info in infos:
        if info.is_dir() or not fnmatchcase(info.filename, pattern):
            continue
        if not _SAFE.fullmatch(info.filename) or any(part in (".", "..") for part in info.filename.split("/")):
            raise DataError(
                f"{archive}: {info.filename[:100]!r} is no name that may be unpacked; this archive is not safe"
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DataError(f"{archive}: {info.filename!r} is a link; this archive is not safe")
        if info.file_size > LARGEST_MEMBER:
            raise DataError(
                f"{archive}: {info.filename!r} has {info.file_size} bytes, expected at most {LARGEST_MEMBER}"
            )
        yield info


def _take(opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, archive: Path) -> None:
    """One member into a file that appears when it is complete; not on the disk yet."""
    target = folder / member.filename
    try:
        make_folders(target.parent, folder)
        if check_target(target) is not None and target.stat().st_size == member.file_size:
            return
        with opened.open(member) as source, new_file(target, sync=False) as file:
            left = member.file_size
            while data := source.read(min(CHUNK, left + 1)):
                left -= len(data)
                if left < 0:
                    raise DataError(
                        f"{archive}: {member.filename!r} is longer than announced; this archive is not safe"
                    )
                file.write(data)
    except OSError as error:
        raise DataError(
            f"{target}: can't be written ({error.strerror or error}); make room, then run the command again"
        ) from None
