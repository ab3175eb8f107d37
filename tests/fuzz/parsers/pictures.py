"""Pictures of each format, decoded as for a model, for a report and for a check."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from captrain.data.check.pictures import look_at
from captrain.data.decode import MAX_PIXELS
from captrain.data.images import ImageSpec, encode_thumbnail, prepare
from captrain.report.pictures import thumbnail as report_thumbnail
from fuzz.inputs import Parser

SPECS = (
    ImageSpec(32, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ImageSpec(24, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), resize="crop", decode="fast"),
)


def read_picture(folder: Path) -> None:
    """One of the ways in which pictures are decoded, chosen by the bytes: each reads a share of the inputs."""
    (path,) = folder.iterdir()
    data = path.read_bytes()
    READS[zlib.crc32(data) % len(READS)](data)


def _prepared(data: bytes, spec: ImageSpec) -> None:
    pixels = prepare(data, spec)
    assert pixels.shape == (spec.height, spec.width, 3) and pixels.dtype == np.uint8, f"{pixels.shape} {pixels.dtype}"


def _reported(data: bytes) -> None:
    report_thumbnail(data)  # None where it can't be used: the report leaves it out


READS: tuple[Callable[[bytes], object], ...] = (
    partial(_prepared, spec=SPECS[0]),
    partial(_prepared, spec=SPECS[1]),
    partial(encode_thumbnail, edge=64),
    partial(look_at, max_pixels=MAX_PIXELS),
    _reported,
)


def _image(mode: str, size: tuple[int, int] = (37, 23)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    pixels[: size[1] // 2] = (200, 30, 30, 255)
    image = Image.fromarray(pixels, "RGBA")
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L"), dtype=np.uint16) * 257)
    return image.convert(mode) if mode in ("RGBA", "LA") else image.convert("RGB").convert(mode)


def _save(folder: Path, name: str, mode: str, **how: object) -> None:
    file = BytesIO()
    image = _image(mode)
    image.save(file, **how)
    (folder / name).write_bytes(file.getvalue())


def _frames(folder: Path, name: str, format: str) -> None:
    frames = [Image.new("RGB", (20, 20), (40 * number, 9, 9)) for number in range(3)]
    frames[0].save(folder / name, format, save_all=True, append_images=frames[1:])


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _seeds(name: str, *forms: tuple[str, dict[str, object]]) -> dict[str, Callable[[Path], object]]:
    return {f"{mode} {number}": partial(_save, name=name, mode=mode, **how) for number, (mode, how) in enumerate(forms)}


def _format(name: str, format: str, *forms: tuple[str, dict[str, object]], animated: bool = False) -> Parser:
    seeds = _seeds(name, *((mode, {"format": format, **how}) for mode, how in forms))
    if animated:  # not AVIF: its frames carry the time, so that no two runs have the same bytes
        seeds["frames"] = partial(_frames, name=name, format=format)
    return Parser(f"picture {format.lower()}", read_picture, seeds, quick=150)


PARSERS = (
    _format(
        "a.jpg", "JPEG", ("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True}), ("RGB", {"exif": _exif(6)}),
        ("RGB", {"subsampling": 0, "optimize": True}),
    ),
    _format("a.png", "PNG", ("RGB", {}), ("RGBA", {}), ("P", {}), ("L", {}), ("1", {}), ("I;16", {}), ("LA", {}), animated=True),
    _format("a.gif", "GIF", ("P", {}), ("L", {}), ("RGBA", {}), animated=True),
    _format("a.webp", "WEBP", ("RGB", {}), ("RGBA", {"lossless": True}), ("RGB", {"exif": _exif(3)}), animated=True),
    _format(
        "a.tif", "TIFF", ("RGB", {}), ("RGB", {"compression": "tiff_lzw"}), ("RGB", {"compression": "jpeg"}),
        ("1", {"compression": "group4"}), ("L", {"compression": "tiff_adobe_deflate"}), ("RGBA", {}), ("CMYK", {}), ("P", {}),
        ("I;16", {}), ("RGB", {"big_tiff": True}), ("RGB", {"compression": "packbits"}), animated=True,
    ),
    _format("a.bmp", "BMP", ("RGB", {}), ("P", {}), ("1", {}), ("L", {}), ("RGBA", {})),
    _format("a.avif", "AVIF", ("RGB", {}), ("RGBA", {})),
)  # fmt: skip
