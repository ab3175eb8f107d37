"""Scores: golden numbers, properties, and one clear line for input that can't be scored."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captrain.errors import DataError, UserError
from captrain.metrics.bleu import BleuScorer
from captrain.metrics.cider import CiderScorer
from captrain.metrics.score import METRICS, Scores, score_captions

PREDICTIONS = {"1": "a dog runs on the green grass", "2": "two cats sleep on a sofa", "3": "a red bus"}
REFERENCES = {
    "1": ["A dog runs on the green grass.", "A brown dog is running."],
    "2": ["Two cats are asleep on a sofa.", "Cats sleeping"],
    "3": ["A blue train stops at a station."],
}

words = st.lists(st.sampled_from(["a", "the", "dog", "cat", "runs", "sleeps", "on", "grass", "red"]), max_size=9)
captions = words.map(" ".join)
images_with_captions = st.tuples(captions, st.lists(captions, min_size=1, max_size=3))
sets = st.dictionaries(st.text("abc123", min_size=1, max_size=4), images_with_captions, min_size=1)


def test_golden_scores(shared_data: Path) -> None:
    folder = shared_data / "data" / "coco-captions"
    golden = json.loads((folder / "golden_scores_val2017.json").read_text())
    annotations = json.loads((folder / "captions_val2017.json").read_text())["annotations"]
    by_image: dict[str, list[str]] = {}
    for annotation in sorted(annotations, key=lambda annotation: annotation["id"]):
        by_image.setdefault(str(annotation["image_id"]), []).append(annotation["caption"])
    found = score_captions(
        {id: captions[0] for id, captions in by_image.items()}, {id: captions[1:] for id, captions in by_image.items()}
    )
    assert found.images == golden["images"]
    for order in range(1, 5):
        assert found.scores[f"bleu_{order}"] == pytest.approx(golden[f"Bleu_{order}"], rel=1e-9)
    assert found.scores["cider"] == pytest.approx(golden["CIDEr"], rel=1e-9)


def test_scores_say_what_was_scored() -> None:
    scores = score_captions(PREDICTIONS, REFERENCES)
    assert isinstance(scores, Scores)
    assert list(scores.scores) == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "cider"] == list(METRICS)
    assert list(scores.per_image) == ["1", "2", "3"]
    assert set(scores.per_image["1"]) == set(METRICS)
    assert scores.to_dict() == {"scores": scores.scores, "images": 3}
    assert scores.scores["cider"] == pytest.approx(sum(image["cider"] for image in scores.per_image.values()) / 3)
    json.dumps(scores.to_dict(), allow_nan=False)


def test_only_what_is_asked_is_computed() -> None:
    assert list(score_captions(PREDICTIONS, REFERENCES, ["cider"]).scores) == ["cider"]
    assert "bleu_1" in score_captions(PREDICTIONS, REFERENCES, ["bleu_4"]).scores


def test_empty_captions_score_zero() -> None:
    scores = score_captions(dict.fromkeys(REFERENCES, ""), REFERENCES)
    assert all(value == 0 for value in scores.scores.values())
    scores = score_captions({"1": "", "2": "a cat"}, {"1": [""], "2": ["a cat"]})
    assert all(math.isfinite(value) for value in scores.scores.values())


def test_one_image_has_no_cider() -> None:
    scores = score_captions({"1": "a dog"}, {"1": ["a dog"]})
    assert scores.scores["cider"] == 0
    assert scores.scores["bleu_1"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ({}, {}, "nothing to score"),
        ({"1": "a"}, {"1": ["a"], "2": ["b"]}, "1 of 2 images with references have no caption \\('2'\\)"),
        ({"1": "a", "x": "b"}, {"1": ["a"]}, "1 of 2 captions have no references \\('x'\\)"),
        ({"1": "a"}, {"1": []}, "'1' has no references"),
        ({"1": "a"}, {"1": "a"}, "'1' are one text"),
        ({"1": float("nan")}, {"1": ["a"]}, "caption of '1' is nan, expected text"),
        ({"1": "a"}, {"1": ["a", None]}, "reference of '1' is None, expected text"),
    ],
)
def test_wrong_input_gives_one_clear_line(
    predictions: dict[str, Any], references: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        score_captions(predictions, references)
    assert "\n" not in str(caught.value)


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown metric 'cidr'.*Did you mean 'cider'"):
        score_captions(PREDICTIONS, REFERENCES, ["cidr"])


@given(sets)
def test_scores_stay_in_bounds(images: dict[str, tuple[str, list[str]]]) -> None:
    predictions = {id: caption for id, (caption, _) in images.items()}
    references = {id: captions for id, (_, captions) in images.items()}
    scores = score_captions(predictions, references)
    for values in (scores.scores, *scores.per_image.values()):
        assert all(0 <= value <= 1 + 1e-9 for name, value in values.items() if name.startswith("bleu"))
        assert 0 <= values["cider"] <= 10 + 1e-9


@given(sets, st.randoms(use_true_random=False))
def test_order_does_not_matter(images: dict[str, tuple[str, list[str]]], random: Random) -> None:
    ids = list(images)
    random.shuffle(ids)
    first = score_captions({id: images[id][0] for id in images}, {id: images[id][1] for id in images})
    second = score_captions({id: images[id][0] for id in ids}, {id: images[id][1][::-1] for id in reversed(ids)})
    assert second.scores == pytest.approx(first.scores, rel=1e-12)


@given(words.filter(lambda tokens: len(tokens) >= 4), words)
def test_a_copied_reference_scores_highest(reference: list[str], other: list[str]) -> None:
    references = {"1": [reference], "2": [["an", "odd", "one", "out"]]}
    bleu, cider = BleuScorer(references), CiderScorer(references)
    assert bleu.score({"1": reference})[1]["1"][3] >= bleu.score({"1": other})[1]["1"][3] - 1e-9
    assert cider.score({"1": reference})[1]["1"] >= cider.score({"1": other})[1]["1"] - 1e-9


def test_a_scorer_is_prepared_once_and_used_often() -> None:
    references = {"1": [["a", "dog", "runs", "fast"]], "2": [["two", "cats", "sleep", "well"]]}
    scorer = CiderScorer(references)
    first = scorer.score({"1": ["a", "dog"], "2": ["two", "cats"]})
    scorer.score({"1": ["unseen", "words"], "2": []})
    assert scorer.score({"1": ["a", "dog"], "2": ["two", "cats"]}) == first
