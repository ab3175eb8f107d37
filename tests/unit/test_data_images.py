"""Pictures in, pixels out: every mode, every orientation, and nothing but `PictureError` from broken bytes."""

from __future__ import annotations

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from captrain.data.images import MAX_PIXELS, ImageSpec, encode_thumbnail, prepare, prepare_image
from captrain.errors import PictureError, SettingsError

HALF = (0.5, 0.5, 0.5)
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
UNDO = {  # EXIF orientation → how a camera that writes it has turned the upright picture
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture(autouse=True)
def no_warning_leaks() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def square(edge: int, **rest: Any) -> ImageSpec:
    return ImageSpec(edge, edge, HALF, HALF, **rest)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """A smooth picture without any symmetry."""
    down, across = np.mgrid[0:height, 0:width]
    channels = (across * 255 // width, down * 255 // height, (across * down) % 97 // 4 + 60)
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def first_pixel(data: bytes) -> tuple[int, ...]:
    return tuple(int(value) for value in prepare(data, square(2, resample="nearest"))[0, 0])


def grey16(value: int) -> Image.Image:
    return Image.fromarray(np.full((4, 4), value, np.uint16))


def palette(transparent: bool) -> bytes:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*GREEN, *BLUE])
    return encode(image, "PNG", **({"transparency": 1} if transparent else {}))


def animation(format: str) -> bytes:
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, BLUE)]
    options = {"lossless": True} if format == "WEBP" else {}
    return encode(frames[0], format, save_all=True, append_images=frames[1:], **options)


MODES: dict[str, tuple[bytes, tuple[int, int, int]]] = {
    "rgb png": (encode(Image.new("RGB", (4, 4), RED), "PNG"), RED),
    "rgb bmp": (encode(Image.new("RGB", (4, 4), RED), "BMP"), RED),
    "rgb webp": (encode(Image.new("RGB", (4, 4), RED), "WEBP", lossless=True), RED),
    "rgb tiff": (encode(Image.new("RGB", (4, 4), RED), "TIFF"), RED),
    "lzw tiff": (encode(Image.new("RGB", (4, 4), RED), "TIFF", compression="tiff_lzw"), RED),
    "grey": (encode(Image.new("L", (4, 4), 77), "PNG"), (77, 77, 77)),
    "one bit white": (encode(Image.new("1", (4, 4), 1), "PNG"), WHITE),
    "one bit black": (encode(Image.new("1", (4, 4), 0), "PNG"), BLACK),
    "palette": (palette(False), BLUE),
    "palette with a clear colour": (palette(True), WHITE),
    "gif": (encode(Image.new("RGB", (4, 4), BLUE), "GIF"), BLUE),
    "clear": (encode(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG"), WHITE),
    "half clear": (encode(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG"), (255, 127, 127)),
    "opaque rgba": (encode(Image.new("RGBA", (4, 4), (*GREEN, 255)), "PNG"), GREEN),
    "rgba webp": (encode(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "WEBP", lossless=True), WHITE),
    "grey with alpha": (encode(Image.new("LA", (4, 4), (0, 128)), "PNG"), (127, 127, 127)),
    "rgb with a clear colour": (encode(Image.new("RGB", (4, 4), RED), "PNG", transparency=RED), WHITE),
    "16 bit white": (encode(grey16(65535), "PNG"), WHITE),
    "16 bit grey": (encode(grey16(128 * 257), "PNG"), (128, 128, 128)),
    "16 bit dark": (encode(grey16(257), "PNG"), (1, 1, 1)),
    "16 bit tiff": (encode(grey16(200 * 257), "TIFF"), (200, 200, 200)),
    "32 bit holding 16": (encode(Image.new("I", (4, 4), 100 * 257), "TIFF"), (100, 100, 100)),
    "cmyk tiff": (encode(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"), RED),
    "cmyk jpeg": (encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100), RED),
    "grey jpeg": (encode(Image.new("L", (16, 16), 77), "JPEG", quality=100), (77, 77, 77)),
    "animated gif": (animation("GIF"), RED),
    "animated webp": (animation("WEBP"), RED),
    "animated png": (animation("PNG"), RED),
    "mpo": (encode(Image.new("RGB", (16, 16), RED), "MPO", save_all=True, append_images=[scene(16, 16)]), (254, 0, 0)),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_the_rgb_one_sees(name: str) -> None:
    data, expected = MODES[name]
    assert np.abs(np.subtract(first_pixel(data), expected)).max() <= 1


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_an_agreed_white_are_refused(mode: str) -> None:
    with pytest.raises(PictureError, match="no agreed white"):
        first_pixel(encode(Image.new(mode, (4, 4), 2_000_000), "TIFF"))


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_prepare_gives_contiguous_bytes_of_the_asked_size(resize: Any) -> None:
    pixels = prepare(encode(scene(), "JPEG"), ImageSpec(20, 30, HALF, HALF, resize=resize))
    assert pixels.shape == (20, 30, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_pictures_are_set_upright(orientation: int, format: str, resize: Any) -> None:
    upright = scene()
    stored = upright.transpose(UNDO[orientation]) if orientation in UNDO else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    spec = square(48, resize=resize)
    turned = prepare(encode(stored, format, exif=exif, **options), spec)
    plain = prepare(encode(upright, "PNG"), spec)
    assert np.abs(turned.astype(int) - plain).mean() < (2.0 if format == "JPEG" else 0.01)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("edge", [16, 50, 100, 224])
def test_a_jpeg_at_reduced_scale_looks_the_same(orientation: int, resize: Any, edge: int) -> None:
    picture = scene(801, 601)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture.transpose(UNDO[orientation]) if orientation in UNDO else picture
    spec = square(edge, resize=resize, decode="fast")
    reduced = prepare(encode(stored, "JPEG", quality=92, exif=exif), spec)
    whole = prepare(encode(picture, "PNG"), spec)
    assert np.abs(reduced.astype(int) - whole).mean() < 2.5


def test_draft_never_goes_below_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    import captrain.data.images as images

    sizes = []
    decode = images.decode

    def spy(*arguments: Any) -> Image.Image:
        image = decode(*arguments)
        sizes.append(image.size)
        return image

    monkeypatch.setattr(images, "decode", spy)
    data = encode(scene(640, 480), "JPEG")
    for edge in (60, 61, 100, 224, 240, 241):
        prepare(data, square(edge, decode="fast"))
    assert sizes == [(80, 60), (160, 120), (160, 120), (320, 240), (320, 240), (640, 480)]
    prepare(data, square(60))
    assert sizes[-1] == (640, 480), "exact is the default"


def plainly(data: bytes, spec: ImageSpec) -> np.ndarray:
    """What anybody's Pillow makes of a picture: opened, set upright, RGB, the whole of it resized, then cut."""
    image = ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB")
    if spec.resize == "squash":
        return np.asarray(image.resize((spec.width, spec.height), Image.Resampling[spec.resample.upper()]))
    width, height = spec.scaled(image.size)
    left, top = (width - spec.width) // 2, (height - spec.height) // 2
    scaled = image.resize((width, height), Image.Resampling[spec.resample.upper()])
    return np.asarray(scaled.crop((left, top, left + spec.width, top + spec.height)))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    edge=st.integers(1, 64),
    margin=st.integers(0, 16),
    resize=st.sampled_from(["squash", "crop"]),
    resample=st.sampled_from(["bicubic", "bilinear", "lanczos"]),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    orientation=st.integers(1, 8),
    progressive=st.booleans(),
)
def test_a_jpegs_pixels_are_those_of_plain_pillow(
    size: tuple[int, int],
    edge: int,
    margin: int,
    resize: Any,
    resample: Any,
    mode: str,
    orientation: int,
    progressive: bool,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(edge).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise).convert(mode), "JPEG", exif=exif, progressive=progressive)
    spec = square(edge, resize=resize, resize_to=edge + margin if resize == "crop" else None, resample=resample)
    assert np.array_equal(prepare(data, spec), plainly(data, spec))


XMP = b'<x:xmpmeta><rdf:RDF><rdf:Description tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'


def _with_exif_behind(png: bytes, orientation: int) -> bytes:
    """A PNG whose eXIf chunk stands behind its pixels, as the format allows."""
    body = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0\0\0\0\0"
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    end = png.rindex(b"IEND") - 4
    return png[:end] + chunk + png[end:]


def _raw_profile(orientation: int) -> PngInfo:
    """EXIF as ImageMagick writes it into PNGs."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    info, block = PngInfo(), exif.tobytes()
    info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    return info


@pytest.mark.parametrize(
    "data",
    [
        encode(scene(), "JPEG", xmp=XMP),
        encode(scene(), "WEBP", lossless=True, xmp=XMP),
        encode(
            scene(), "JPEG", xmp=XMP, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01\0\0\0\0\0\0"
        ),
        _with_exif_behind(encode(scene(), "PNG"), 6),
        encode(scene(), "PNG", pnginfo=_raw_profile(8)),
    ],
    ids=["xmp jpeg", "xmp webp", "exif before xmp", "exif behind pixels", "raw profile"],
)
def test_a_turn_is_found_where_pillow_looks(data: bytes) -> None:
    for resize in ("squash", "crop"):
        spec = square(40, resize=resize)
        assert np.array_equal(prepare(data, spec), plainly(data, spec))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "CMYK", "I;16"])
def test_an_image_of_pillow_has_the_pixels_of_its_file(mode: str) -> None:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 255, (40, 30, 3), dtype=np.uint8))
    image = (
        Image.fromarray(random.integers(0, 65535, (40, 30), dtype=np.uint16)) if mode == "I;16" else image.convert(mode)
    )
    spec = ImageSpec(12, 16, HALF, HALF)
    file = BytesIO()
    image.save(file, "TIFF")
    np.testing.assert_array_equal(prepare_image(image, spec), prepare(file.getvalue(), spec))


def test_one_opened_photo_can_be_prepared_by_many_threads() -> None:
    """It is read when it is first needed, and turned as its EXIF block says."""
    image, file, exif = Image.effect_noise((200, 100), 90).convert("RGB"), BytesIO(), Image.Exif()
    exif[0x0112] = 6
    image.save(file, "JPEG", exif=exif)
    spec, opened = ImageSpec(32, 24, HALF, HALF), Image.open(BytesIO(file.getvalue()))
    with ThreadPoolExecutor(4) as pool:
        for pixels in pool.map(lambda _: prepare_image(opened, spec), range(8)):
            np.testing.assert_array_equal(pixels, prepare(file.getvalue(), spec))


def test_an_image_of_pillow_that_cannot_be_read_is_refused() -> None:
    file = BytesIO()
    Image.effect_noise((64, 64), 90).save(file, "JPEG")
    with pytest.raises(PictureError, match="can't be read"):
        prepare_image(Image.open(BytesIO(file.getvalue()[:-300])), ImageSpec(8, 8, HALF, HALF))


def test_crop_cuts_the_middle_as_two_steps_would() -> None:
    picture = scene(90, 60)
    pixels = prepare(encode(picture, "PNG"), square(32, resize="crop", resize_to=40))
    scaled = picture.resize((60, 40), Image.Resampling.BICUBIC)
    two_steps = np.asarray(scaled.crop((14, 4, 46, 36)))
    assert np.array_equal(pixels, two_steps)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (5, 7), (1, 65_000), (65_000, 2)])
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_tiny_and_thin_pictures_work(size: tuple[int, int], resize: Any) -> None:
    for format in ("PNG", "JPEG"):
        assert prepare(encode(scene(*size), format), square(24, resize=resize)).shape == (24, 24, 3)


def test_a_misnamed_picture_works_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "really-a-jpeg.png"
    file.write_bytes(encode(scene(), "JPEG"))
    assert prepare(file.read_bytes(), square(8)).shape == (8, 8, 3)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0??",
    ],
)
def test_a_broken_exif_block_does_not_cost_the_picture(exif: bytes) -> None:
    expected = prepare(encode(scene(), "JPEG"), square(32))
    for format in ("JPEG", "PNG", "WEBP"):
        assert prepare(encode(scene(), format, exif=exif), square(32)).shape == expected.shape
    assert np.array_equal(prepare(encode(scene(), "JPEG", exif=exif), square(32)), expected)


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", r"^is empty \(0 bytes\)$"),
    "noise": (b"hello there", "^is not a JPEG, PNG"),
    "html": (b"<html><body>404</body></html>", "looks like a web page"),
    "heic": (b"\0\0\0\x18ftypheic", "^is (broken|truncated|a HEIC picture; pip install .captrain\\[heif\\])"),
    "avif": (b"\0\0\0\x18ftypavif", "^is (broken|truncated)"),
    "film": (b"\0\0\0\x18ftypisom", "looks like a film"),
    "wav": (b"RIFF\x24\0\0\0WAVEfmt ", "^is not a JPEG"),
    "half a jpeg": (encode(scene(), "JPEG")[:700], "^is truncated"),
    "half a png": (encode(scene(), "PNG")[:200], "^is (truncated|broken)"),
    "half a webp": (encode(scene(), "WEBP")[:60], r"^is truncated \(60 of \d+ bytes\)"),
    "half a gif": (encode(scene(), "GIF")[:900], "^is (truncated|broken)"),
    "half a bmp": (encode(scene(), "BMP")[:900], "^is (truncated|broken)"),
    "png bomb": (png_of(20_000, 20_000), "^has 400000000 pixels, over the limit of 200000000; "),
    "png bomb under Pillow's own limit": (png_of(14_000, 14_000), "^is (truncated|broken)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_with_a_reason(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(PictureError, match=reason) as raised:
        prepare(data, square(8))
    assert "\n" not in str(raised.value)


def test_the_pixel_limit_is_the_callers_and_pillow_keeps_its_own() -> None:
    before = Image.MAX_IMAGE_PIXELS
    data = encode(scene(100, 100), "PNG")
    assert prepare(data, square(8), max_pixels=10_000).shape == (8, 8, 3)
    with pytest.raises(PictureError, match="has 10000 pixels, over the limit of 9999"):
        prepare(data, square(8), max_pixels=9_999)
    assert before == Image.MAX_IMAGE_PIXELS
    assert MAX_PIXELS > 16320 * 12240


def test_a_jpeg_larger_than_pillow_opens_is_read_at_a_fraction() -> None:
    data = bytearray(encode(Image.new("L", (16, 16), 50), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 12_240, 16_320)  # 200 million pixels, six bits for each 64 of them
    data[data.rindex(b"\xff\xda") + 10 : -2] = b"\x28\xa2\x8a" * (2040 * 1530 // 4)
    assert prepare(bytes(data), square(224, decode="fast")).shape == (
        224,
        224,
        3,
    )


def test_a_gif_frame_larger_than_its_screen_counts() -> None:
    data = bytearray(encode(Image.new("P", (4, 4)), "GIF"))
    frame = data.index(b"\x2c")
    data[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(PictureError, match="more pixels"):
        prepare(bytes(data), square(8))


@pytest.mark.parametrize("tile", [(65_520, 65_520), (0, 0)])
def test_a_tiff_tile_larger_than_its_picture_counts(tile: tuple[int, int]) -> None:
    tags = [
        (256, 4),
        (257, 4),
        (258, 8),
        (259, 1),
        (262, 1),
        (277, 1),
        (322, tile[0]),
        (323, tile[1]),
        (324, 8),
        (325, 16),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0\x18\0\0\0" + bytes(16) + struct.pack("<H", len(tags)) + entries + bytes(4)
    with pytest.raises(PictureError):
        prepare(data, square(8))


SEEDS = {
    "jpeg": encode(
        scene(40, 30), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    ),
    "progressive jpeg": encode(scene(40, 30), "JPEG", progressive=True),
    "png": encode(scene(40, 30), "PNG"),
    "apng": animation("PNG"),
    "palette png": palette(True),
    "gif": animation("GIF"),
    "webp": encode(scene(40, 30), "WEBP"),
    "animated webp": animation("WEBP"),
    "bmp": encode(scene(12, 9), "BMP"),
    "tiff": encode(scene(12, 9), "TIFF"),
    "deflate tiff": encode(scene(12, 9), "TIFF", compression="tiff_adobe_deflate"),
}


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(choice=st.data())
def test_broken_bytes_raise_picture_errors_alone(name: str, choice: st.DataObject) -> None:
    broken = bytearray(SEEDS[name])
    for place in choice.draw(st.lists(st.integers(0, len(broken) * 8 - 1), max_size=6), label="flipped bits"):
        broken[place // 8] ^= 1 << (place % 8)
    end = choice.draw(st.one_of(st.just(len(broken)), st.integers(0, len(broken))), label="cut at")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert prepare(bytes(broken[:end]), square(16), max_pixels=1_000_000).shape == (16, 16, 3)
        except PictureError as error:
            assert str(error).startswith(("is ", "has ", "unpacks "))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.binary(max_size=200))
def test_any_bytes_raise_picture_errors_alone(data: bytes) -> None:
    for start in (b"", b"\xff\xd8\xff\xe1", b"GIF89a", b"BM", b"II*\0\x08\0\0\0", b"RIFF\0\0\0\0WEBP"):
        with pytest.raises(PictureError):
            prepare(start + data, square(4), max_pixels=100)


def test_thumbnails_are_small_upright_jpegs() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    small = Image.open(BytesIO(encode_thumbnail(encode(scene(400, 200), "JPEG", exif=exif), 64)))
    assert (small.format, small.size) == ("JPEG", (32, 64))
    assert Image.open(BytesIO(encode_thumbnail(encode(scene(10, 8), "PNG"), 64))).size == (10, 8)
    with pytest.raises(PictureError, match="is empty"):
        encode_thumbnail(b"", 64)


def test_specs_survive_a_round_trip_and_refuse_nonsense() -> None:
    spec = square(224, resize="crop", resize_to=256, resample="bilinear")
    assert ImageSpec.from_dict(spec.to_dict()) == spec
    assert spec.to_dict()["mean"] == [0.5, 0.5, 0.5]
    for values in (
        {"resize": "stretch"},
        {"decode": "draft"},
        {"resample": "bicubik"},
        {"resize_to": 200},
        {"height": 0},
        {"std": (0, 1, 1)},
    ):
        with pytest.raises(SettingsError):
            ImageSpec(**{**spec.to_dict(), **values})
    with pytest.raises(SettingsError, match="Did you mean 'resample'"):
        ImageSpec.from_dict({**spec.to_dict(), "resampel": "box"})


def test_real_photos_at_reduced_scale_stay_close_to_a_plain_decode(shared_data: Path) -> None:
    for file in sorted((shared_data / "data/coco-mini/images").glob("*.jpg"))[:20]:
        data = file.read_bytes()
        plain = plainly(data, square(64))
        assert np.array_equal(prepare(data, square(64)), plain)
        assert np.abs(prepare(data, square(64, decode="fast")).astype(int) - plain).mean() < 6
