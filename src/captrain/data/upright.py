"""From what a decoder gives to upright RGB: a large picture in strips, so that no third copy of it is made."""

from __future__ import annotations

import numpy as np
from PIL import Image

from captrain.errors import PictureError

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
