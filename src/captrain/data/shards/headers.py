"""The blocks of a tar: headers with their checksums, the records of pax headers, names made plain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

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
        return f"is no tar ({kind or 'its first header is not one'})"
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
            raise BrokenTarError(f"is broken at byte {at + place}: a pax header that is none")
        yield key, value
        place = end


def tidy(name: str) -> str | None:
    r"""A name as a path below the tar (posix); None for one that leaves it or is none.

    >>> tidy("./photos//dog.jpg"), tidy("../dog.jpg"), tidy("/etc/dog.jpg"), tidy("C:\\dog.jpg")
    ('photos/dog.jpg', None, None, None)
    """
    if not _UNTIDY.search(name):
        return name or None
    name = name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:|.*[\x00-\x1f\x7f]", name, re.DOTALL):
        return None
    return "/".join(parts) or None
