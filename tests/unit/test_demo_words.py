"""The demo's grammar: whatever it writes it reads back, and a caption that is wrong in one attribute is wrong."""

from __future__ import annotations

import itertools

import pytest

from captrain.demo.scenes import (
    COLOURS,
    COUNTS,
    PLACES,
    SHAPES,
    SIZES,
    Scene,
    ShapeGroup,
    describe_scene,
    is_right,
    make_scenes,
    parse,
)

ONE = Scene((ShapeGroup(1, "large", "blue", "circle", "centre"),))
TWO = Scene(
    (ShapeGroup(2, "small", "red", "star", "top left"), ShapeGroup(3, "large", "green", "cross", "bottom right"))
)


def test_five_captions_all_differ_and_are_the_same_each_time() -> None:
    for scene in make_scenes(50, seed=1):
        captions = describe_scene(scene)
        assert len(set(captions)) == 5
        assert captions == describe_scene(scene)


def test_every_caption_reads_back_as_its_scene() -> None:
    every_kind = [Scene((ShapeGroup(*values),), look) for look, values in enumerate(all_values())]
    for scene in every_kind + make_scenes(300, seed=2) + make_scenes(100, seed=2, held_out=True):
        for caption in describe_scene(scene):
            assert parse(caption) == tuple(sorted(scene.groups)), caption


@pytest.mark.parametrize(
    "caption",
    [
        "a large blue circle in the centre",
        "one big blue disc in the middle",
        "There is a large blue disc at the centre.",
        "in the middle , there is a big blue circle",
        "the picture shows one large blue circle in the middle",
        "in the centre you can see a big blue circle",
    ],
)
def test_templates_and_synonyms_of_one_group(caption: str) -> None:
    assert is_right(caption, ONE)


@pytest.mark.parametrize(
    "caption",
    [
        "two small red stars at the top left and three large green crosses at the bottom right",
        "three big green crosses in the lower right corner and two little red stars in the upper left corner",
        "there are two small red stars at the top left and three big green crosses in the bottom right corner",
        "at the top left, there are two small red stars, and in the lower right corner, three large green crosses",
        "the picture shows two little red stars at the top left and three big green crosses at the bottom right",
        "in the upper left corner you can see two small red stars, at the bottom right three large green crosses",
    ],
)
def test_templates_and_synonyms_of_two_groups_in_either_order(caption: str) -> None:
    assert is_right(caption, TWO)


@pytest.mark.parametrize(
    "caption",
    [
        "two large blue circles in the centre",
        "a small blue circle in the centre",
        "a large green circle in the centre",
        "a large blue square in the centre",
        "a large blue circle at the top left",
        "a large blue circle in the centre and a small red star at the top left",
    ],
)
def test_one_wrong_attribute_or_one_group_too_many_is_wrong(caption: str) -> None:
    assert parse(caption) is not None
    assert not is_right(caption, ONE)


def test_a_missing_group_and_swapped_places_are_wrong() -> None:
    assert not is_right("two small red stars at the top left", TWO)
    swapped = "two small red stars at the bottom right and three large green crosses at the top left"
    assert parse(swapped) is not None and not is_right(swapped, TWO)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a dog on a beach",
        "a blue circle in the centre",
        "two large blue circle in the centre",
        "there are a large blue circle in the centre",
        "a large blue blue circle in the centre",
        "a large blue circle in the centre and",
        "a large blue circle in the centre " * 1000,
    ],
)
def test_what_is_no_sentence_of_the_grammar_reads_as_none(caption: str) -> None:
    assert parse(caption) is None


def all_values() -> itertools.product[tuple[int, str, str, str, str]]:
    return itertools.product(COUNTS, SIZES, COLOURS, SHAPES, PLACES)
