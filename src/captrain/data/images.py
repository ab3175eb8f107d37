"""From an encoded picture to the pixels a model wants: one size, RGB, 8 bits. Normalising is left to the models."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from captrain.data.decode import Size, decode, to_rgb
from captrain.errors import PictureError, SettingsError, nearest
from captrain.memory_budget import counted
from captrain.picture_memory import MAX_PIXELS, check_size

__all__ = ["MAX_PIXELS", "Decode", "ImageSpec", "encode_thumbnail", "prepare", "prepare_image", "resized"]

Box = tuple[float, float, float, float]  # left, top, right, bottom

MOST_SCALED = 16 * 1024 * 1024
"""Most pixels of a whole picture that is scaled before its middle is cut out: of a strip 100 times as long as high."""

MOST_ROWS = 65_536
"""Rows of a picture, more than a JPEG can have, above which it is shortened first: Pillow makes a row of the result for each."""

LARGEST_EDGE = 4096
"""Longest edge, in pixels, of the pictures that a model sees; the largest models have about 1,500."""

Decode = Literal["exact", "fast"]

Resample = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class ImageSpec:
    """What a model wants of a picture: size in pixels, how to get there, mean and deviation of its training pictures.

    resize: "squash" stretches the whole picture to (height, width). "crop" scales its shortest edge to `resize_to` (by
    default the longer edge of the target) and cuts (height, width) out of the middle.

    decode: "exact" gives the pixels of transformers' Pillow processors, to the bit. "fast" lets libjpeg make a JPEG smaller
    while it decodes, where it is at least twice as large as needed: three to four times as fast for 12 megapixels, other pixels.

    >>> ImageSpec(224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), resize="crop", resize_to=256).resize_to
    256
    """

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["squash", "crop"] = "squash"
    resize_to: int | None = None
    resample: Resample = "bicubic"
    decode: Decode = "exact"

    def __post_init__(self) -> None:
        edges = (self.height, self.width, *(() if self.resize_to is None else (self.resize_to,)))
        if not all(type(edge) is int and 1 <= edge <= LARGEST_EDGE for edge in edges):
            raise SettingsError(
                f"image size {' x '.join(map(str, edges))[:80]}: expected numbers from 1 to {LARGEST_EDGE:,}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise SettingsError(f"image mean {self.mean} and std {self.std}: expected three numbers each, std above 0")
        if self.resize not in ("squash", "crop"):
            raise SettingsError(f"image resize '{self.resize}': expected 'squash' or 'crop'")
        if self.decode not in ("exact", "fast"):
            raise SettingsError(f"image decode '{self.decode}': expected 'exact' or 'fast'")
        if self.resample not in _RESAMPLE:
            hint = nearest(self.resample, _RESAMPLE)
            raise SettingsError(f"image resample '{self.resample}': expected one of {', '.join(_RESAMPLE)}.{hint}")
        if self.resize_to is not None and self.resize_to < max(self.height, self.width):
            raise SettingsError(
                f"image resize_to {self.resize_to}: expected at least the crop's edge, {max(self.height, self.width)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON or YAML; `from_dict` takes them back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ImageSpec:
        """The other way round.

        >>> spec = ImageSpec(2, 3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        >>> ImageSpec.from_dict(spec.to_dict()) == spec
        True
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise SettingsError(
                    f"image setting '{key}' is unknown: expected {', '.join(known)}.{nearest(key, known)}"
                )
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def scaled(self, size: Size) -> Size:
        """The size that a whole picture of `size` (width, height) is scaled to before any crop.

        >>> spec = ImageSpec(224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), resize="crop", resize_to=256)
        >>> spec.scaled((640, 480))
        (341, 256)
        """
        if self.resize == "squash":
            return self.width, self.height
        width, height = size
        edge = self.resize_to or max(self.height, self.width)
        # The long edge is rounded down and the crop's offset too, as the processors of CLIP and MobileNet do.
        return (edge, edge * height // width) if width <= height else (edge * width // height, edge)

    def enough(self, size: Size) -> Size | None:
        """The least size that a picture of `size` may be decoded at; None for its own."""
        return self.scaled(size) if self.decode == "fast" else None


@counted()
def prepare(data: bytes, spec: ImageSpec, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """An encoded picture as pixels: uint8 (height, width, 3), RGB, upright, C-contiguous.

    Reads JPEG (and the first picture of MPO), PNG, WebP, AVIF, GIF, BMP, TIFF and, with an extra, HEIC, whatever the file is
    called; the first frame of animations. Colour profiles are ignored, as in the pictures that the published models were
    trained on.

    Raises `PictureError` with a reason worded to follow a file name: "is truncated (...)", "has 400000000 pixels, over
    ...".
    """
    return np.array(resized(decode(data, max_pixels, spec.enough), spec))


_opening = threading.Lock()


def prepare_image(image: Image.Image, spec: ImageSpec) -> np.ndarray:
    """An image of Pillow as pixels, as `prepare` makes them of a file; any thread may call it, with the same image too.

    Raises `PictureError` for an image that can't be loaded, or has more than `MAX_PIXELS`.
    """
    check_size(image.size, MAX_PIXELS)
    try:
        with _opening:  # an opened file is read now, and Pillow reads it for one thread at a time
            image.load()
            upright = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(f"can't be read: {error}") from None
    return np.array(resized(to_rgb(upright), spec))


def resized(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """A picture at the size that `spec` asks for, by its rule.

    A crop scales the whole picture and cuts afterwards, as transformers does: Pillow keeps the corners of a box in single
    precision, so that scaling the box alone gives a few pixels another value. Strips that would grow out of all measure
    are cut first.

    >>> resized(Image.new("RGB", (80, 40)), ImageSpec(2, 3, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), resize="crop")).size
    (3, 2)
    """
    filter_, target = _RESAMPLE[spec.resample], (spec.width, spec.height)
    width, height = spec.scaled(image.size)
    image = with_fewer_rows(image)
    if spec.resize == "squash":
        return image.resize(target, filter_)
    left, top = (width - spec.width) // 2, (height - spec.height) // 2
    corners = (left, top, left + spec.width, top + spec.height)
    if width * height <= MOST_SCALED:
        return image.resize((width, height), filter_).crop(corners)
    return image.resize(target, filter_, box=_before(corners, (width, height), image.size))


def with_fewer_rows(image: Image.Image) -> Image.Image:
    """A picture of no more than `MOST_ROWS` rows; any that has no more, as it is.

    >>> with_fewer_rows(Image.new("RGB", (1, 70_000))).size
    (1, 65536)
    """
    return image if image.height <= MOST_ROWS else image.resize((image.width, MOST_ROWS), Image.Resampling.BOX)


def _before(corners: tuple[int, int, int, int], scaled: Size, size: Size) -> Box:
    """Where the corners of a scaled picture are in the picture of `size`.

    >>> _before((1, 0, 3, 2), (4, 2), (8, 4))
    (2.0, 0.0, 6.0, 4.0)
    """
    across, down = size[0] / scaled[0], size[1] / scaled[1]
    left, top, right, bottom = corners
    return left * across, top * down, min(right * across, size[0]), min(bottom * down, size[1])


@counted()
def encode_thumbnail(data: bytes, edge: int) -> bytes:
    """A small JPEG for reports: the whole picture, upright, its longest edge at most `edge` pixels, never enlarged.

    Raises `PictureError` as `prepare` does.
    """

    def fit(size: Size) -> Size:
        scale = min(1.0, edge / max(size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    image = decode(data, MAX_PIXELS, fit)
    small = image.resize(fit(image.size), Image.Resampling.BICUBIC)
    file = BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()
