"""A look at each picture: whether it can be used, how large it is, and what tells it from others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from captrain.data.check.headers import is_animated, orientation
from captrain.data.decode import Size, decode
from captrain.memory_budget import counted

EDGE = 32  # of the grey picture that the hash is taken of
DECODED = 2 * EDGE  # least edge that a JPEG is decoded at: libjpeg's own scaling is rough, and would move the hash
PATCH = 8  # edge of the colour picture that is kept to tell false alarms from true ones

_FREQUENCIES = np.cos(np.pi / EDGE * (np.arange(EDGE) + 0.5) * np.arange(8)[:, None])  # (8, 32): rows of a DCT


@dataclass(frozen=True, slots=True)
class Look:
    """What is kept of a picture: 250 bytes, whatever its size.

    content: 64 bits of the hash of its bytes. look: its perceptual hash. patch: uint8 (8 * 8 * 3), the picture in 8 x 8.
    """

    width: int
    height: int
    orientation: int
    animated: bool
    content: int
    look: int
    patch: np.ndarray


@counted()
def look_at(data: bytes, max_pixels: int) -> Look:
    """Decode a picture (a JPEG at an eighth of its size, which reads all of its bytes nevertheless) and sum it up.

    Raises `PictureError` for what training would reject.
    """
    content = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
    upright: list[Size] = []  # a JPEG's size before it is scaled down

    def enough(size: Size) -> Size:
        upright.append(size)
        return DECODED, DECODED

    image = decode(data, max_pixels, enough)
    width, height = upright[0] if upright else image.size
    patch = np.asarray(image.resize((PATCH, PATCH), Image.Resampling.BOX)).reshape(-1)
    return Look(width, height, orientation(data), is_animated(data), content, perceptual_hash(image), patch)


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that stay much the same when a picture is scaled, recompressed or made a little brighter.

    The signs, around their median, of the 8 x 8 lowest frequencies of the grey picture at 32 x 32 ("pHash", Zauner
    2010; as imagehash.phash).
    """
    grey = np.asarray(image.convert("L").resize((EDGE, EDGE), Image.Resampling.BOX), dtype=np.float64)
    low = (_FREQUENCIES @ grey @ _FREQUENCIES.T).reshape(-1)
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")
