"""What is found in a picture's bytes before Pillow sees them: the size of a WebP, and what makes a JPEG slow to read."""

from __future__ import annotations

import re
from collections.abc import Iterator

from captrain.errors import PictureError
from captrain.picture_memory import check_size, check_unfolding

MOST_NOTES = 24 * 1024 * 1024
"""Bytes before a JPEG's pixels: Pillow copies its EXIF for each part of 64 KB, and 24 MB of it take seconds."""

SCANS = 32
"""Scans of a JPEG that are never too many: encoders make ten or so of a progressive one."""

MOST_SCANNED = 2_000_000_000
"""Pixels that all scans of a JPEG may go over, if there are more scans than that: seconds."""

_LEAST_SCAN = 10  # bytes
_MARKER = re.compile(
    rb"\xff[\x02-\xcf\xd9-\xfe]", re.DOTALL
)  # that never occurs by itself among pixels: no filling, no restart
_SCAN, _END = 0xDA, 0xD9


def check_start(data: bytes, max_pixels: int) -> None:
    """Refuse by its bytes alone what would take memory or time as soon as Pillow opens it. Raises `PictureError`."""
    if data.startswith(b"RIFF"):
        check_webp(data, max_pixels)
    elif data.startswith(b"\xff\xd8"):
        check_notes(data)


def check_webp(data: bytes, max_pixels: int) -> None:
    """Refuse a WebP by its header: its reader makes two canvases as soon as it opens a file. Raises `PictureError`."""
    width, height = size_of_webp(data)
    check_size((width, height), max_pixels)
    check_unfolding(16 * width * height, len(data), "WEBP", max_pixels)


def size_of_webp(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP's canvas, by its first chunk (developers.google.com/speed/webp/docs/riff_container).

    Raises `PictureError` if there is none.
    """
    declared = int.from_bytes(data[4:8], "little") + 8
    if declared > len(data) + 1 or len(data) < 30:  # some leave out the last byte, which only fills
        raise PictureError(f"is truncated ({len(data)} of {max(30, declared)} bytes)")
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    raise PictureError("is broken (a WebP without a picture at its beginning)")


def check_notes(data: bytes) -> None:
    """Refuse a JPEG with far too much before its pixels. Raises `PictureError`."""
    if len(data) <= MOST_NOTES:
        return
    start = next((at for marker, at in _markers(data) if marker == _SCAN), len(data))
    if start > MOST_NOTES:
        raise PictureError(
            f"has {start} bytes of notes before its pixels, over the limit of {MOST_NOTES}; save it again"
        )


def check_scans(size: tuple[int, int], data: bytes) -> None:
    """Refuse a JPEG whose scans go over its pixels for longer than seconds. Raises `PictureError`.

    Honest pictures cost a comparison here, and progressive ones of millions of pixels a count.
    """
    pixels = size[0] * size[1]
    if len(data) * pixels < _LEAST_SCAN * MOST_SCANNED or data.count(bytes((0xFF, _SCAN))) <= SCANS:
        return
    scans = sum(marker == _SCAN for marker, _ in _markers(data))
    if scans > SCANS and scans * pixels > MOST_SCANNED:
        raise PictureError(f"has {scans} scans over {size[0]} x {size[1]} pixels, as attacks do; save it again")


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    r"""The markers of a JPEG's first picture and their places; segments are stepped over by their length.

    >>> list(_markers(b"\xff\xd8\xff\xfe\0\x04\xff\xda\xff\xda\0\x02\xff\0\xff\xd9"))
    [(254, 2), (218, 8)]
    """
    at = 2
    while (found := _MARKER.search(data, at)) and found[0][1] != _END:
        yield found[0][1], found.start()
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
