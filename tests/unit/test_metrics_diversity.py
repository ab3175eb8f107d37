"""Captions without references: what is measured, and when an alarm is raised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.errors import DataError
from captrain.metrics.diversity import alarms, measure_diversity

VARIED = [
    f"a {size} {animal} {act}"
    for size in ("big", "small")
    for animal in ("dog", "cat", "cow")
    for act in ("runs", "sits")
]


def test_numbers_that_the_eye_can_check() -> None:
    found = measure_diversity(
        ["A dog runs.", "a dog runs", "a cat sits on a cat", "two two two"],
        training=["a dog runs", "other"],
        ended=[True, True, False, True],
    )
    assert found.to_dict() == {
        "captions": 4,
        "vocabulary": 7,
        "mean_length": 15 / 4,
        "distinct_1": 7 / 15,
        "distinct_2": 7 / 11,
        "different": 3 / 4,
        "commonest": "A dog runs.",
        "commonest_share": 0.5,
        "repeated_2": 0.5,
        "repeated_3": 0.0,
        "longest_run": 3,
        "new": 0.5,
        "unfinished": 0.25,
    }


def test_what_was_not_asked_is_left_out() -> None:
    assert not {"new", "unfinished"} & measure_diversity(["a dog"]).to_dict().keys()


@pytest.mark.parametrize(
    ("captions", "options", "sentence"),
    [
        (["a dog"] * 9 + VARIED, {}, "9 of 21 captions are alike ('a dog'): the captioner hardly looks at the picture"),
        (VARIED * 20, {}, "only 12 of 240 captions differ"),
        (VARIED, {"ended": [False] * 6 + [True] * 6}, "50% of captions have no end token"),
        ([f"{caption} and {caption}" for caption in VARIED], {}, "100% of captions say three words in a row twice"),
        ([*VARIED, "a dog a dog a dog a dog a dog"], {}, "says the same words 5 times in a row"),
        ([""] * 10, {}, "10 of 10 captions are alike ('')"),
    ],
)
def test_collapsed_captioners_raise_an_alarm(captions: list[str], options: dict[str, Any], sentence: str) -> None:
    assert any(sentence in alarm for alarm in alarms(measure_diversity(captions, **options)))


def test_healthy_captions_raise_none() -> None:
    assert alarms(measure_diversity(VARIED, ended=[True] * 12, training=VARIED)) == []
    assert alarms(measure_diversity(["a dog", "a dog"])) == []  # too few to tell


def test_human_captions_raise_none(shared_data: Path) -> None:
    annotations = json.loads((shared_data / "data/coco-captions/captions_val2017.json").read_text())["annotations"]
    assert alarms(measure_diversity([annotation["caption"] for annotation in annotations[:3000]])) == []


@pytest.mark.parametrize(
    ("captions", "ended", "message"),
    [
        ([], None, "no captions to measure"),
        (["a", float("nan")], None, "the caption of 'caption 2' is nan, expected text"),
        (["a"], [True, False], "2 end flags for 1 captions"),
    ],
)
def test_wrong_input_gives_one_clear_line(captions: list[Any], ended: list[bool] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        measure_diversity(captions, ended=ended)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.sampled_from(["a", "dog", "runs", "."]), max_size=8).map(" ".join), min_size=1, max_size=12)
)
def test_shares_stay_in_bounds(captions: list[str]) -> None:
    found = measure_diversity(captions, training=captions, ended=[True] * len(captions))
    shares = [found.distinct_1, found.distinct_2, found.different, found.commonest_share, found.repeated_2]
    assert all(0 <= share <= 1 for share in [*shares, found.repeated_3])
    assert found.repeated_3 <= found.repeated_2
    assert found.new == found.unfinished == 0
    assert found.longest_run <= max(8, found.mean_length)
