"""RandAugment's operations against their formulas, written out here as LAVIS has them."""

from __future__ import annotations

from collections import Counter
from math import cos, radians, sin

import numpy as np
import pytest
from PIL import Image

import captrain.data.augment as randaugment
from captrain.data.augment import OPERATIONS, rand_augment

SIZES = [(24, 36), (33, 20)]
STRENGTHS = [-1.0, -0.5, -0.1, 0.0, 0.3, 0.5, 0.9, 1.0]
GREY = 128


def noise(height: int, width: int, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(height * width).integers(low, high, (height, width, 3)).astype(np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    down, across = np.mgrid[0:height, 0:width]
    return np.stack([4 * across + 20, 5 * down + 10, 2 * across + 3 * down + 40], axis=-1).clip(0, 255).astype(np.uint8)


def done(name: str, pixels: np.ndarray, strength: float) -> np.ndarray:
    operation = {operation.__name__: operation for operation in OPERATIONS}[name]
    return np.array(operation(Image.fromarray(pixels), strength))


def by_table(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    return table.clip(0, 255).astype(np.uint8)[pixels]


# Levels: exact.


def test_identity() -> None:
    assert np.array_equal(done("identity", noise(9, 7), 0.5), noise(9, 7))


@pytest.mark.parametrize(("low", "high"), [(0, 256), (30, 200), (0, 100), (77, 78)])
def test_auto_contrast_stretches_each_channel(low: int, high: int) -> None:
    pixels = noise(20, 30, low, high)
    expected = pixels.copy()
    for channel in range(3):
        least, most = int(pixels[..., channel].min()), int(pixels[..., channel].max())
        if most > least:
            scale = 255 / (most - least)
            expected[..., channel] = by_table(pixels[..., channel], np.arange(256) * scale - least * scale)
    assert np.array_equal(done("auto_contrast", pixels, 0.5), expected)


@pytest.mark.parametrize("size", [(3, 5), (20, 30), (64, 48)])
def test_equalize_follows_the_histogram(size: tuple[int, int]) -> None:
    pixels = noise(*size, 60, 120)
    pixels[..., 1] = 9  # one level alone stays
    expected = pixels.copy()
    for channel in range(3):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256)
        step = counts[counts > 0][:-1].sum() // 255
        if step:
            before = np.concatenate([[step // 2], counts[:-1]]).cumsum()
            expected[..., channel] = by_table(pixels[..., channel], before // step)
    assert np.array_equal(done("equalize", pixels, 0.5), expected)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_brightness_multiplies(strength: float) -> None:
    factor = np.float32(abs(strength) * 1.8 + 0.1)
    expected = by_table(noise(20, 30), np.arange(256, dtype=np.float32) * factor)
    assert np.array_equal(done("brightness", noise(20, 30), strength), expected)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_sharpness_blends_with_a_blurred_picture_inside_the_border(strength: float) -> None:
    pixels = noise(20, 30)
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    inside = sum(
        kernel[row, column] * pixels[row : 18 + row, column : 28 + column].astype(float)
        for row in range(3)
        for column in range(3)
    )
    blurred = np.rint(inside).astype(np.float32)
    factor = np.float32(abs(strength) * 1.8 + 0.1)
    expected = pixels.copy()
    expected[1:-1, 1:-1] = (blurred + factor * (pixels[1:-1, 1:-1] - blurred)).clip(0, 255).astype(np.uint8)
    assert np.array_equal(done("sharpness", pixels, strength), expected)


def test_blips_magnitude_leaves_brightness_and_sharpness_alone() -> None:
    for name in ("brightness", "sharpness"):
        assert np.array_equal(done(name, noise(20, 30), 0.5), noise(20, 30))


# Places: LAVIS's matrices, which say where a pixel goes (columns and rows counted from the middle of the first).


def forward(name: str, strength: float, height: int, width: int) -> np.ndarray:
    """LAVIS's argument for a level of `10 * strength`, and what it hands to cv2.warpAffine."""
    if name == "rotate":  # cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
        angle, x, y = radians(strength * 30), width / 2, height / 2
        a, b = cos(angle), sin(angle)
        return np.array([[a, b, (1 - a) * x - b * y], [-b, a, b * x + (1 - a) * y]])
    shear, shift = strength * 0.3, strength * 10
    return np.array(
        {
            "shear_x": [[1, shear, 0], [0, 1, 0]],
            "shear_y": [[1, 0, 0], [shear, 1, 0]],
            "translate_x": [[1, 0, -shift], [0, 1, 0]],
            "translate_y": [[1, 0, 0], [0, 1, -shift]],
        }[name]
    )


def places(matrix: np.ndarray, height: int, width: int, grid: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the result comes from: columns and rows, on a grid of 1/32 pixel as OpenCV's if asked."""
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    down, across = np.mgrid[0:height, 0:width]
    columns, rows, _ = np.einsum("ij,jhw->ihw", back, np.stack([across, down, np.ones_like(down)]))
    if grid:
        columns, rows = np.rint(columns * grid) / grid, np.rint(rows * grid) / grid
    return columns.round(9), rows.round(9)


def between(pixels: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Bilinear values at places inside the picture."""
    left, top = np.floor(columns).astype(int), np.floor(rows).astype(int)
    right, bottom = np.minimum(left + 1, pixels.shape[1] - 1), np.minimum(top + 1, pixels.shape[0] - 1)
    across, down = (columns - left)[:, None], (rows - top)[:, None]
    upper = pixels[top, left] * (1 - across) + pixels[top, right] * across
    lower = pixels[bottom, left] * (1 - across) + pixels[bottom, right] * across
    return upper * (1 - down) + lower * down


WARPS = ["shear_x", "shear_y", "translate_x", "translate_y", "rotate"]


@pytest.mark.parametrize("name", WARPS)
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("size", SIZES)
def test_warps_take_their_pixels_from_the_right_places(name: str, strength: float, size: tuple[int, int]) -> None:
    """Hard noise, so a place half a pixel off would show. One level: Pillow rounds down, where OpenCV rounds."""
    pixels = noise(*size)
    made = done(name, pixels, strength)
    columns, rows = places(forward(name, strength, *size), *size, grid=None)
    inside = (columns >= 0) & (columns <= size[1] - 1) & (rows >= 0) & (rows <= size[0] - 1)
    outside = (columns <= -1) | (columns >= size[1]) | (rows <= -1) | (rows >= size[0])
    assert inside.mean() > 0.3
    wanted = between(pixels, columns[inside], rows[inside])
    difference = made[inside] - wanted
    assert difference.max() <= 1e-6
    assert difference.min() > -1.001
    assert (made[outside] == GREY).all()


@pytest.mark.parametrize("name", WARPS)
@pytest.mark.parametrize("strength", [-0.5, 0.3, 0.5])
def test_warps_are_opencvs_to_two_levels_in_a_smooth_picture(name: str, strength: float) -> None:
    """OpenCV's places are rounded to 1/32 pixel and its values to the nearest level."""
    pixels = smooth(24, 36)
    columns, rows = places(forward(name, strength, 24, 36), 24, 36, grid=32)
    inside = (columns >= 0) & (columns <= 35) & (rows >= 0) & (rows <= 23)
    opencvs = np.rint(between(pixels, columns[inside], rows[inside]))
    assert np.abs(done(name, pixels, strength)[inside] - opencvs).max() <= 2


def test_directions() -> None:
    """As LAVIS's matrices have them: a positive shift goes left or up, a positive angle anticlockwise."""
    dot = np.zeros((21, 21, 3), np.uint8)
    dot[10, 15] = 255

    def found(name: str) -> tuple[int, ...]:
        made = np.where(done(name, dot, 0.5) == GREY, 0, done(name, dot, 0.5))
        return tuple(int(place) for place in np.unravel_index(made[..., 0].argmax(), (21, 21)))

    assert found("translate_x") == (10, 10)
    assert found("translate_y") == (5, 15)
    assert found("rotate")[0] < 10
    assert found("shear_y")[0] > 10
    assert found("shear_x")[1] > 15


# Choice.


def test_operations_are_drawn_evenly_and_half_are_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    signs: Counter[float] = Counter()

    def watched(name: str) -> randaugment.Operation:
        def operation(image: Image.Image, strength: float) -> Image.Image:
            seen[name] += 1
            signs[strength] += 1
            return image

        return operation

    monkeypatch.setattr(randaugment, "OPERATIONS", tuple(watched(operation.__name__) for operation in OPERATIONS))
    image = Image.new("RGB", (2, 2))
    random = np.random.default_rng(0)
    for _ in range(2000):
        rand_augment(image, 2, 7, random)
    assert abs(sum(seen.values()) - 2000) < 3 * np.sqrt(1000)  # 4,000 draws, each carried out by a coin
    assert len(seen) == 10
    assert all(abs(count - 200) < 4 * np.sqrt(200) for count in seen.values())
    assert set(signs) == {0.7, -0.7}
    assert abs(signs[0.7] - signs[-0.7]) < 4 * np.sqrt(2000)


def test_the_ten_operations_of_blip() -> None:
    names = "identity auto_contrast brightness sharpness equalize shear_x shear_y translate_x translate_y rotate"
    assert [operation.__name__ for operation in OPERATIONS] == names.split()


def test_draws_are_as_many_whatever_is_carried_out() -> None:
    image = Image.fromarray(noise(8, 8))
    for seed in range(20):
        random, other = np.random.default_rng(seed), np.random.default_rng(seed)
        rand_augment(image, 3, 5, random)
        other.random(9)
        assert random.random() == other.random()
