"""RandAugment (Cubuk et al. 2020) with the ten operations that BLIP was trained with.

Strengths and signs follow LAVIS (lavis/processors/randaugment.py; its BLIP recipe is 2 operations of magnitude 5), and so
do the tables and the fill colour. Two things to know of that recipe: at magnitude 5 the factor of brightness and
sharpness is exactly 1, so they change nothing; and shifts are in pixels of the target, not in shares of it.

LAVIS computes with OpenCV, this module with Pillow. What differs:
- Shears and rotations sample at the same places, but OpenCV rounds these to 1/32 pixel and the result to the nearest
  level, while Pillow rounds down: about a level, and a few on hard edges. OpenCV also blends the picture's last pixel
  into the fill colour, where Pillow cuts.
- LAVIS negates an unsigned 8-bit number in AutoContrast, which turns every channel without a 0 into plain white, and
  lets Sharpness above factor 1 wrap around at 0 and 255. Here both do what their names say.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, radians, sin

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MOST = 10  # the greatest magnitude
CHANCE = 0.5  # of each drawn operation to be carried out
_FILL = (128, 128, 128)

Rows = tuple[float, float, float, float, float, float]  # x' = a x + b y + c, y' = d x + e y + f

Operation = Callable[[Image.Image, float], Image.Image]


def rand_augment(image: Image.Image, count: int, magnitude: int, random: np.random.Generator) -> Image.Image:
    """`count` operations, drawn with replacement, each of them carried out in half of the cases, on an RGB picture.

    `magnitude` runs from 0 to 10. Operations with a direction take either side by chance. Always draws 3 numbers an
    operation.
    """
    for choice, chance, side in random.random((count, 3)).tolist():
        if chance <= CHANCE:
            operation = OPERATIONS[int(choice * len(OPERATIONS))]
            image = operation(image, (1 if side <= 0.5 else -1) * magnitude / MOST)
    return image


def identity(image: Image.Image, strength: float) -> Image.Image:
    """The picture as it is."""
    return image


def auto_contrast(image: Image.Image, strength: float) -> Image.Image:
    """Each channel stretched so that it reaches from 0 to 255."""
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image, strength: float) -> Image.Image:
    """Each channel's levels spread so that about as many pixels have each."""
    return ImageOps.equalize(image)


def brightness(image: Image.Image, strength: float) -> Image.Image:
    """Every level multiplied by 0.1 to 1.9."""
    return ImageEnhance.Brightness(image).enhance(_factor(strength))


def sharpness(image: Image.Image, strength: float) -> Image.Image:
    """Blurred (factor 0.1) to sharpened (factor 1.9); the outermost pixels stay."""
    return ImageEnhance.Sharpness(image).enhance(_factor(strength))


def shear_x(image: Image.Image, strength: float) -> Image.Image:
    """Each row moved right by up to 0.3 of its distance from the top."""
    return _warped(image, (1, -0.3 * strength, 0, 0, 1, 0))


def shear_y(image: Image.Image, strength: float) -> Image.Image:
    """Each column moved down by up to 0.3 of its distance from the left."""
    return _warped(image, (1, 0, 0, -0.3 * strength, 1, 0))


def translate_x(image: Image.Image, strength: float) -> Image.Image:
    """Moved left by up to 10 pixels."""
    return _warped(image, (1, 0, 10 * strength, 0, 1, 0))


def translate_y(image: Image.Image, strength: float) -> Image.Image:
    """Moved up by up to 10 pixels."""
    return _warped(image, (1, 0, 0, 0, 1, 10 * strength))


def rotate(image: Image.Image, strength: float) -> Image.Image:
    """Turned anticlockwise by up to 30 degrees, about the pixel in the middle."""
    angle, x, y = radians(30 * strength), image.width / 2, image.height / 2
    right, down = cos(angle), sin(angle)
    return _warped(image, (right, -down, x - right * x + down * y, down, right, y - down * x - right * y))


# The order is part of what a seed means.
OPERATIONS: tuple[Operation, ...] = (
    identity,
    auto_contrast,
    brightness,
    sharpness,
    equalize,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    rotate,
)


def _factor(strength: float) -> float:
    return abs(strength) * 1.8 + 0.1


def _warped(image: Image.Image, rows: Rows) -> Image.Image:
    """Each pixel taken from where `rows` maps its column and row. Grey comes in from outside the picture."""
    a, b, c, d, e, f = rows
    # Pillow's coordinates count from the picture's corner, OpenCV's (in `rows`) from the middle of the first pixel.
    c, f = c + 0.5 - (a + b) / 2, f + 0.5 - (d + e) / 2
    return image.transform(
        image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR, fillcolor=_FILL
    )
