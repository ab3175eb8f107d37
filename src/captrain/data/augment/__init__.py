"""Pictures that differ a little each time they are shown: random crops, mirrored ones, RandAugment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil

import numpy as np
from PIL import Image

from captrain.data.augment.crop import NUMBERS, crop_box
from captrain.data.augment.draws import generator
from captrain.data.augment.randaugment import MOST, rand_augment
from captrain.data.decode import Size, decode
from captrain.data.images import Box, ImageSpec, resized, shortened
from captrain.errors import SettingsError
from captrain.memory_budget import counted
from captrain.picture_memory import MAX_PIXELS

__all__ = ["Augmentation", "generator", "mentions_sides", "prepare_augmented"]


@dataclass(frozen=True)
class Augmentation:
    """What is done to a picture by chance, in this order; nothing by default.

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
    # Only a JPEG, which may be decoded smaller than it is, asks for what is enough. The crop is that of its full size.
    width, height = asked[0] if asked else image.size
    left, top, right, bottom = crop_box((width, height), scale, numbers)
    image = shortened(image)
    across, down = image.width, image.height
    return image, (left * across / width, top * down / height, right * across / width, bottom * down / height)


_SIDES = re.compile(r"\b(?:left|right)(?:most|wards?|[ -]?(?:hand|side)(?:ed)?)?\b", re.IGNORECASE)
_NO_SIDES = re.compile(r"\b(?:all right|right (?:now|away))\b", re.IGNORECASE)


def mentions_sides(caption: str) -> bool:
    """Whether a caption speaks of left or right, so that it would be wrong for the mirrored picture. English only.

    Every `left` and `right` counts but those of `right now`, `right away` and `all right`: a caption that is kept from
    mirroring for nothing ("a door left open") costs nothing. (Of Flickr8k's 30,000 captions about 120 say such a word.)

    >>> mentions_sides("a cup left of the plate"), mentions_sides("the leftmost cup"), mentions_sides("leftover cake")
    (True, True, False)
    """
    return _SIDES.search(_NO_SIDES.sub(" ", caption)) is not None
