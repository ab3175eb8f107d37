"""Thumbnails: small, upright, on white; what is no picture gives none."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from captrain.report import pictures
from captrain.report.pictures import Picture, thumbnail


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decoded(picture: Picture | None) -> Image.Image:
    assert picture is not None
    return Image.open(io.BytesIO(picture.data))


def test_a_photo_is_shrunk_to_jpeg_and_keeps_its_aspect(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (1600, 800), (200, 10, 10)).save(path)
    picture = thumbnail(path)
    assert picture is not None and (picture.width, picture.height, picture.crisp) == (320, 160, False)
    assert picture.uri.startswith("data:image/jpeg;base64,")
    assert decoded(picture).size == (320, 160)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_each_format_that_is_trained_on_is_shown(format: str) -> None:
    picture = thumbnail(encoded(Image.new("RGB", (400, 200), "green"), format))
    assert picture is not None and (picture.width, picture.height) == (320, 160)


def test_a_small_drawing_is_kept_pixel_by_pixel() -> None:
    drawing = Image.new("RGB", (16, 16), "blue")
    drawing.putpixel((3, 4), (255, 0, 0))
    picture = thumbnail(encoded(drawing))
    assert picture is not None and picture.crisp and picture.format == "png"
    assert decoded(picture).convert("RGB").tobytes() == drawing.tobytes()


def test_transparent_becomes_white_and_rotation_is_applied() -> None:
    assert decoded(thumbnail(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0))))).getpixel((0, 0)) == (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = thumbnail(encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif))
    assert turned is not None and (turned.width, turned.height) == (20, 40)


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "CMYK", "LA"])
def test_any_mode_is_shown(mode: str) -> None:
    assert thumbnail(encoded(Image.new(mode, (200, 150)), "TIFF" if mode == "CMYK" else "PNG")) is not None


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", encoded(Image.new("RGB", (64, 64)))[:60], b"%!PS-Adobe-3.0\n"]
)
def test_what_is_no_picture_gives_none(content: bytes) -> None:
    assert thumbnail(content) is None


def test_odd_paths_give_none(tmp_path: Path) -> None:
    assert thumbnail(tmp_path) is None
    assert thumbnail(tmp_path / "missing.jpg") is None
    assert thumbnail(tmp_path / ("long" * 200)) is None
    assert thumbnail(Path("nul\0byte")) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert thumbnail(tmp_path / "pipe.jpg") is None


def test_a_picture_with_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100)
    assert thumbnail(encoded(Image.new("RGB", (20, 20)))) is None
