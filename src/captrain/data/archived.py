"""Pictures in zips and tars that lie beside a table: listed from their own directories, read one by one, never unpacked.

For tars see `captrain.data.shards.tars`. A zip is an untrusted file. Only plain members that are called pictures count, with
names that stay below the zip; links and encrypted members do not. A member gives as many bytes as the directory states and
no more, however many it unfolds to.
"""

from __future__ import annotations

import logging
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from captrain.data.shards.headers import tidy
from captrain.data.shards.tars import StoredMember, walk
from captrain.data.suffixes import is_hidden, split_suffix
from captrain.disk.reading import open_file
from captrain.limits import LARGEST_INFLATED, is_bomb

logger = logging.getLogger(__name__)

MOST_ARCHIVES = 20  # of one folder; more are shards, which take long to look through
MOST_MEMBERS = 2_000_000
LARGEST_MEMBER = 1 << 30  # bytes; no picture is larger

_LOCAL = struct.Struct(
    "<4s22xHH"
)  # of the header before a member's data: its mark, the lengths of its name and of extras
_DEFLATED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A picture in a zip; `offset` is where its header begins, sizes are in bytes."""

    archive: Path
    name: str
    offset: int
    packed: int
    size: int
    crc: int
    is_deflated: bool

    def read(self) -> bytes:
        """The picture's bytes. Raises `OSError` if they are not what the zip's directory says."""
        # Opened anew each time: an open file must not be shared by processes, and it costs little beside a picture.
        with open_file(self.archive) as file:
            if self.offset + self.packed > os.fstat(file.fileno()).st_size:
                raise OSError(f"{self}: the zip is broken, or another than when it was listed")
            file.seek(self.offset)
            header = file.read(_LOCAL.size)
            if len(header) < _LOCAL.size or not header.startswith(b"PK\x03\x04"):
                raise OSError(f"{self}: the zip is broken, or another than when it was listed")
            _, name, extras = _LOCAL.unpack(header)
            file.seek(name + extras, os.SEEK_CUR)
            data = file.read(self.packed)
        try:
            whole = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1) if self.is_deflated else data
        except zlib.error as error:
            raise OSError(f"{self}: is broken ({error})") from None
        if len(whole) != self.size or zlib.crc32(whole) != self.crc:
            raise OSError(f"{self}: is not what the zip's directory says")
        return whole

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"


def pictures_in_archives(folder: Path) -> Iterator[tuple[str, ZipMember | StoredMember]]:
    """The pictures in the zips and plain tars right in a folder, with the paths that they get in a folder of each one's name."""
    try:
        entries = sorted(path for path in folder.iterdir() if path.suffix.lower() in READ and not is_hidden(path.name))
    except OSError:
        return
    for archive in entries if len(entries) <= MOST_ARCHIVES else ():
        for name, member in READ[archive.suffix.lower()](archive):
            yield f"{archive.stem}/{name}", member


def archive_of(member: ZipMember | StoredMember) -> Path:
    """The archive that a picture lies in."""
    return member.archive if isinstance(member, ZipMember) else member.path


def _in_zip(archive: Path) -> Iterator[tuple[str, ZipMember]]:
    try:
        with open_file(archive) as file, zipfile.ZipFile(file) as opened:
            infos = opened.infolist()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, struct.error, zlib.error) as error:
        logger.warning("%s: can't be read as a zip (%s)", archive, getattr(error, "strerror", None) or error)
        return
    for info in infos[:MOST_MEMBERS]:
        if name := _usable(info):
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            sizes = (info.compress_size, info.file_size)
            yield name, ZipMember(archive, name, info.header_offset, *sizes, info.CRC, deflated)


def _in_tar(archive: Path) -> Iterator[tuple[str, StoredMember]]:
    try:
        with open_file(archive, 1 << 16) as file:
            for member in islice(walk(file, os.fstat(file.fileno()).st_size), MOST_MEMBERS):
                if not member.problem and _is_picture(member.name):
                    label = f"{archive}/{member.name}"
                    yield member.name, StoredMember(archive, member.offset, member.size, label)
    except OSError as error:
        logger.warning("%s: can't be read as a tar (%s)", archive, error.strerror)


READ: dict[str, Callable[[Path], Iterator[tuple[str, ZipMember | StoredMember]]]] = {".zip": _in_zip, ".tar": _in_tar}


def _is_picture(name: str) -> bool:
    return bool(split_suffix(name)[1]) and not any(map(is_hidden, name.split("/")))


def _usable(info: zipfile.ZipInfo) -> str:
    """A member's name below the zip; "" for what is no picture that may be read."""
    name = tidy(info.filename) or ""
    bomb = is_bomb(info.file_size, info.compress_size, LARGEST_INFLATED)
    odd = bomb or info.is_dir() or info.flag_bits & 1 or stat.S_ISLNK(info.external_attr >> 16)
    if odd or info.compress_type not in _DEFLATED or max(info.file_size, info.compress_size) > LARGEST_MEMBER:
        return ""
    return name if _is_picture(name) else ""
