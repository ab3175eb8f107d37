"""Pictures under `captrain data check`: what a look at one tells, and which are the same."""

from __future__ import annotations

from io import BytesIO
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captrain.data.check import pictures
from captrain.data.check.pictures import Look, is_animated, look_at, near_groups, orientation, same_groups
from captrain.data.decode import MAX_PIXELS
from captrain.errors import PictureError


def scene(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """A picture with large and small shapes, like no other."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def turned(value: int, format: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(scene(0), format, exif=exif)


def grouped(looks: list[Look]) -> list[list[int]]:
    hashes = np.array([look.look for look in looks], dtype=np.uint64)
    groups = near_groups(hashes, np.stack([look.patch for look in looks]), np.arange(len(looks)))
    return [group.tolist() for group in groups]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_read_from_every_format_that_has_it(format: str) -> None:
    assert orientation(turned(6, format)) == 6
    assert orientation(encoded(scene(0), format)) == 1


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_animations_are_told_from_still_pictures(format: str) -> None:
    assert is_animated(encoded(scene(0), format, save_all=True, append_images=[scene(1), scene(2)]))
    assert not is_animated(encoded(scene(0), format))


@given(st.sampled_from([b"\xff\xd8", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBP"]), st.binary(max_size=200))
def test_headers_never_fail_on_broken_bytes(magic: bytes, rest: bytes) -> None:
    assert 1 <= orientation(magic + rest) <= 8
    assert is_animated(magic + rest) in (True, False)


def test_headers_of_cut_files_never_fail() -> None:
    for data in (
        turned(6, "JPEG"),
        turned(6, "PNG"),
        encoded(scene(0), "GIF", save_all=True, append_images=[scene(1)]),
    ):
        for end in range(0, min(len(data), 2000), 7):
            orientation(data[:end])
            is_animated(data[:end])


def test_a_scaled_down_jpeg_is_known_by_its_true_upright_size() -> None:
    look = look_at(turned(6, "JPEG"), MAX_PIXELS)
    assert (look.width, look.height, look.orientation) == (240, 320, 6)


def test_a_jpeg_cut_anywhere_is_noticed_though_it_is_decoded_small() -> None:
    data = encoded(scene(0, 640, 480))
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(PictureError, match="truncated"):
            look_at(data[: int(share * len(data))], MAX_PIXELS)


def test_copies_look_alike_whatever_their_format_size_and_quality() -> None:
    image = scene(7)
    copies = [
        encoded(image, quality=95),
        encoded(image, quality=40),
        encoded(image.resize((160, 120)), "PNG"),
        encoded(image.resize((640, 480)), "WEBP"),
    ]
    others = [encoded(scene(seed)) for seed in range(100, 140)]
    assert grouped([look_at(data, MAX_PIXELS) for data in copies + others]) == [[0, 1, 2, 3]]


def test_pictures_of_one_colour_are_not_compared() -> None:
    looks = [look_at(encoded(Image.new("RGB", (80, 80), colour)), MAX_PIXELS) for colour in ("white", "white", "red")]
    assert grouped(looks) == []


def test_a_mirrored_picture_is_another_one() -> None:
    mirrored = scene(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert grouped([look_at(encoded(image), MAX_PIXELS) for image in (scene(3), mirrored)]) == []


def flipped(value: int, bits: list[int]) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 63), max_size=5, unique=True), st.integers(0, 2**32 - 1))
def test_all_hashes_within_five_bits_are_found(value: int, bits: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, 40, dtype=np.uint64)
    hashes[[3, 30]] = value, flipped(value, bits)
    patches = np.tile(random.integers(0, 255, (1, 192), dtype=np.uint8), (40, 1))
    groups = [set(group.tolist()) for group in near_groups(hashes, patches, np.arange(40))]
    assert any({3, 30} <= group for group in groups)


def test_pairs_found_are_those_that_comparing_each_with_each_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "NEAR_BITS", 5)
    monkeypatch.setattr(pictures, "AT_ONCE", 50)  # in many small parts
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, 20, dtype=np.uint64)[random.integers(0, 20, 200)]
    for _ in range(3):
        hashes ^= np.uint64(1) << random.integers(0, 64, 200).astype(np.uint64)
    found = {
        frozenset(pair)
        for left, right in pictures._candidates(hashes)
        for pair in zip(left.tolist(), right.tolist(), strict=True)
    }
    distinct = np.unique(hashes, return_index=True)[1]
    wanted = {
        frozenset((int(one), int(other)))
        for one, other in combinations(distinct, 2)
        if np.bitwise_count(hashes[one] ^ hashes[other]) <= 5
    }
    assert wanted
    assert wanted <= found


def test_many_equal_hashes_stay_few_pairs() -> None:
    hashes = np.full(20_000, 5, dtype=np.uint64)
    assert sum(len(left) for left, _ in pictures._candidates(hashes)) == 19_999


def test_no_pictures_have_no_groups() -> None:
    nothing = np.empty(0, dtype=np.uint64)
    assert near_groups(nothing, np.empty((0, 192), dtype=np.uint8), np.arange(0)) == []
    assert same_groups(nothing, np.arange(0)) == []
