"""Encoded pictures in, upright RGB out. Nothing but `PictureError` comes out of bad bytes, and no warning either.

Pillow's plugins are used by name instead of through `Image.open`, for three reasons: only the formats below are ever
tried, the pixel limit is the caller's instead of Pillow's process-wide one, and a JPEG's EXIF block is not parsed (and
warned about) by Pillow.
"""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO

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

from captrain.data.suffixes import HAS_HEIF, HEIF_NEEDED, LONGEST_MARK, suffix_of_brands
from captrain.errors import PictureError
from captrain.lfs import POINTER, is_pointer

# The largest phone sensors give 16320 x 12240, just under this. Decoded, that is 0.8 GB at Pillow's four bytes a pixel
# (a JPEG is decoded at a fraction of it); what is larger is a map, a scan to be tiled, or an attack. A server should
# pass a lower limit.
MAX_PIXELS = 200_000_000

Size = tuple[int, int]  # width, height


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF block Pillow does not read: `orientation_of` does, and stays silent about broken ones."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


# First bytes → who decodes them. What a file is called does not matter.
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

_UPRIGHT = {  # EXIF orientation → the turn that sets the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, max_pixels: int, enough: Callable[[Size], Size] | None = None) -> Image.Image:
    """The (first) picture in `data`: mode RGB, upright, alpha laid over white.

    `enough` maps the upright (width, height) to the smallest size that the caller can use. A JPEG is then decoded at
    the smallest of the scales 1/8, 1/4, 1/2, 1 that is not below it, which skips most of the work.

    Raises `PictureError` with a reason to be read after a file name: "is truncated (...)".
    """
    if not data:
        raise PictureError("is empty (0 bytes)")
    try:
        return _decode(data, max_pixels, enough)
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise PictureError("unfolds to far more pixels than its header says or Pillow allows; scale it down") from None
    except MemoryError:
        raise PictureError("needs more memory than there is; scale it down") from None
    except (
        Exception
    ) as error:  # Pillow's decoders raise a dozen kinds on broken bytes (EOFError, struct.error, KeyError, ...)
        raise PictureError(_reason(error, data)) from None


def _decode(data: bytes, max_pixels: int, enough: Callable[[Size], Size] | None) -> Image.Image:
    decoder = _decoder_of(data)
    with _without_warnings(decoder, data):
        image = decoder(BytesIO(data))
        _check_pixels(image, max_pixels)
        orientation = orientation_of(image.info.get("exif", b""))
        if enough is not None and isinstance(image, _JpegFile):
            _draft(image, orientation, enough)
        image.load()
    upright = to_rgb(image)
    # A TIFF's orientation is a tag of the file itself; Pillow has applied it while loading.
    if orientation in _UPRIGHT and not isinstance(image, TiffImagePlugin.TiffImageFile):
        upright = upright.transpose(_UPRIGHT[orientation])
    return upright


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


def _check_pixels(image: ImageFile.ImageFile, max_pixels: int) -> None:
    """Refuse by the header alone, before memory is asked for."""
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # a tile may be larger than the picture it is part of
        tile_width, tile_height = (int(image.tag_v2.get(tag, 1)) for tag in (322, 323))
        width, height = max(width, tile_width), max(height, tile_height)
    if width < 1 or height < 1:
        raise PictureError(f"has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise PictureError(f"has {width * height} pixels, over the limit of {max_pixels}; scale it down")


def _draft(image: _JpegFile, orientation: int, enough: Callable[[Size], Size]) -> None:
    """Ask libjpeg for a smaller picture. It knows nothing of EXIF: where that turns by 90 degrees, edges swap."""
    turned = orientation >= 5
    width, height = enough((image.height, image.width) if turned else (image.width, image.height))
    image.draft(None, (height, width) if turned else (width, height))


def orientation_of(exif: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or the block is broken, as browsers do.

    >>> orientation_of(b"MM\\0*\\0\\0\\0\\x08" + b"\\0\\x01" + b"\\x01\\x12\\0\\x03\\0\\0\\0\\x01\\0\\x06\\0\\0")
    6
    >>> orientation_of(b"Exif\\0\\0MM\\0*")
    1
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB: 16-bit samples scaled (not cut off), transparent pixels laid over white.

    >>> to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if image.mode.startswith("I"):
        return _from_16_bit(image).convert("RGB")
    if image.mode == "F":
        raise PictureError("has floating-point pixels, which have no agreed white; save it with 8 bits a channel")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, (255, 255, 255))
        canvas.paste(layer, mask=layer)
        return canvas
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (mode I;16, or I in some files) as 8 bits: 65535 becomes 255. By a table, to save memory."""
    values = np.asarray(image)
    if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
        raise PictureError("has 32-bit pixels, which have no agreed white; save it with 8 or 16 bits a channel")
    table = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)
    return Image.fromarray(table[values])


_WARNINGS = threading.Lock()


@contextmanager
def _without_warnings(decoder: type[ImageFile.ImageFile], data: bytes) -> Iterator[None]:
    """Keep Pillow's remarks on odd TIFF, GIF and animated PNG files to ourselves; other decoders make none.

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
    """Pillow's words as a reason to be read after a file name."""
    detail = " ".join(str(error).split()) or type(error).__name__
    if data[:4] == b"RIFF" and (declared := int.from_bytes(data[4:8], "little") + 8) > len(data):
        return f"is truncated ({len(data)} of {declared} bytes)"
    if "truncated" in detail.lower():
        return f"is truncated ({len(data)} bytes; {detail})"
    return f"is broken ({detail})"
