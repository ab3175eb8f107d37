"""Draw a scene: smooth edges, soft shadows, and a little chance in all that captions don't tell.

Lengths are parts of the picture's side, so a scene looks the same at every size.

Write drawn scenes as a data set that the rest of captrain reads: `images/` and one JSON-lines file a split.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter

from captrain.demo.scenes import Scene, ShapeGroup, describe_scene, make_scenes
from captrain.disk.folders import make_folders
from captrain.disk.writing import new_file
from captrain.records import write_jsonl

Point = tuple[float, float]

MIDDLES = {
    "top left": (0.25, 0.25),
    "top right": (0.75, 0.25),
    "bottom left": (0.25, 0.75),
    "bottom right": (0.75, 0.75),
    "centre": (0.5, 0.5),
}
# Three of the largest shapes, side by side at any turn, just stay in a quarter of the picture.
RADII = {"small": (0.06, 0.067), "large": (0.094, 0.101)}
REACH = 0.25
LONGEST_CORNER = 1.2
LARGEST_SHIFT = 0.07
HUES = {"red": 0.0, "orange": 0.075, "yellow": 0.15, "green": 0.36, "blue": 0.6, "purple": 0.78}
OVERSAMPLING = 3


def draw_scene(scene: Scene, side: int = 96) -> Image.Image:
    """The scene as an RGB picture of `side` x `side` pixels; the same scene gives the same pixels."""
    chance = random.Random(scene.look)
    picture = _background(chance, side)
    shadow = Image.new("RGB", (side, side), (45, 40, 60))
    for group in scene.groups:
        mask = _mask(group, chance, side)
        soft = mask.filter(ImageFilter.GaussianBlur(side / 90)).point(lambda level: level * 0.3)
        picture.paste(shadow, (0, round(side / 60)), soft)
        picture.paste(_shade(group.colour, chance), mask=mask)
    return picture


def _background(chance: random.Random, side: int) -> Image.Image:
    """A soft run between four pale tints, one at each corner."""
    hue = chance.random()
    tints = [
        _rgb(hue + chance.uniform(-0.1, 0.1), chance.uniform(0.03, 0.13), chance.uniform(0.9, 1.0)) for _ in range(4)
    ]
    corners = Image.new("RGB", (2, 2))
    corners.putdata(tints)
    return corners.resize((side, side), Image.Resampling.BICUBIC)


def _shade(colour: str, chance: random.Random) -> tuple[int, int, int]:
    return _rgb(HUES[colour] + chance.uniform(-0.015, 0.015), chance.uniform(0.72, 0.92), chance.uniform(0.84, 1.0))


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _mask(group: ShapeGroup, chance: random.Random, side: int) -> Image.Image:
    """Where the group's shapes are, 0 to 255, drawn large and reduced so that edges are smooth."""
    canvas = Image.new("L", (side * OVERSAMPLING, side * OVERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    radius = chance.uniform(*RADII[group.size])
    for middle in _middles(group, radius, chance):
        outline = _outline(group.shape, chance.uniform(-0.2, 0.2))
        pen.polygon(
            [(_pixel(middle[0] + x * radius, side), _pixel(middle[1] + y * radius, side)) for x, y in outline], fill=255
        )
    return canvas.reduce(OVERSAMPLING)


def _pixel(part: float, side: int) -> float:
    return part * side * OVERSAMPLING


def _middles(group: ShapeGroup, radius: float, chance: random.Random) -> list[Point]:
    """Middles of the shapes: alone, as a pair, or as a triangle, at any turn, inside the place's quarter of the picture."""
    spread = 0.0 if group.count == 1 else radius * chance.uniform(1.12, 1.2) / math.sin(math.pi / group.count)
    slack = max(0.0, min(LARGEST_SHIFT, REACH - LONGEST_CORNER * radius - spread))
    x, y = (middle + chance.uniform(-slack, slack) for middle in MIDDLES[group.place])
    turn = chance.uniform(0, 2 * math.pi)
    return [_around((x, y), spread, turn + 2 * math.pi * number / group.count) for number in range(group.count)]


def _around(middle: Point, distance: float, angle: float) -> Point:
    return middle[0] + distance * math.cos(angle), middle[1] + distance * math.sin(angle)


def _outline(shape: str, tilt: float) -> list[Point]:
    """Corners of a shape of radius 1 around (0, 0), turned by `tilt` radians; y points down."""
    cos, sin = math.cos(tilt), math.sin(tilt)
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in OUTLINES[shape]]


def _ring(radii: Sequence[float], corners: int, first: float) -> list[Point]:
    """Corners around (0, 0) at equal angles from `first`, their distances taken from `radii` in turn."""
    return [_around((0, 0), radii[i % len(radii)], first + 2 * math.pi * i / corners) for i in range(corners)]


def _heart() -> list[Point]:
    """The well-known curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, brought to radius 1."""
    angles = [2 * math.pi * i / 40 for i in range(40)]
    return [
        (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
        for t in angles
    ]


def _cross(arm: float) -> list[Point]:
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    turns: list[Point] = list(quarter)
    for _ in range(3):
        quarter = [(-y, x) for x, y in quarter]
        turns += quarter
    return turns


OUTLINES: dict[str, list[Point]] = {
    "circle": _ring([1.0], 40, 0.0),
    "square": _ring([LONGEST_CORNER], 4, math.pi / 4),
    "triangle": _ring([LONGEST_CORNER], 3, -math.pi / 2),
    "star": _ring([LONGEST_CORNER, 0.48], 10, -math.pi / 2),
    "heart": _heart(),
    "cross": _cross(0.32),
}


FAST_COMPRESSION = 1


def write_dataset(
    folder: Path, train: int, validation: int, test: int, held_out: int, seed: int = 0, side: int = 96
) -> dict[str, Path]:
    """Draw so many scenes for each split below `folder`; returns the JSONL file of each split.

    `scenes/` holds what a training reads. The scenes of `held_out` have a folder of their own, since no training may see them.

    A line is `{"file_name": "images/train-00000.png", "captions": [five], "scene": [groups]}`. Every scene of `held_out`,
    and of no other split, has a group of a held-out kind. `side` is the pictures' width and height in pixels.

    About 2 ms a scene.
    """
    sizes = {"train": train, "validation": validation, "test": test, "held_out": held_out}
    files = {}
    for number, (split, count) in enumerate(sizes.items()):
        # Seeds never meet, so no split repeats another's scenes.
        scenes = make_scenes(count, seed=seed * len(sizes) + number, held_out=split == "held_out")
        home = folder / ("held_out" if split == "held_out" else "scenes")
        make_folders(home / "images", folder.parent)
        files[split] = home / f"{split}.jsonl"
        write_jsonl(files[split], _lines(home, split, scenes, side))
    return files


def _lines(folder: Path, split: str, scenes: list[Scene], side: int) -> Iterator[dict[str, Any]]:
    for number, scene in enumerate(scenes):
        name = f"images/{split}-{number:05d}.png"
        with new_file(folder / name, sync=False) as file:
            draw_scene(scene, side).save(file, "PNG", compress_level=FAST_COMPRESSION)
        yield {"file_name": name, "captions": describe_scene(scene), "scene": scene.to_list()}
