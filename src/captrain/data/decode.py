"""From encoded pictures to upright RGB. Bad bytes raise `PictureError`, nothing else, and never warn.

Pillow's plugins are used by name instead of through `Image.open`, for three reasons: only the formats below are ever
tried, the pixel limit is the caller's instead of Pillow's process-wide one, and Pillow does not parse a JPEG's EXIF block
(and warn about it). A large picture is turned to upright RGB in strips, so that no third copy of it is made.
"""

from __future__ import annotations

import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import TypeVar

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from captrain.data.picture_files import HAS_HEIF, HEIF_NEEDED, LONGEST_MARK, suffix_of_brands
from captrain.disk.reading import POINTER, is_pointer
from captrain.errors import CaptrainError, PictureError
from captrain.picture_bytes import check_scans, check_start, size_of_webp
from captrain.picture_memory import MAX_PIXELS, bytes_beside, bytes_to_decode, check_memory, take_for

Size = tuple[int, int]  # width, height
T = TypeVar("T")


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF block Pillow does not read: `orientation_of` does, and stays silent about broken ones."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


# First bytes → decoder. The file's name does not matter.
_DECODERS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": _JpegFile,  # and MPO, whose first picture is a plain JPEG
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"GIF87a": GifImagePlugin.GifImageFile,
    b"GIF89a": GifImagePlugin.GifImageFile,
    b"II*\x00": TiffImagePlugin.TiffImageFile,
    b"MM\x00*": TiffImagePlugin.TiffImageFile,
    b"II+\x00": TiffImagePlugin.TiffImageFile,  # BigTIFF
    b"MM\x00+": TiffImagePlugin.TiffImageFile,
}

_ELSE = (  # what people have instead of a picture: where it shows, how, its name
    (4, b"ftyp", "a film"),
    (0, b"<", "a web page, SVG or other text"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\x03\x04", "a ZIP archive"),
)

_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def decode(data: bytes, max_pixels: int, enough: Callable[[Size], Size | None] | None = None) -> Image.Image:
    """The (first) picture in `data`: mode RGB, upright, alpha laid over white.

    `enough` maps the upright (width, height) to the smallest size that the caller can use. A JPEG is then decoded at
    the smallest of the scales 1/8, 1/4, 1/2, 1 that is not below it, which skips most of the work. Without `enough`, or
    where it says None, the pixels are those that Pillow gives anybody.

    Raises `PictureError` with a reason worded to follow a file name: "is truncated (...)".
    """
    with _only_picture_errors(data):
        return _decode(data, max_pixels, enough)


@contextmanager
def _only_picture_errors(data: bytes) -> Iterator[None]:
    """Any failure is a `PictureError`."""
    if not data:
        raise PictureError("is empty (0 bytes)")
    try:
        yield
    except CaptrainError:
        raise
    except Image.DecompressionBombError:
        raise PictureError("unpacks to far more pixels than its header says or Pillow allows; scale it down") from None
    except MemoryError:
        raise PictureError("needs more memory than there is; scale it down") from None
    except (
        Exception
    ) as error:  # Pillow's decoders raise a dozen kinds on broken bytes (EOFError, struct.error, KeyError, ...)
        raise PictureError(_reason(error, data)) from None


def _decode(data: bytes, max_pixels: int, enough: Callable[[Size], Size | None] | None) -> Image.Image:
    decoder = _decoder_of(data)
    with _without_warnings(decoder, data):
        image = _open(decoder, data, max_pixels)
        _check(image, data, max_pixels)
        beside, orientation = bytes_beside(image), _turn(image)
        if enough is not None and isinstance(image, _JpegFile):
            _draft(image, orientation, enough)
        take_for(bytes_to_decode(image, beside, orientation != 1))
        _by_our_limit(image.load)
        vars(image).pop("_decoder", None)  # that of WebP and AVIF, which keeps its canvases
        image.fp = None
    if isinstance(image, PngImagePlugin.PngImageFile):  # whose orientation may come after its pixels
        orientation = _turn(image)
    return to_rgb(image, orientation)


def _turn(image: ImageFile.ImageFile) -> int:
    """How a picture has to be rotated. A TIFF's orientation is a tag of the file itself; Pillow applies it while loading."""
    return 1 if isinstance(image, TiffImagePlugin.TiffImageFile) else _orientation(image)


def stored_size(data: bytes) -> Size:
    """Width and height of an encoded picture as they are stored; nothing is decoded. Raises `PictureError`."""
    with _only_picture_errors(data):
        decoder = _decoder_of(data)
        if decoder is WebPImagePlugin.WebPImageFile:
            return size_of_webp(data)
        with _without_warnings(decoder, data):
            return _open(decoder, data, MAX_PIXELS).size


def _open(decoder: type[ImageFile.ImageFile], data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """A picture whose header is read; what Pillow's readers of WebP and JPEG do with one at once is bounded before."""
    check_start(data, max_pixels)
    if decoder is GifImagePlugin.GifImageFile:  # whose frame may be larger than the screen, whose size Pillow checks
        return decoder(BytesIO(data))
    return _by_our_limit(lambda: decoder(BytesIO(data)))


def _by_our_limit(act: Callable[[], T]) -> T:
    """Call Pillow without its own, lower limit of pixels; the caller's was already checked."""
    try:
        return act()
    except Image.DecompressionBombError:
        pass
    with _PILLOWS_LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return act()
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _decoder_of(data: bytes) -> type[ImageFile.ImageFile]:
    if data[4:8] == b"ftyp" and (kind := suffix_of_brands(data[:LONGEST_MARK])):
        return AvifImagePlugin.AvifImageFile if kind == ".avif" else _heif_decoder()
    for magic, decoder in _DECODERS.items():
        if data.startswith(magic) and (magic != b"RIFF" or data[8:12] in (b"WEBP", b"")):
            return decoder
    if is_pointer(data):
        raise PictureError(POINTER)
    found = next((f"; it looks like {name}" for at, mark, name in _ELSE if data.startswith(mark, at)), "")
    raise PictureError(f"is not a JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF picture{found}")


def _heif_decoder() -> type[ImageFile.ImageFile]:
    """The decoder of phones' HEIC pictures, which an extra brings. It turns them upright by itself."""
    if not HAS_HEIF:
        raise PictureError(f"is a HEIC picture; {HEIF_NEEDED}")
    from pillow_heif import HeifImageFile

    return HeifImageFile


def _check(image: ImageFile.ImageFile, data: bytes, max_pixels: int) -> None:
    """Refuse by the header and the length alone, before memory or time is asked for."""
    check_memory(image, len(data), max_pixels)
    if isinstance(image, _JpegFile):
        check_scans(image.size, data)


def _draft(image: _JpegFile, orientation: int, enough: Callable[[Size], Size | None]) -> None:
    """Ask libjpeg for a smaller picture. It knows nothing of EXIF: where that turns by 90 degrees, edges swap."""
    turned = orientation >= 5
    least = enough((image.height, image.width) if turned else (image.width, image.height))
    if least is None:
        return
    width, height = least
    image.draft(None, (height, width) if turned else (width, height))


def _orientation(image: ImageFile.ImageFile) -> int:
    """How a picture is turned, 1 to 8, found where Pillow's `exif_transpose` looks: in EXIF, else in XMP."""
    exif = image.info.get("exif") or b""
    if not exif and "Raw profile type exif" in image.info:  # as ImageMagick wrote into PNGs
        with suppress(ValueError):
            exif = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
    stated = _stated(exif)
    if stated is None:
        xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
        found = _IN_XMP.search(xmp.encode(errors="ignore") if isinstance(xmp, str) else xmp)
        stated = int(found[1]) if found else 1
    return stated if 1 <= stated <= 8 else 1


def orientation_of(exif: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or the block is broken, as browsers do.

    >>> orientation_of(b"MM\\0*\\0\\0\\0\\x08" + b"\\0\\x01" + b"\\x01\\x12\\0\\x03\\0\\0\\0\\x01\\0\\x06\\0\\0")
    6
    >>> orientation_of(b"Exif\\0\\0MM\\0*")
    1
    """
    stated = _stated(exif)
    return 1 if stated is None or not 1 <= stated <= 8 else stated


def _stated(exif: bytes) -> int | None:
    """The orientation that an EXIF block states, whatever it is; None if there is none or the block is broken."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, entry + 8)
                return int(value)
    except struct.error:
        pass
    return None


_WARNINGS = threading.Lock()
_PILLOWS_LIMIT = threading.Lock()


@contextmanager
def _without_warnings(decoder: type[ImageFile.ImageFile], data: bytes) -> Iterator[None]:
    """Silence Pillow's warnings about odd TIFF, GIF and animated PNG files; other decoders give none.

    Python's warning filters belong to the process, so threads take turns here; the common formats don't wait.
    """
    odd = decoder in (TiffImagePlugin.TiffImageFile, GifImagePlugin.GifImageFile) or b"acTL" in data[:4096]
    if not odd:
        yield
        return
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reason(error: Exception, data: bytes) -> str:
    """Pillow's words as a reason worded to follow a file name."""
    detail = " ".join(str(error).split()) or type(error).__name__
    if data[:4] == b"RIFF" and (declared := int.from_bytes(data[4:8], "little") + 8) > len(data):
        return f"is truncated ({len(data)} of {declared} bytes)"
    if "truncated" in detail.lower():
        return f"is truncated ({len(data)} bytes; {detail})"
    return f"is broken ({detail})"


WHOLE = 4 * 1024 * 1024
"""Pixels of a picture that is converted in one go."""

STRIP = 1024 * 1024
"""Pixels of a larger one that are converted at a time. The result is the same: each pixel is converted by itself."""

TURNS = {  # EXIF orientation → the turn that sets the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_rgb(image: Image.Image, orientation: int = 1) -> Image.Image:
    """Any mode as 8-bit RGB, upright: 16-bit samples scaled (not cut off), transparent pixels laid over white.

    Args:
        orientation: how the picture is turned, as EXIF says it, 1 to 8.

    >>> to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if image.mode == "F":
        raise PictureError("has floating-point pixels, which have no agreed white; save it with 8 bits a channel")
    if image.mode == "I":
        least, most = image.getextrema()
        if least < 0 or most > 65535:  # type: ignore[operator]
            raise PictureError("has 32-bit pixels, which have no agreed white; save it with 8 or 16 bits a channel")
    turn = TURNS.get(orientation)
    if image.mode == "RGB" and not image.has_transparency_data and turn is None:
        return image
    if image.width * image.height <= WHOLE:
        return _turned(_converted(image), turn)
    return _by_strips(image, turn)


def _by_strips(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """Convert and turn strip after strip into the result, which is all that is made beside the picture itself."""
    width, height = image.size
    across = turn is not None and turn in _SWAPPING
    upright = Image.new("RGB", (height, width) if across else (width, height))
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        strip = _turned(_converted(image.crop((0, top, width, bottom))), turn)
        place = height - bottom if turn in _FROM_THE_END else top
        upright.paste(strip, (place, 0) if across else (0, place))
    return upright


_SWAPPING = (TURNS[5], TURNS[6], TURNS[7], TURNS[8])  # width becomes height
_FROM_THE_END = (TURNS[3], TURNS[4], TURNS[6], TURNS[7])  # the first row comes last


def _turned(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)


def _converted(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bit(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, (255, 255, 255))
        canvas.paste(layer, mask=layer)
        return canvas
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (mode I;16, or I in some files) as 8 bits: 65535 becomes 255. By a table, to save memory."""
    table = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)
    return Image.fromarray(table[np.asarray(image)])
