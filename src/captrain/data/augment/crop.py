"""Which part of a picture a random crop shows."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt

from captrain.data.decode import Size

Corners = tuple[int, int, int, int]  # left, top, right, bottom

TRIES = 10
NUMBERS = 2 * TRIES + 2  # random numbers that a crop uses up, however many tries it takes
NARROWEST, WIDEST = 3 / 4, 4 / 3  # width / height


def crop_box(size: Size, scale: tuple[float, float], numbers: Sequence[float]) -> Corners:
    """A crop of a picture of `size` (width, height), in whole pixels.

    Its share of the picture's area is uniform over `scale`, its width / height log-uniform from 3/4 to 4/3. A pair that
    does not fit into the picture is drawn again; after ten of them the middle is taken, as much as those aspects allow.
    This is the rule of torchvision's `RandomResizedCrop`, after Szegedy et al. 2015, "Going deeper with convolutions".

    `numbers`: `NUMBERS` of them, uniform over [0, 1).

    >>> crop_box((640, 480), (0.25, 1.0), [0.0, 0.5, *[0.5] * 20])
    (182, 102, 459, 379)
    >>> crop_box((400, 100), (1.0, 1.0), [0.5] * 22)
    (133, 0, 266, 100)
    """
    across, down = numbers[-2:]
    for attempt in range(TRIES):
        width, height = _drawn(size, scale, numbers[2 * attempt], numbers[2 * attempt + 1])
        if 0 < width <= size[0] and 0 < height <= size[1]:
            left, top = int(across * (size[0] - width + 1)), int(down * (size[1] - height + 1))
            return left, top, left + width, top + height
    return _middle(size)


def _drawn(size: Size, scale: tuple[float, float], area: float, aspect: float) -> Size:
    pixels = size[0] * size[1] * (scale[0] + (scale[1] - scale[0]) * area)
    ratio = exp(log(NARROWEST) + (log(WIDEST) - log(NARROWEST)) * aspect)
    return round(sqrt(pixels * ratio)), round(sqrt(pixels / ratio))


def _middle(size: Size) -> Corners:
    width, height = size
    ratio = min(max(width / height, NARROWEST), WIDEST)
    width, height = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height
