"""What a picture's bytes say beside its pixels: whether EXIF turns it, whether it moves. Nothing is decoded."""

from __future__ import annotations

from collections.abc import Iterator

from captrain.data.decode import orientation_of

_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF = b"Exif\0\0"
_SCAN, _APP1 = 0xDA, 0xE1  # of a JPEG: pixels from here on; the segment that may hold EXIF


def orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG, PNG or WebP, 1 to 8; 1 (upright) where nothing says otherwise."""
    return orientation_of(next(_exif_blocks(data), b""))


def is_animated(data: bytes) -> bool:
    """Whether a GIF, PNG or WebP has more than one frame."""
    if data.startswith(b"GIF8"):
        return _frames_of_gif(data, 2) > 1
    if data.startswith(_PNG):
        return any(kind == b"acTL" for kind, _ in _png_chunks(data))
    return _is_webp(data) and data[12:16] == b"VP8X" and len(data) > 20 and bool(data[20] & 0x02)


def _exif_blocks(data: bytes) -> Iterator[bytes]:
    if data.startswith(b"\xff\xd8"):
        yield from (body for kind, body in _jpeg_segments(data) if kind == _APP1 and body.startswith(_EXIF))
    elif data.startswith(_PNG):
        yield from (body for kind, body in _png_chunks(data) if kind == b"eXIf")
    elif _is_webp(data):
        yield from (body for kind, body in _riff_chunks(data) if kind == b"EXIF")


def _is_webp(data: bytes) -> bool:
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of each segment before the pixels."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a filling byte
            at += 1
            continue
        if marker == _SCAN:
            return
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, data[at + 4 : at + 2 + size]
        at += 2 + size


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG)
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _frames_of_gif(data: bytes, enough: int) -> int:
    """Frames of a GIF, counted up to `enough`: blocks are walked over, nothing is unpacked. A broken one ends there."""
    if len(data) < 13:
        return 0
    at = 13 + _palette(data[10])
    frames = 0
    while at < len(data) and frames < enough:
        if data[at] == 0x21:  # an extension: its label, then blocks
            at = _after_blocks(data, at + 2)
        elif data[at] == 0x2C and at + 10 <= len(data):  # a frame: ten bytes, a palette, the code size, then blocks
            frames += 1
            at = _after_blocks(data, at + 10 + _palette(data[at + 9]) + 1)
        else:
            break
    return frames


def _palette(flags: int) -> int:
    """Bytes of the palette that a GIF's flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1
