"""The demo's pictures: the same pixels for a scene, its colours where its places are, and a data set that reads back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captrain.demo.draw import MIDDLES, draw_scene, write_dataset
from captrain.demo.scenes import COLOURS, SHAPES, SIZES, Scene, ShapeGroup, is_right, make_scenes


def saturated(picture: Image.Image) -> np.ndarray:
    """Which pixels belong to a shape: backgrounds and shadows are pale."""
    return np.asarray(picture.convert("HSV"))[..., 1] > 120


def test_a_scene_gives_the_same_pixels_and_another_look_others() -> None:
    group = ShapeGroup(2, "large", "red", "star", "top left")
    first, again, other = (np.asarray(draw_scene(Scene((group,), look))) for look in (7, 7, 8))
    assert first.shape == (96, 96, 3)
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("place", MIDDLES)
def test_a_group_is_drawn_around_its_place_and_inside_the_picture(place: str) -> None:
    for look in range(20):
        ys, xs = np.nonzero(saturated(draw_scene(Scene((ShapeGroup(3, "large", "purple", "square", place),), look))))
        x, y = MIDDLES[place]
        assert abs(xs.mean() / 96 - x) < 0.09 and abs(ys.mean() / 96 - y) < 0.09
        assert abs(xs / 96 - x).max() < 0.3 and abs(ys / 96 - y).max() < 0.3


@pytest.mark.parametrize("shape", SHAPES)
def test_count_and_size_can_be_told_from_the_covered_area(shape: str) -> None:
    covered = {
        (count, size): np.mean(
            [
                saturated(draw_scene(Scene((ShapeGroup(count, size, "blue", shape, "centre"),), look))).sum()
                for look in range(8)
            ]
        )
        for count in (1, 2, 3)
        for size in SIZES
    }
    for size in SIZES:
        assert covered[3, size] > 1.3 * covered[2, size] > 2 * covered[1, size]
    assert covered[1, "large"] > 1.7 * covered[1, "small"]


def test_colours_are_apart_whatever_the_shade() -> None:
    means = {
        colour: [
            shape_colour(draw_scene(Scene((ShapeGroup(1, "large", colour, "circle", "centre"),), look)))
            for look in range(10)
        ]
        for colour in COLOURS
    }
    centres = {colour: np.mean(values, axis=0) for colour, values in means.items()}
    for colour, values in means.items():
        for value in values:
            assert min(centres, key=lambda other: float(np.abs(value - centres[other]).sum())) == colour


def shape_colour(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)[saturated(picture)].mean(0)


def test_a_written_data_set_holds_what_it_says(tmp_path: Path) -> None:
    files = write_dataset(tmp_path, train=6, validation=2, test=2, held_out=3, seed=1, side=48)
    lines = {
        split: [json.loads(line) for line in file.read_text("utf-8").splitlines()] for split, file in files.items()
    }
    assert {split: len(found) for split, found in lines.items()} == {
        "train": 6,
        "validation": 2,
        "test": 2,
        "held_out": 3,
    }
    for split, line in ((split, line) for split, found in lines.items() for line in found):
        assert Image.open(files[split].parent / line["file_name"]).size == (48, 48)
        scene = Scene.from_list(line["scene"])
        assert len(line["captions"]) == 5 and all(is_right(caption, scene) for caption in line["captions"])
    assert all(Scene.from_list(line["scene"]).held_out for line in lines["held_out"])
    assert not any(Scene.from_list(line["scene"]).held_out for line in lines["train"])


def test_splits_share_no_scene() -> None:
    looks = [{scene.look for scene in make_scenes(200, seed)} for seed in range(4)]
    assert len(set.union(*looks)) == 800
