"""Whether a picture can be what its header says, and the memory that it takes to decode: known before it is asked for.

A few hundred bytes can promise 200 million pixels. What a picture needs is a sum over its pixels (Pillow keeps colour in
four bytes a pixel, libwebp needs twelve beside its result); what its file can hold is bounded by its compression.
"""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageFile

from captrain.errors import PictureError
from captrain.memory_budget import MB, most_for_one, take

MAX_PIXELS = 200_000_000
"""The largest phone sensors give 16320 x 12240, just under this. What is larger is a map, a scan to be tiled, or an attack."""

LONGEST = 1_000_000
"""Most pixels of an edge: Pillow keeps a pointer a row, and resizing needs a row of the result for each row."""

SMALL = 1_000_000
"""Pixels of a picture that needs no closer look: it takes 20 MB at most."""

HARMLESS = 200_000_000
"""Bytes of memory that any picture may take, however small its file: 50 million pixels in colour."""

# Bytes of a file are worth so many bytes of decoded pictures at most, beyond what is harmless. Photographs stay far below:
# a JPEG of the lowest quality gets to 100 or so. What compresses better is of one colour.
_MOST_UNFOLDED = {"WEBP": 4096, "AVIF": 4096, "HEIF": 4096}
_MOST_UNFOLDED_ELSE = 512

_BYTES_A_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_A_ROW = 16  # bytes of the pointers to a row, of two pictures
_COLOUR = 4  # bytes a pixel of Pillow's RGB and all that is not above

_PILLOWS_BLOCK = 16 << 20
_BLOCK = 64 << 20

# What decoders keep beside their result, in bytes a pixel. WebP: two canvases and a copy. AVIF and HEIC: planes of 8 or 16
# bits, and the same in RGB.
_BESIDE = {"WEBP": 12, "AVIF": 12, "HEIF": 12}

_DEFLATE = 1032  # a length code and a distance code of one bit each stand for 258 bytes (RFC 1951)
_LZW = 2731  # codes of 12 bits, each of which stands for 4096 values at most
_ARITHMETIC = (b"\xff\xc9", b"\xff\xca", b"\xff\xcd", b"\xff\xce")  # frames of JPEGs that take no least number of bits
_JPEG = 1024  # a bit each block of 8 x 8, half of that where no component has all samples
_TIFF = {1: 1, 5: _LZW, 8: _DEFLATE, 32773: 64, 32946: _DEFLATE}  # by compression; others have no bound


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Refuse a picture by its width and height. Raises `PictureError`.

    >>> check_size((640, 480), MAX_PIXELS)
    """
    width, height = size
    if width < 1 or height < 1:
        raise PictureError(f"has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise PictureError(f"has {width * height} pixels, over the limit of {max_pixels}; scale it down")
    if max(size) > LONGEST:
        raise PictureError(f"has an edge of {max(size)} pixels, over the limit of {LONGEST}; cut it into parts")


def check_memory(image: ImageFile.ImageFile, length: int, max_pixels: int) -> None:
    """Refuse a picture that was opened but not decoded, by its header and the length of its file.

    Args:
        max_pixels: its limit of pixels. If it is above the usual one, that is on purpose, and one colour that fills a
            picture is no sign of an attack.

    Raises `PictureError` for too many pixels, for fewer bytes than so many pixels take at least, for a file that unfolds to far
    more than pictures do, and for what this machine's memory can't hold.
    """
    check_size(image.size, max_pixels)
    if image.format == "TIFF":
        check_size(_size_in_tiles(image), max_pixels)
    width, height = image.size
    if width * height <= SMALL:
        return
    needed = bytes_to_decode(image, bytes_beside(image), turned=False)
    if (least := least_length(image)) > length:
        raise PictureError(f"is truncated ({length} bytes; {width} x {height} pixels take at least {least})")
    check_unfolding(needed, length, str(image.format), max_pixels)
    if needed > (most := most_for_one()):
        raise PictureError(
            f"needs more memory to decode ({needed // MB} MB) than a picture may take here ({most // MB} MB); scale it down"
        )


def check_unfolding(needed: int, length: int, format: str, max_pixels: int) -> None:
    """Refuse what unfolds to far more bytes than pictures do. Raises `PictureError`."""
    if max_pixels <= MAX_PIXELS and needed > max(HARMLESS, length * _MOST_UNFOLDED.get(format, _MOST_UNFOLDED_ELSE)):
        raise PictureError(
            f"unpacks to {needed // MB} MB out of {length} bytes, as attacks on the memory do; scale it down"
        )


def bytes_to_decode(image: ImageFile.ImageFile, beside: int, turned: bool) -> int:
    """Bytes of memory that it takes to decode an opened picture, make it RGB, and turn it if it is `turned`.

    Args:
        beside: what its decoder keeps beside the result (`bytes_beside`).

    >>> from io import BytesIO
    >>> from PIL import Image
    >>> file = BytesIO()
    >>> Image.new("RGB", (100, 50)).save(file, "BMP")
    >>> bytes_to_decode(Image.open(file), beside=0, turned=False)
    20800
    """
    pixels = image.width * image.height
    plain = image.mode == "RGB" and not turned and "transparency" not in image.info
    decoded = pixels * _BYTES_A_PIXEL.get(image.mode, _COLOUR)
    return decoded + max(beside, 0 if plain else pixels * _COLOUR) + _A_ROW * image.height


def take_for(needed: int) -> None:
    """Take the memory that a picture needs from the budget, maybe after a while.

    Pillow asks for 16 MB at a time. The C library keeps blocks of such a size for the thread that freed them, so that each
    thread would hold on to a picture; larger blocks go back to the system (mallopt(3), M_MMAP_THRESHOLD).
    """
    take(needed)
    if needed > _PILLOWS_BLOCK:
        Image.core.set_block_size(_BLOCK)


def bytes_beside(image: ImageFile.ImageFile) -> int:
    """What the decoder of an opened picture keeps beside the result; a JPEG's keeps it of all pixels if it skips some, too."""
    pixels = image.width * image.height
    if pixels <= SMALL:
        return 0
    if image.format in ("JPEG", "MPO"):
        return _coefficients(image)
    if image.format == "TIFF":  # a whole strip or tile; in the worst case that is the picture
        return pixels * sum(_bits_of_tiff(image)) // 8
    return pixels * _BESIDE.get(str(image.format), 0)


def _coefficients(image: Any) -> int:
    """Bytes of the coefficients of a JPEG whose components come in several scans: two of each sample, kept until the end."""
    header = _header(image)
    first = header[header.rfind(b"\xff\xda") + 4 :][:1]
    if "progressive" not in image.info and first == bytes([len(image.layer)]):  # all components are in the first scan
        return 0
    most = max(across for _, across, _, _ in image.layer) * max(down for _, _, down, _ in image.layer)
    samples = sum(across * down for _, across, down, _ in image.layer)
    return int(2 * image.width * image.height * samples // max(1, most))


def _header(image: Any) -> bytes:
    """The beginning of a picture's file, as far as it was read to open it."""
    place = image.fp.tell()
    image.fp.seek(0)
    start: bytes = image.fp.read(place)
    image.fp.seek(place)
    return start


def least_length(image: Any) -> int:
    """Bytes that a file of this format, size and kind of pixels has at least, whatever it shows; 0 if nothing is known.

    One colour is what compresses best, and these are bounds of its best compression.
    """
    width, height = image.size
    if image.format == "PNG":
        return int(height * (1 + width * _bits_of_png(image) // 8) // _DEFLATE)
    if image.format == "GIF":  # whose first frame may be a small part of it
        left, top, right, bottom = image.tile[0].extents if image.tile else (0, 0, 0, 0)
        return int((right - left) * (bottom - top) // _LZW)
    if image.format in ("JPEG", "MPO"):
        arithmetic = any(mark in _header(image) for mark in _ARITHMETIC)
        return 0 if arithmetic else int(width * height // _JPEG)
    if image.format == "TIFF" and (ratio := _TIFF.get(image.tag_v2.get(259, 1))):
        bits = _bits_of_tiff(image)
        whole = image.tag_v2.get(262) != 6  # else colour may have fewer samples than brightness
        return int(width * height * (sum(bits) if whole else bits[0]) // 8 // ratio)
    return 0


def _bits_of_png(image: Any) -> int:
    """Bits a pixel in the file, by the name of their layout ("P;4", "RGB;16B")."""
    channels, _, depth = str(image.tile[0].args if image.tile else "1").partition(";")
    if channels == "1":
        return 1
    count = 1 if channels == "I" else len(channels)
    return count * int("".join(filter(str.isdigit, depth)) or 8)


def _size_in_tiles(image: Any) -> tuple[int, int]:
    """Width and height of all tiles of a TIFF, which may be larger than the picture that they are parts of."""
    across, down = (max(1, int(image.tag_v2.get(tag, 1))) for tag in (322, 323))
    return -(-image.width // across) * across, -(-image.height // down) * down


def _bits_of_tiff(image: Any) -> tuple[int, ...]:
    """Bits of each sample of a pixel."""
    bits = tuple(map(int, image.tag_v2.get(258, (1,))))
    count = int(image.tag_v2.get(277, len(bits)))
    return bits * count if len(bits) == 1 else bits
