"""Small pictures for a page: decoded with care, shrunk, and written as data URIs."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from captrain.memory_budget import counted
from captrain.picture_bytes import check_scans, check_start
from captrain.picture_memory import bytes_beside, bytes_to_decode, check_memory, take_for

LONGEST = 320  # pixels of a thumbnail's longer side
CRISP_BELOW = 128  # pictures this small are drawings as a rule: kept without loss, enlarged without blur
MOST_PIXELS = 64_000_000  # a page is made of small pictures; the limit of those that are trained on is higher
MOST_BYTES = 64 * 1024 * 1024
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")  # never PostScript: Pillow hands it to another program


@dataclass(frozen=True, slots=True)
class Picture:
    """A thumbnail: its encoded bytes ("jpeg" or "png"), its size, and whether to enlarge it pixel by pixel.

    >>> Picture(b"abc", "png", 8, 8, True).uri
    'data:image/png;base64,YWJj'
    """

    data: bytes
    format: str
    width: int
    height: int
    crisp: bool = False

    @property
    def uri(self) -> str:
        """The picture itself as an address, so that a page needs no other file."""
        return f"data:image/{self.format};base64,{base64.b64encode(self.data).decode('ascii')}"


@counted()
def thumbnail(image: Path | bytes, longest: int = LONGEST) -> Picture | None:
    """A picture (file or encoded bytes) shrunk to `longest` pixels, upright and on white; None if it can't be used.

    Pictures of up to 128 pixels keep their size and stay PNG, all others become JPEG.
    """
    try:
        encoded = image if isinstance(image, bytes) else _read(image)
        check_start(encoded, MOST_PIXELS)
        with _silent(), Image.open(io.BytesIO(encoded), formats=FORMATS) as opened:
            check_memory(opened, len(encoded), MOST_PIXELS)
            if opened.format in ("JPEG", "MPO"):
                check_scans(opened.size, encoded)
            beside = bytes_beside(opened)
            opened.draft("RGB", (longest, longest))
            take_for(2 * bytes_to_decode(opened, beside, turned=True))  # turned, and on white
            small = _on_white(ImageOps.exif_transpose(opened), longest)
    except Exception:  # Pillow raises many kinds for broken files, and a report must not fail for one of its pictures
        return None
    return _encode(small)


@contextmanager
def _silent() -> Iterator[None]:
    """Without Pillow's remarks on odd files and large pictures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read(path: Path) -> bytes:
    """The bytes of a regular file of bearable size (no device, no pipe)."""
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise OSError(f"{path}: not a picture file of up to {MOST_BYTES} bytes")
    return path.read_bytes()


def _on_white(image: Image.Image, longest: int) -> Image.Image:
    """RGB, at most `longest` pixels wide and high; what is transparent becomes white."""
    has_alpha = image.has_transparency_data
    image = image.convert("RGBA" if has_alpha else "RGB")
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    if not has_alpha:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _encode(image: Image.Image) -> Picture:
    crisp = max(image.size) <= CRISP_BELOW
    file = io.BytesIO()
    if crisp:
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=80, optimize=True)
    return Picture(file.getvalue(), "png" if crisp else "jpeg", image.width, image.height, crisp)
