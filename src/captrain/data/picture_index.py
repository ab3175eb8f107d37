"""An index of the pictures below a folder, by the names that tables use: without endings, in another case, inside archives.

A table that was written by hand, or on another machine, says `img_01` for `img/img_01.jpg`, `dog.jpg` for `dog.JPG`, and
"é" in the other normal form of Unicode. Each such name is looked up here, among the names of all pictures, which are listed
once: 100,000 rows cost one listing and 100,000 look-ups. Nothing is guessed: if two pictures fit equally, neither is taken.

Pictures in zips and tars beside a table are listed from the archive's own directory, read one by one, and never unpacked. For
tars see `captrain.data.shards.tars`. A zip is an untrusted file. Only plain members with a picture's name count, and only
with names that stay below the zip; links and encrypted members do not. A member gives as many bytes as the directory states
and no more, whatever it unpacks to.
"""

from __future__ import annotations

import logging
import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from captrain.data.picture_files import is_hidden, is_unicode, split_suffix
from captrain.data.shards.tars import StoredMember, tidy_name, walk
from captrain.disk.reading import ZIP_ERRORS, open_file
from captrain.disk.walking import Folders
from captrain.limits import LARGEST_INFLATED, is_bomb

logger = logging.getLogger(__name__)

MOST_ENTRIES = 2_000_000  # listed; in more (a whole disk, say) nothing is searched for
DEEPEST = 6  # folders below the one of the table

IMAGE_FOLDER = "images"  # where pictures are that a table names as if they were beside it


class PictureIndex:
    """The pictures below a folder, a few hundred bytes each, listed when the first name is asked for."""

    def __init__(self, folder: str, folders: Callable[[], Folders]) -> None:
        """`folders` makes what lists the folder and those below it."""
        self.folder, self.folders_of = folder, folders
        self._by_stem: dict[str, list[str]] | None = None  # last part without ending → paths below the folder
        self._archived: dict[
            str, ZipMember | StoredMember
        ] = {}  # paths of pictures that are in archives beside the table

    def __getstate__(self) -> dict[str, object]:
        """Without the names: another process lists them again, where it must."""
        return {**self.__dict__, "_by_stem": None, "_archived": {}}

    def archived(self, path: str) -> ZipMember | StoredMember | None:
        """The picture at a path, if names were listed and it is in an archive that is not unpacked."""
        return self._archived.get(path)

    def look(self) -> None:
        """List the names now, if they are not."""
        self._names()

    def named(self, name: str) -> list[str]:
        """The pictures that a name may mean: a path below the folder, below its `images/`, else the end of any path.

        More than one are equally likely. A name without a picture's ending stands for a picture with any.
        """
        whole = plain_stem(name)
        return self.at(name) or [path for path in self.called(name) if plain_stem(path).endswith(f"/{whole}")]

    def at(self, name: str) -> list[str]:
        """The pictures that a path below the folder, or below its `images/`, may mean."""
        bare, whole = [(plain_stem(path), path) for path in self.called(name)], plain_stem(name)
        beside = [path for stem, path in bare if stem == whole]
        return beside or [path for stem, path in bare if stem == f"{IMAGE_FOLDER}/{whole}"]

    def called(self, name: str) -> list[str]:
        """The pictures, in any folder, that have a name's last part, with its ending if it has one."""
        base = name.rpartition("/")[2]
        suffix = split_suffix(base)[1]
        found = self._names().get(plain_stem(base), [])
        return [path for path in found if split_suffix(path)[1] == suffix] if suffix else found

    def folders(self) -> set[str]:
        """The folders that pictures are in, "" for the index's own."""
        return {path.rpartition("/")[0] for paths in self._names().values() for path in paths}

    def _names(self) -> dict[str, list[str]]:
        if self._by_stem is None:
            self._archived = dict(pictures_in_archives(Path(self.folder)))
            self._by_stem = self._listed()
        return self._by_stem

    def _listed(self) -> dict[str, list[str]]:
        by_stem: dict[str, list[str]] = {}
        for count, path in enumerate(chain(self._paths(), self._archived)):
            if count >= MOST_ENTRIES:
                return {}
            if split_suffix(path)[1]:
                by_stem.setdefault(plain_stem(path.rpartition("/")[2]), []).append(path)
        return {stem: sorted(set(paths)) for stem, paths in by_stem.items()}

    def _paths(self) -> Iterator[str]:
        """Every file below the folder, hidden things left out. A folder that can't be listed is empty."""
        folders, left = self.folders_of(), [("", 0)]
        while left:
            prefix, depth = left.pop()
            try:
                entries = folders.entries(prefix)
            except OSError:
                continue
            for entry in entries:
                if entry.fault or not is_unicode(entry.name):
                    continue
                if not entry.is_folder:
                    yield prefix + entry.name
                elif depth < DEEPEST:
                    left.append((f"{prefix}{entry.name}/", depth + 1))


def plain_stem(name: str) -> str:
    """A path without a picture's ending, in the one normal form of Unicode that is compared."""
    stem = split_suffix(name)[0]
    return stem if stem.isascii() else unicodedata.normalize("NFC", stem)


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
        # Opened again each time: processes must not share an open file, and opening costs little compared to a picture.
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
    """The archive that a picture is in."""
    return member.archive if isinstance(member, ZipMember) else member.path


def _in_zip(archive: Path) -> Iterator[tuple[str, ZipMember]]:
    try:
        with open_file(archive) as file, zipfile.ZipFile(file) as opened:
            infos = opened.infolist()
    except (OSError, *ZIP_ERRORS) as error:
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
    """A member's name below the zip; "" for what is not a picture that may be read."""
    name = tidy_name(info.filename) or ""
    bomb = is_bomb(info.file_size, info.compress_size, LARGEST_INFLATED)
    odd = bomb or not info.filename or info.is_dir() or info.flag_bits & 1 or stat.S_ISLNK(info.external_attr >> 16)
    if odd or info.compress_type not in _DEFLATED or max(info.file_size, info.compress_size) > LARGEST_MEMBER:
        return ""
    return name if _is_picture(name) else ""
