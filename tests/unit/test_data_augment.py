"""Random crops follow torchvision's rule, mirrored pictures are mirrored, and chance hangs on the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import captrain.data.augment as augment
from captrain.data.augment import NUMBERS, Augmentation, crop_box, generator, mentions_sides, prepare_augmented
from captrain.data.images import ImageSpec, prepare
from captrain.errors import PictureError, SettingsError

HALF = (0.5, 0.5, 0.5)
BLIP = Augmentation(crop_scale=(0.5, 1.0), flip=0.5, randaugment=(2, 5))


def square(edge: int, **rest: Any) -> ImageSpec:
    return ImageSpec(edge, edge, HALF, HALF, **rest)


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def ramps(width: int, height: int) -> Image.Image:
    """Red rises from left to right, green from top to bottom: each pixel tells where it was."""
    down, across = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([across * 255 // width, down * 255 // height, 0 * down], axis=-1).astype(np.uint8))


def numbers_of(seed: int) -> list[float]:
    return np.random.default_rng(seed).random(NUMBERS).tolist()


def torchvision_rule(size: tuple[int, int], scale: tuple[float, float], numbers: Sequence[float]) -> tuple[int, ...]:
    """RandomResizedCrop.get_params of torchvision 0.20, on given random numbers: left, top, width, height."""
    width, height = size
    for attempt in range(10):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * numbers[2 * attempt])
        low, high = np.log([3 / 4, 4 / 3])
        aspect = np.exp(low + (high - low) * numbers[2 * attempt + 1])
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(numbers[20] * (width - w + 1)), int(numbers[21] * (height - h + 1)), w, h
    w, h = width, height
    if width / height < 3 / 4:
        h = round(w / (3 / 4))
    elif width / height > 4 / 3:
        w = round(h * (4 / 3))
    return (width - w) // 2, (height - h) // 2, w, h


@given(
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    st.integers(0, 2**32),
)
def test_a_crop_is_torchvisions(size: tuple[int, int], scale: tuple[float, float], seed: int) -> None:
    share = (min(scale), max(scale))
    left, top, right, bottom = crop_box(size, share, numbers_of(seed))
    assert (left, top, right - left, bottom - top) == torchvision_rule(size, share, numbers_of(seed))
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]


def test_areas_aspects_and_places_are_spread_as_told() -> None:
    """In a large square picture every pair fits, so the shares are the formula's own; rounding moves them by 1/1000."""
    boxes = np.array([crop_box((4000, 4000), (0.25, 0.5), numbers_of(seed)) for seed in range(3000)], dtype=float)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    uniform = {
        "area": (width * height / 4000**2 - 0.25) / 0.25,
        "aspect": np.log(width / height) / np.log(4 / 3) / 2 + 0.5,
        "left": boxes[:, 0] / (4000 - width),
        "top": boxes[:, 1] / (4000 - height),
    }
    expected = (np.arange(3000) + 0.5) / 3000
    for name, values in uniform.items():
        distance = np.abs(np.sort(values) - expected).max()
        assert distance < 1.36 / np.sqrt(3000), name  # Kolmogorov and Smirnov at 5 %


def test_a_picture_too_long_for_every_aspect_gives_its_middle() -> None:
    assert crop_box((1000, 30), (0.5, 1.0), numbers_of(0)) == (480, 0, 520, 30)
    assert crop_box((30, 1000), (0.5, 1.0), numbers_of(0)) == (0, 480, 30, 520)


def test_the_pixels_are_those_of_the_crop() -> None:
    picture = encode(ramps(256, 256))
    crop = Augmentation(crop_scale=(0.2, 0.6))
    for key in range(20):
        pixels = prepare_augmented(picture, square(256, resample="nearest"), crop, generator(0, 1, key))
        numbers = generator(0, 1, key).random(NUMBERS).tolist()
        left, top, right, bottom = crop_box((256, 256), (0.2, 0.6), numbers)
        seen = [pixels[0, 0, 0], pixels[0, 0, 1], pixels[-1, -1, 0], pixels[-1, -1, 1]]
        ramp = [place * 255 // 256 for place in (left, top, right - 1, bottom - 1)]
        assert seen == ramp


def test_nothing_on_is_the_plain_picture() -> None:
    picture = encode(ramps(90, 60))
    for spec in (square(32), square(32, resize="crop", resize_to=40)):
        plain = prepare_augmented(picture, spec, Augmentation(), generator(0, 1, 2))
        assert np.array_equal(plain, prepare(picture, spec))
        assert not Augmentation().is_random


@pytest.mark.parametrize("one", [{"crop_scale": (0.5, 1.0)}, {"flip": 0.1}, {"randaugment": (1, 3)}])
def test_one_thing_on_is_random(one: dict[str, Any]) -> None:
    assert Augmentation(**one).is_random


def test_a_share_of_the_pictures_is_mirrored() -> None:
    picture, spec = encode(ramps(16, 16)), square(16)
    plain = prepare(picture, spec)
    flipped = 0
    for key in range(1000):
        pixels = prepare_augmented(picture, spec, Augmentation(flip=0.3), generator(5, 1, key))
        mirrored = np.array_equal(pixels, plain[:, ::-1])
        assert mirrored or np.array_equal(pixels, plain)
        flipped += mirrored
    assert 260 < flipped < 340  # three standard deviations around 300


def test_steps_do_not_change_each_others_draws() -> None:
    picture, spec = encode(ramps(64, 48)), square(24)
    for key in range(10):
        crop = prepare_augmented(picture, spec, Augmentation(crop_scale=(0.3, 0.6)), generator(0, 1, key))
        both = prepare_augmented(picture, spec, Augmentation((0.3, 0.6), flip=1.0), generator(0, 1, key))
        assert np.array_equal(both, crop[:, ::-1])


def test_a_picture_comes_out_the_same_in_any_order_on_any_number_of_workers() -> None:
    picture, spec = encode(ramps(64, 48)), square(24)

    def made(key: int) -> bytes:
        return prepare_augmented(picture, spec, BLIP, generator(3, 2, key)).tobytes()

    with ThreadPoolExecutor(4) as pool:
        backwards = list(pool.map(made, reversed(range(40))))
    assert backwards[::-1] == [made(key) for key in range(40)]
    assert len(set(backwards)) > 35  # AutoContrast can make two crops of a ramp equal


def test_the_numbers_of_a_seed_stay() -> None:
    """They are part of what a seed means: a change here changes every published run."""
    assert generator(0, 1, 7827791757134186162).random(2).tolist() == [0.8676371995713117, 0.6774091716474857]
    assert crop_box((640, 480), (0.5, 1.0), generator(0, 1, 7).random(NUMBERS).tolist()) == (28, 24, 447, 449)


def test_each_seed_draw_sample_and_use_has_numbers_of_its_own() -> None:
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (-1, 0, 0), (2**32, 0, 0), (0, 0, 2**64 - 1)]
    first = [generator(*place, use).random() for place in places for use in ("picture", "caption")]  # type: ignore[arg-type]
    assert len(set(first)) == len(first)
    assert generator(0, 0, np.uint64(2**64 - 1)).random() == generator(0, 0, 2**64 - 1).random()  # type: ignore[arg-type]


def test_a_jpeg_gives_the_crop_that_a_png_gives_decoded_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, crop, spec = ramps(1600, 1200), Augmentation(crop_scale=(0.3, 0.9)), square(64, decode="fast")
    png, jpeg = encode(scene), encode(scene, "JPEG", quality=95)
    decoded: list[tuple[int, int]] = []

    def watched(*arguments: Any) -> Image.Image:
        image = real(*arguments)
        decoded.append(image.size)
        return image

    real = augment.decode
    monkeypatch.setattr(augment, "decode", watched)
    for key in range(5):
        one, other = (prepare_augmented(data, spec, crop, generator(0, 1, key)) for data in (png, jpeg))
        assert np.abs(one.astype(int) - other).max() <= 4  # what JPEG itself changes in a smooth picture
    assert decoded[0::2] == [(1600, 1200)] * 5
    assert max(decoded[1::2]) <= (400, 300)


def test_a_jpeg_is_never_decoded_below_the_target() -> None:
    """Fine stripes survive a crop that shows them one to one; decoded at half the size they would be grey."""
    stripes = np.zeros((300, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    jpeg = encode(Image.fromarray(stripes), "JPEG", quality=100, subsampling=0)
    pixels = prepare_augmented(
        jpeg, ImageSpec(300, 400, HALF, HALF), Augmentation(crop_scale=(0.999, 1.0)), generator(0, 1, 0)
    )
    assert pixels.std() > 60


def test_a_turned_photo_is_cropped_upright() -> None:
    scene, exif = ramps(120, 80), Image.Exif()
    exif[0x0112] = 6
    turned = encode(scene.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=100, subsampling=0, exif=exif)
    for key in range(5):
        crop = Augmentation(crop_scale=(0.3, 0.6))
        one, other = (
            prepare_augmented(data, square(32), crop, generator(0, 1, key)) for data in (encode(scene), turned)
        )
        assert np.abs(one.astype(int) - other).max() <= 4


def test_pixels_are_ready_for_a_model() -> None:
    pixels = prepare_augmented(encode(ramps(50, 40)), ImageSpec(24, 32, HALF, HALF), BLIP, generator(0, 1, 4))
    assert pixels.shape == (24, 32, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags["C_CONTIGUOUS"]
    assert pixels.flags["WRITEABLE"]


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_tiny_pictures_can_be_cropped(size: tuple[int, int]) -> None:
    for format in ("PNG", "JPEG"):
        data = encode(Image.new("RGB", size, (200, 10, 10)), format)
        for key in range(10):
            assert prepare_augmented(data, square(16), BLIP, generator(0, 1, key)).shape == (16, 16, 3)


def test_broken_and_huge_pictures_are_refused() -> None:
    with pytest.raises(PictureError, match="is not a JPEG"):
        prepare_augmented(b"no picture", square(16), BLIP, generator(0, 1, 0))
    with pytest.raises(PictureError, match="has 2400 pixels, over the limit of 100"):
        prepare_augmented(encode(ramps(60, 40)), square(16), BLIP, generator(0, 1, 0), max_pixels=100)


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.8, 0.5)},
        {"crop_scale": (0.5, 1.1)},
        {"flip": 1.5},
        {"flip": float("nan")},
        {"randaugment": (0, 5)},
        {"randaugment": (2, 11)},
    ],
)
def test_wrong_options_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"{next(iter(wrong))} .*: expected"):
        Augmentation(**wrong)


@pytest.mark.parametrize(
    ("caption", "sides"),
    [
        ("a cup to the LEFT of a plate", True),
        ("the right-hand side", True),
        ("on the lefthand page", True),
        ("the rightmost horse", True),
        ("a man leaning leftwards", True),
        ("a right-handed pitcher", True),
        ("look right.", True),
        ("a door left open", True),
        ("leftover pizza", False),
        ("a bright copyright sign", False),
        ("all right, it rains right now", False),
        ("all right, and a dog on the right", True),
        ("a dog", False),
        ("", False),
    ],
)
def test_captions_that_a_mirror_would_make_wrong(caption: str, sides: bool) -> None:
    assert mentions_sides(caption) is sides


def test_real_photos_at_blips_recipe(shared_data: Path) -> None:
    for path in sorted((shared_data / "data" / "coco-mini" / "images").glob("*.jpg"))[:8]:
        plain = prepare(path.read_bytes(), square(64)).astype(int)
        views = [prepare_augmented(path.read_bytes(), square(64), BLIP, generator(0, view, 1)) for view in (1, 2, 3)]
        assert len({view.tobytes() for view in views}) == 3
        assert all(abs(view.mean() - plain.mean()) < 80 for view in views)
