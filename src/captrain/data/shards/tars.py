"""Walk a tar without extracting anything: where each member's data is, and what is wrong with the rest.

Reads the headers of POSIX ustar, GNU (long names) and pax archives, with their checksums. `tarfile` of the standard library
makes an object of some kilobytes for each member and takes three times as long, which counts with shards of a million members.
A tar is an untrusted file: whatever it holds, a walk ends, uses little memory and raises nothing; what can't be used comes as
a member with a `problem`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from captrain.disk.reading import POINTER, is_pointer, open_file

BLOCK = 512
LARGEST_MEMBER = 1 << 30  # bytes of data; no picture and no caption is larger
LARGEST_EXTENSION = 1 << 20  # bytes of a long name or a pax header; real ones have a few hundred
LONGEST_NAME = 4096  # characters
MOST_MEMBERS = 50_000_000  # of one tar; a guard against a file that is nothing but headers

_REGULAR = (0x30, 0, 0x37)  # "0", NUL of old archives, "7" (contiguous)
_FOLDER = 0x35
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _PAX_SOLARIS = (ord(kind) for kind in "LKxgX")
_EXTENSIONS = (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _PAX_SOLARIS)
_SPARSE = ord("S")
_WITHOUT_DATA = {0x31: "hard link", 0x32: "symbolic link", 0x33: "device", 0x34: "device", 0x36: "pipe"}
_ZEROS = bytes(BLOCK)


class Bytes(Protocol):
    """What a walk reads from: a file, or something that can only go forward."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...


class Member(NamedTuple):
    """A file in a tar.

    `start` is where its headers begin, `offset` where its data does, both in bytes. Where `problem` says something, the
    member can't be used; where `name` is empty too, the tar ends there.
    """

    name: str
    start: int
    offset: int
    size: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class StoredMember:
    """A member's bytes, read when they are asked for. `label` says where it is ("shards/00000.tar/dog.jpg")."""

    path: Path
    offset: int
    size: int
    label: str

    def read(self) -> bytes:
        """The member's bytes. Raises `OSError` if they can't be read, or are no longer there."""
        # Opened again each time: processes must not share an open file, and opening costs little compared to a picture.
        with open_file(self.path) as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self.path} is shorter than when it was read first")
        return data

    def __str__(self) -> str:
        return self.label


@dataclass(slots=True)
class _Ahead:
    """What the headers before a member say about it."""

    start: int  # of the first of these headers
    name: str = ""
    size: int | None = None
    sparse: bool = False


def walk(file: Bytes, length: int | None = None, start: int = 0) -> Iterator[Member]:
    """The members of a tar in order; folders are left out.

    When a member is given, `file` is positioned at its data, which the caller may read before asking for the next.

    Args:
        length: bytes of the whole tar, where that is known: a member that goes on beyond it is not given.
        start: where to begin: 0, or the `start` of a member met earlier.

    >>> import io
    >>> list(walk(io.BytesIO(b"no tar at all")))[0].problem
    'is not a tar (it has 13 bytes)'
    """
    at = start
    try:
        for _ in range(MOST_MEMBERS):
            found = _next(file, at, length)
            if found is None:
                yield from _after_the_end(file, at)
                return
            member, at = found
            if member is not None:
                yield member
        raise BrokenTarError(f"holds over {MOST_MEMBERS} members")
    except BrokenTarError as broken:
        yield Member("", at, at, 0, str(broken))
    except (OSError, EOFError, ValueError) as error:
        yield Member("", at, at, 0, f"can't be read from byte {at} on ({str(error)[:200] or type(error).__name__})")


def _next(file: Bytes, at: int, length: int | None) -> tuple[Member | None, int] | None:
    """The member whose headers begin at `at` (None for a folder), and where the next begins; None at the end mark."""
    ahead = _Ahead(at)
    while True:
        file.seek(at)
        block = file.read(BLOCK)
        if len(block) < BLOCK or block == _ZEROS:
            if at == ahead.start and block == _ZEROS:
                return None
            raise BrokenTarError(_cut(at, block))
        header = parse_header(block, at)
        at += BLOCK
        if header.kind not in _EXTENSIONS:
            return _member(file, block, header, ahead, at, length)
        _look_ahead(file, header, ahead, at)
        at += _padded(header.size)


def _cut(at: int, block: bytes) -> str:
    if is_pointer(block):
        return POINTER
    if at == 0:
        return f"is not a tar (it has {len(block)} bytes)"
    if block:
        return f"is cut short in a header, at byte {at + len(block)}"
    return f"is cut short at byte {at}: it has no end mark"


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _look_ahead(file: Bytes, header: Header, ahead: _Ahead, at: int) -> None:
    """Take in a header about the member that follows."""
    if header.size > LARGEST_EXTENSION:
        raise BrokenTarError(
            f"is broken at byte {at - BLOCK}: a header of {header.size} bytes, over {LARGEST_EXTENSION}"
        )
    if header.kind not in (_LONG_NAME, _PAX):
        return
    content = file.read(header.size)
    if len(content) < header.size:
        raise BrokenTarError(f"is cut short in a header, at byte {at + len(content)}")
    if header.kind == _LONG_NAME:
        ahead.name = _text(content.split(b"\0", 1)[0])
        return
    for key, value in pax_records(content, at):
        if key == b"path":
            ahead.name = _text(value)
        elif key == b"size":
            if not value.isdigit() or len(value) > 19 or int(value) >= LARGEST_SIZE:
                raise BrokenTarError(f"is broken at byte {at}: an impossible size")
            ahead.size = int(value)
        elif key.startswith(b"GNU.sparse."):
            ahead.sparse = True


def _member(
    file: Bytes, block: bytes, header: Header, ahead: _Ahead, at: int, length: int | None
) -> tuple[Member | None, int]:
    """The member that a header describes, and where the next begins; `at` is the header's end."""
    if header.kind == _SPARSE:
        at = _after_sparse_map(file, block, at)
    name = ahead.name or _text(header.name)
    size = header.size if ahead.size is None else ahead.size
    link = _WITHOUT_DATA.get(header.kind)
    if header.kind == _FOLDER or (name.endswith("/") and not link):
        return None, at + (0 if header.kind == _FOLDER else _padded(size))
    if link:
        return Member(_short(name), ahead.start, at, 0, f"is a {link}; expected a file"), at
    if length is not None and at + size > length:
        raise BrokenTarError(f"is cut short in '{_short(name)}', which begins at byte {at} and has {size} bytes")
    problem = _problem(header.kind, name, size, ahead.sparse)
    path = tidy_name(name)
    if path is None and not problem:
        problem = "has a name that leaves the tar; expected a path below it"
    return Member(_short(name) if problem else path or "", ahead.start, at, size, problem), at + _padded(size)


def _problem(kind: int, name: str, size: int, sparse: bool) -> str:
    if sparse or kind == _SPARSE:
        return "is a sparse file, which is not read; pack it as a plain one"
    if kind not in _REGULAR:
        return f"is a member of unknown kind {chr(kind)!r}; expected a file"
    if size > LARGEST_MEMBER:
        return f"has {size} bytes, over {LARGEST_MEMBER}"
    if len(name) > LONGEST_NAME:
        return f"has a name of {len(name)} characters, over {LONGEST_NAME}"
    return "" if name else "has no name"


def _after_sparse_map(file: Bytes, block: bytes, at: int) -> int:
    """Where the data of a GNU sparse member begin: its map may go on in blocks of its own."""
    more = block[482]
    while more:
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise BrokenTarError(f"is cut short in a header, at byte {at + len(block)}")
        more = block[504]
        at += BLOCK
    return at


def _text(raw: bytes) -> str:
    """A name; bytes that are not UTF-8 are written out, so that two names stay two."""
    return raw.decode("utf-8", "backslashreplace")


def _short(name: str) -> str:
    return name[:200] or "?"


def _after_the_end(file: Bytes, at: int) -> Iterator[Member]:
    """Say so if a tar goes on after its end mark, as two that were joined by `cat` do."""
    file.seek(at + BLOCK)
    if file.read(1 << 20).strip(b"\0"):
        yield Member(
            "", at, at, 0, f"goes on after its end mark at byte {at}, which is not read; pack each part by itself"
        )


LARGEST_SIZE = 1 << 60  # bytes that a header may state; no disk holds more, and seeking there would overflow
_UNTIDY = re.compile(r"[\\\x00-\x1f\x7f]|/{2}|^/|^[A-Za-z]:|(?:^|/)\.{1,2}(?:/|$)")
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}


class BrokenTarError(Exception):
    """A walk can't go on. `tars.walk` makes a problem of it."""


class Header(NamedTuple):
    """What one header block says."""

    name: bytes
    size: int
    kind: int


def parse_header(block: bytes, at: int) -> Header:
    """A header block, which begins at byte `at`. Raises `BrokenTarError` if its checksum is not right."""
    try:
        stated = int(block[148:156].strip(b"\0 ") or b"x", 8)
        size = _number(block[124:136])
    except ValueError:
        raise BrokenTarError(_broken(block, at)) from None
    if not 0 <= size < LARGEST_SIZE or not _adds_up(block, stated):
        raise BrokenTarError(_broken(block, at))
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345]:
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    return Header(name, size, block[156])


def _adds_up(block: bytes, stated: int) -> bool:
    """Whether the checksum is right; its own eight bytes count as spaces. Some old tars added up signed bytes."""
    total = sum(block) - sum(block[148:156]) + 256
    return stated == total or stated == total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def _broken(block: bytes, at: int) -> str:
    if at == 0:
        kind = next((f"it is {kind} data; unpack it" for magic, kind in _MAGIC.items() if block.startswith(magic)), "")
        return f"is not a tar ({kind or 'its first header is not one'})"
    return f"is broken at byte {at}: what should be a header is not one"


def _number(raw: bytes) -> int:
    """Octal digits, or base 256 where the first bit is set (GNU, for sizes from 8 GiB on).

    >>> _number(b"00000001750\\0"), _number(b"\\x80" + bytes(9) + b"\\x01\\x00")
    (1000, 256)
    """
    if raw[0] & 0x80:
        return int.from_bytes(raw[1:], "big") if raw[0] == 0x80 else -1
    return int(raw.split(b"\0", 1)[0].strip() or b"0", 8)


def pax_records(content: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    r"""Keys and values of a pax header.

    >>> list(pax_records(b"12 path=dog\n", 0))
    [(b'path', b'dog')]
    """
    place = 0
    while place < len(content) and content[place]:
        space = content.find(b" ", place, place + 20)
        digits = content[place:space] if space > 0 else b""
        end = place + int(digits) if digits.isdigit() else 0
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if not (place < space < end <= len(content) and equals and content[end - 1] == 0x0A):
            raise BrokenTarError(f"is broken at byte {at + place}: a broken pax header")
        yield key, value
        place = end


def tidy_name(name: str) -> str | None:
    r"""A name as a path below the tar (posix); None for one that leaves it or is none.

    >>> tidy_name("./photos//dog.jpg"), tidy_name("../dog.jpg"), tidy_name("/etc/dog.jpg"), tidy_name("C:\\dog.jpg")
    ('photos/dog.jpg', None, None, None)
    """
    if not _UNTIDY.search(name):
        return name or None
    name = name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:|.*[\x00-\x1f\x7f]", name, re.DOTALL):
        return None
    return "/".join(parts) or None
