"""Pictures that differ a little each time they are shown: random crops, mirroring, RandAugment.

Random numbers depend on the seed, the epoch and the sample only, and not on workers, order or batch size.

RandAugment (Cubuk et al. 2020) has the ten operations that BLIP was trained with. Strengths and signs follow LAVIS
(lavis/processors/randaugment.py; its BLIP recipe is 2 operations of magnitude 5), and so do the tables and the fill colour.
Two things to know of that recipe: at magnitude 5 the factor of brightness and sharpness is exactly 1, so they change
nothing; and shifts are in pixels of the target, not in shares of it.

LAVIS computes with OpenCV, this module with Pillow. What differs:
- Shears and rotations sample at the same places, but OpenCV rounds these to 1/32 pixel and the result to the nearest
  level, while Pillow rounds down: about a level, and a few on hard edges. OpenCV also blends the picture's last pixel
  into the fill colour, where Pillow cuts.
- LAVIS negates an unsigned 8-bit number in AutoContrast, which turns every channel without a 0 into plain white, and
  lets Sharpness above factor 1 wrap around at 0 and 255. Here both do what their names say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, cos, exp, log, radians, sin, sqrt
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from captrain.data.decode import Size, decode
from captrain.data.images import Box, ImageSpec, resized, with_fewer_rows
from captrain.errors import SettingsError
from captrain.memory_budget import counted
from captrain.picture_memory import MAX_PIXELS

__all__ = ["Augmentation", "generator", "mentions_sides", "prepare_augmented"]


@dataclass(frozen=True)
class Augmentation:
    """The random changes to a picture, in this order; nothing by default.

    crop_scale: the least and the greatest share of the picture's area that a random crop shows. flip: how often
    pictures are mirrored, 0 to 1. randaugment: number of operations and their magnitude, 0 to 10.

    >>> Augmentation().is_random, Augmentation(flip=0.5).is_random
    (False, True)
    >>> blip = Augmentation(crop_scale=(0.5, 1.0), flip=0.5, randaugment=(2, 5))  # as BLIP was trained
    """

    crop_scale: tuple[float, float] | None = None
    flip: float = 0.0
    randaugment: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise SettingsError(
                f"crop_scale {self.crop_scale}: expected two shares in rising order, above 0, at most 1"
            )
        if not 0 <= self.flip <= 1:
            raise SettingsError(f"flip {self.flip}: expected a probability from 0 to 1")
        if self.randaugment is not None and not (self.randaugment[0] >= 1 and 0 <= self.randaugment[1] <= MOST):
            raise SettingsError(
                f"randaugment {self.randaugment}: expected a number of operations, at least 1, and a magnitude from 0 to 10"
            )

    @property
    def is_random(self) -> bool:
        """Whether a picture can come out different from `captrain.data.images.prepare`'s."""
        return self.crop_scale is not None or self.flip > 0 or self.randaugment is not None


@counted()
def prepare_augmented(
    data: bytes,
    spec: ImageSpec,
    augmentation: Augmentation,
    random: np.random.Generator,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """An encoded picture as pixels, changed by chance: uint8 (height, width, 3), RGB, C-contiguous.

    The picture is set upright, cropped and resized in one go, mirrored, then given to RandAugment. A random crop takes
    the place of `spec`'s own and is squashed to its size, as torchvision's `RandomResizedCrop` does; what Pillow's filter
    sees just outside the crop counts at its border. Crops and mirroring draw the same numbers whether or not the other
    steps are on, so a step can be switched without changing the rest. `random` comes from `generator`.

    Raises `PictureError` as `prepare` does.
    """
    *crop_numbers, flip_number = random.random(NUMBERS + 1).tolist()
    if augmentation.crop_scale is None:
        image = resized(decode(data, max_pixels, spec.enough), spec)
    else:
        image, box = _cropped(data, spec, augmentation.crop_scale, crop_numbers, max_pixels)
        image = image.resize((spec.width, spec.height), Image.Resampling[spec.resample.upper()], box=box)
    if flip_number < augmentation.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augmentation.randaugment is not None:
        image = rand_augment(image, *augmentation.randaugment, random)
    return np.array(image)


def _cropped(
    data: bytes, spec: ImageSpec, scale: tuple[float, float], numbers: list[float], max_pixels: int
) -> tuple[Image.Image, Box]:
    """The picture, a JPEG that is decoded fast no larger than needed, and the part of it to show."""
    asked: list[Size] = []

    def enough(size: Size) -> Size:
        asked.append(size)
        left, top, right, bottom = crop_box(size, scale, numbers)
        return ceil(size[0] * spec.width / (right - left)), ceil(size[1] * spec.height / (bottom - top))

    image = decode(data, max_pixels, enough if spec.decode == "fast" else None)
    # Only a JPEG, which may be decoded smaller, needs to know which size is enough. The crop is for its full size.
    width, height = asked[0] if asked else image.size
    left, top, right, bottom = crop_box((width, height), scale, numbers)
    image = with_fewer_rows(image)
    across, down = image.width, image.height
    return image, (left * across / width, top * down / height, right * across / width, bottom * down / height)


_SIDES = re.compile(r"\b(?:left|right)(?:most|wards?|[ -]?(?:hand|side)(?:ed)?)?\b", re.IGNORECASE)
_NO_SIDES = re.compile(r"\b(?:all right|right (?:now|away))\b", re.IGNORECASE)


def mentions_sides(caption: str) -> bool:
    """Whether a caption speaks of left or right, so that it would be wrong for the mirrored picture. English only.

    Every `left` and `right` counts except in `right now`, `right away` and `all right`: a caption that is kept from
    mirroring for nothing ("a door left open") costs nothing. (Of Flickr8k's 30,000 captions about 120 say such a word.)

    >>> mentions_sides("a cup left of the plate"), mentions_sides("the leftmost cup"), mentions_sides("leftover cake")
    (True, True, False)
    """
    return _SIDES.search(_NO_SIDES.sub(" ", caption)) is not None


Use = Literal["picture", "caption"]


def generator(seed: int, draw: int, key: int, use: Use = "picture") -> np.random.Generator:
    """The random numbers of one sample in one draw.

    `draw` is an epoch's or a view's number, `key` the sample's `captrain.data.samples.key_of`. Pictures and captions get
    numbers of their own: with the same ones, the captions that are dropped would be those of the closest crops.

    >>> generator(0, 1, 7).random() == generator(0, 1, 7).random()
    True
    >>> len({generator(0, 1, 7, use).random() for use in ("picture", "caption")})
    2
    """
    place = (int(draw), int(key), get_args(Use).index(use))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(seed) % 2**64, spawn_key=place)))


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
