"""The demo's scenes: the same for a seed, held-out kinds kept apart, every value seen in training."""

from __future__ import annotations

from captrain.demo.scenes import (
    COLOURS,
    CORNERS,
    COUNTS,
    HELD_OUT,
    PLACES,
    SHAPES,
    SIZES,
    TRAINED,
    Scene,
    make_scenes,
)


def test_a_seed_gives_the_same_scenes_and_another_seed_others() -> None:
    assert make_scenes(20, seed=1) == make_scenes(20, seed=1)
    assert make_scenes(20, seed=1) != make_scenes(20, seed=2)
    assert make_scenes(5, seed=1) == make_scenes(20, seed=1)[:5]


def test_held_out_kinds_are_in_held_out_scenes_only() -> None:
    assert not any(scene.held_out for scene in make_scenes(500, seed=0))
    assert all(scene.held_out for scene in make_scenes(500, seed=0, held_out=True))


def test_every_value_and_every_trained_kind_is_seen_in_training() -> None:
    groups = [group for scene in make_scenes(3000, seed=0) for group in scene.groups]
    assert {group.kind for group in groups} == set(TRAINED)
    assert {group.count for group in groups} == set(COUNTS)
    assert {group.place for group in groups} == set(PLACES)


def test_what_is_held_out_is_spread_evenly_over_the_values() -> None:
    sizes, colours, shapes = (list(values) for values in zip(*HELD_OUT, strict=True))
    assert len(set(HELD_OUT)) == 12
    assert [sizes.count(size) for size in SIZES] == [6, 6]
    assert [colours.count(colour) for colour in COLOURS] == [2] * 6
    assert [shapes.count(shape) for shape in SHAPES] == [2] * 6


def test_two_groups_stand_in_two_corners_in_reading_order() -> None:
    pairs = [scene.groups for scene in make_scenes(300, seed=3) if len(scene.groups) == 2]
    assert 100 < len(pairs) < 200
    assert all(CORNERS.index(first.place) < CORNERS.index(second.place) for first, second in pairs)


def test_a_scene_survives_its_json_form() -> None:
    for scene in make_scenes(20, seed=4):
        assert Scene.from_list(scene.to_list()).groups == scene.groups
