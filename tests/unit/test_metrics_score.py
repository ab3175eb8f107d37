"""Scores: golden numbers, properties, document frequencies, and one clear line for input that can't be scored."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain import __version__
from captrain.errors import DataError, UserError
from captrain.metrics import DocumentFrequencies, Scorer, Scores, score_captions
from captrain.metrics.score import METRICS

PREDICTIONS = {"1": "a dog runs on the green grass", "2": "two cats sleep on a sofa", "3": "a red bus"}
REFERENCES = {
    "1": ["A dog runs on the green grass.", "A brown dog is running."],
    "2": ["Two cats are asleep on a sofa.", "Cats sleeping"],
    "3": ["A blue train stops at a station."],
}

words = st.lists(st.sampled_from(["a", "the", "dog", "cat", "runs", "sleeps", "on", "grass", "red"]), max_size=9)
captions = words.map(" ".join)
images_with_captions = st.tuples(captions, st.lists(captions, min_size=1, max_size=3))
sets = st.dictionaries(st.text("abc123", min_size=1, max_size=4), images_with_captions, min_size=1, max_size=6)
quickly = settings(deadline=None, max_examples=40)


def coco(folder: Path) -> dict[str, list[str]]:
    annotations = json.loads((folder / "captions_val2017.json").read_text())["annotations"]
    by_image: dict[str, list[str]] = {}
    for annotation in sorted(annotations, key=lambda annotation: annotation["id"]):
        by_image.setdefault(str(annotation["image_id"]), []).append(annotation["caption"])
    return by_image


def test_golden_scores(shared_data: Path) -> None:
    folder = shared_data / "data" / "coco-captions"
    golden = json.loads((folder / "golden_scores_val2017.json").read_text())
    images = coco(folder)
    found = score_captions(
        {id: captions[0] for id, captions in images.items()}, {id: captions[1:] for id, captions in images.items()}
    )
    assert found.images == golden["images"]
    for order in range(1, 5):
        assert found.scores[f"bleu_{order}"] == pytest.approx(golden[f"Bleu_{order}"], rel=1e-9)
    assert found.scores["rouge_l"] == pytest.approx(golden["ROUGE_L"], rel=1e-9)
    assert found.scores["cider"] == pytest.approx(golden["CIDEr"], rel=1e-9)


def test_scores_say_what_was_scored() -> None:
    scores = score_captions(PREDICTIONS, REFERENCES)
    assert isinstance(scores, Scores)
    assert list(scores.scores) == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"] == list(METRICS)
    assert list(scores.per_image) == ["1", "2", "3"]
    assert set(scores.per_image["1"]) == set(METRICS)
    assert scores.to_dict() == {"scores": scores.scores, "images": 3, "signature": scores.signature}
    for name in ("rouge_l", "cider"):
        assert scores.scores[name] == pytest.approx(sum(image[name] for image in scores.per_image.values()) / 3)
    assert scores.notes == ()
    json.dumps(scores.to_dict(), allow_nan=False)
    json.dumps(scores.per_image, allow_nan=False)


def test_a_signature_names_all_that_a_score_depends_on() -> None:
    assert score_captions(PREDICTIONS, REFERENCES).signature == (
        f"captrain:{__version__}|tokenizer:ptb|metrics:bleu(closest)+rouge_l(beta=1.2)+cider(d,n=4,sigma=6)"
        "|df:references|images:3|references:1-2"
    )
    known = DocumentFrequencies.of(REFERENCES, "unicode", name="toy")
    scores = score_captions({"1": "a"}, {"1": ["a", "b"]}, ["cider"], tokenizer="unicode", document_frequencies=known)
    assert scores.signature.endswith("|tokenizer:unicode|metrics:cider(d,n=4,sigma=6)|df:toy(3)|images:1|references:2")
    assert "df:" not in score_captions({"1": "a"}, {"1": ["a"]}, ["rouge_l"]).signature


def test_only_what_is_asked_is_computed() -> None:
    assert list(score_captions(PREDICTIONS, REFERENCES, ["cider"]).scores) == ["cider"]
    assert list(score_captions(PREDICTIONS, REFERENCES, ["rouge_l"]).scores) == ["rouge_l"]
    assert list(score_captions(PREDICTIONS, REFERENCES, ["bleu_4"]).scores) == ["bleu_1", "bleu_2", "bleu_3", "bleu_4"]


def test_empty_captions_score_zero() -> None:
    scores = score_captions(dict.fromkeys(REFERENCES, ""), REFERENCES)
    assert all(value == 0 for value in scores.scores.values())
    assert scores.notes == ("3 of 3 captions have no words and score 0",)
    scores = score_captions({"1": "", "2": "a cat"}, {"1": [""], "2": ["a cat"]})
    assert all(math.isfinite(value) for value in scores.scores.values())


def test_one_image_has_no_cider_and_is_told_why() -> None:
    scores = score_captions({"1": "a dog"}, {"1": ["a dog"]})
    assert scores.scores["cider"] == 0
    assert scores.scores["bleu_1"] == pytest.approx(1)
    (note,) = scores.notes
    assert note.startswith("cider is 0 because there is one image only")
    assert score_captions({"1": "a dog"}, {"1": ["a dog"]}, ["bleu_1"]).notes == ()


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ({}, {}, "nothing to score"),
        ({"1": "a"}, {"1": ["a"], "2": ["b"]}, "1 of 2 images with references have no caption \\('2'\\)"),
        ({"1": "a", "x": "b"}, {"1": ["a"]}, "1 of 2 captions have no references \\('x'\\)"),
        ({"1": "a"}, {"1": []}, "'1' has no references"),
        ({"1": "a"}, {"1": "a"}, "'1' are one text"),
        ({"1": "a"}, {"1": None}, "'1' are None, expected a list"),
        ({"1": float("nan")}, {"1": ["a"]}, "caption of '1' is nan, expected text"),
        ({"1": "a"}, {"1": ["a", None]}, "reference of '1' is None, expected text"),
        ({"1": "a"}, {"1": ["a", math.nan]}, "reference of '1' is nan, expected text"),
        ({"1": "a" * 100_001}, {"1": ["a"]}, "caption of '1' has 100001 characters, expected at most 100000"),
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


@quickly
@given(sets)
def test_scores_stay_in_bounds(images: dict[str, tuple[str, list[str]]]) -> None:
    predictions = {id: caption for id, (caption, _) in images.items()}
    references = {id: captions for id, (_, captions) in images.items()}
    scores = score_captions(predictions, references)
    for values in (scores.scores, *scores.per_image.values()):
        assert all(0 <= value <= 1 + 1e-9 for name, value in values.items() if name != "cider")
        assert 0 <= values["cider"] <= 10 + 1e-9


@quickly
@given(sets, st.randoms(use_true_random=False))
def test_order_does_not_matter(images: dict[str, tuple[str, list[str]]], random: Random) -> None:
    ids = list(images)
    random.shuffle(ids)
    first = score_captions({id: images[id][0] for id in images}, {id: images[id][1] for id in images})
    second = score_captions({id: images[id][0] for id in ids}, {id: images[id][1][::-1] for id in reversed(ids)})
    assert second.scores == pytest.approx(first.scores, rel=1e-12)


@quickly
@given(words.filter(lambda tokens: len(tokens) >= 4), st.lists(captions, max_size=3), words)
def test_a_copied_reference_scores_highest(reference: list[str], others: list[str], other: list[str]) -> None:
    scorer = Scorer({"1": [" ".join(reference), *others], "2": ["an odd one out"]})
    scores = scorer.score(["1", "1"], [" ".join(reference), " ".join(other)])
    for name in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"):
        assert scores[name][0] == pytest.approx(1, abs=1e-8)
        assert scores[name][0] >= scores[name][1] - 1e-8
    if not others:
        assert scores["cider"][0] >= scores["cider"][1] - 1e-9


@quickly
@given(sets)
def test_a_scorer_gives_each_image_what_the_set_gives_it(images: dict[str, tuple[str, list[str]]]) -> None:
    predictions = {id: caption for id, (caption, _) in images.items()}
    references = {id: captions for id, (_, captions) in images.items()}
    expected = score_captions(predictions, references).per_image
    ids = [*images, *reversed(images)]
    found = Scorer(references).score(ids, [predictions[id] for id in ids])
    for name, values in found.items():
        assert values.tolist() == pytest.approx([expected[id][name] for id in ids], rel=1e-12, abs=1e-30)


def test_a_scorer_is_prepared_once_and_used_often() -> None:
    scorer = Scorer(REFERENCES)
    first = scorer.score(["1", "2"], ["a dog", "two cats"])
    scorer.score(["1", "2"], ["unseen words unseen words", ""])
    again = scorer.score(["1", "2"], ["a dog", "two cats"])
    assert all(np.array_equal(first[name], again[name]) for name in METRICS)
    assert {name: values.shape for name, values in scorer.score([], []).items()} == dict.fromkeys(METRICS, (0,))
    with pytest.raises(DataError, match="no references for id '9'"):
        scorer.score(["9"], ["a"])


def test_a_candidate_does_not_read_its_neighbour() -> None:
    """As lines of one file, "C." before "The" would end a sentence and lose its full stop."""
    scorer = Scorer({"1": ["take vitamin c. now"], "2": ["the dog"]}, ["rouge_l"])
    assert scorer.score(["1", "2"], ["vitamin C.", "The dog"])["rouge_l"].tolist() == pytest.approx(
        [0.6288, 1], abs=1e-4
    )


def test_frequencies_of_the_references_are_what_cider_takes_by_itself() -> None:
    known = DocumentFrequencies.of(REFERENCES, name="toy")
    given = score_captions(PREDICTIONS, REFERENCES, document_frequencies=known)
    assert given.scores == score_captions(PREDICTIONS, REFERENCES).scores
    alone = score_captions({"1": PREDICTIONS["1"]}, {"1": REFERENCES["1"]}, document_frequencies=known)
    assert alone.scores["cider"] == pytest.approx(given.per_image["1"]["cider"], rel=1e-12)
    assert alone.scores["cider"] > 0
    assert alone.notes == ()
    unknown = score_captions({"x": "some new words here"}, {"x": ["some new words here"]}, document_frequencies=known)
    assert unknown.scores["cider"] == pytest.approx(10)


def test_frequencies_come_back_from_a_file(tmp_path: Path) -> None:
    known = DocumentFrequencies.of(REFERENCES, name="coco-val2017")
    known.save(tmp_path / "df.gz")
    loaded = DocumentFrequencies.load(tmp_path / "df.gz")
    assert (loaded.label, loaded.tokenizer) == ("coco-val2017(3)", "ptb")
    given, from_file = (
        score_captions(PREDICTIONS, REFERENCES, document_frequencies=frequencies) for frequencies in (known, loaded)
    )
    assert given == from_file
    loaded.save(tmp_path / "again.gz")
    assert (tmp_path / "again.gz").read_bytes() == (tmp_path / "df.gz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.gz", "df.gz"]


def edited(change: Callable[[list[dict[str, Any]]], object], path: Path) -> None:
    """A saved file with its rows changed."""
    DocumentFrequencies.of(REFERENCES).save(path)
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    change(rows)
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows[0].update(format="other"), "a known format"),
        (lambda rows: rows[0].update(name="a|b"), "its name is not one"),
        (lambda rows: rows[0].update(images=True), "more mentions than images"),
        (lambda rows: rows[0].update(images="3"), "bad first line"),
        (lambda rows: rows[0].update(sizes=[10**9, 1, 1, 1]), "more than 50000000"),
        (lambda rows: rows[0].update(sizes=[1, 2]), "bad sizes"),
        (lambda rows: rows[0].pop("tokenizer"), "tokenizer"),
        (lambda rows: rows[1].update(words=rows[1]["words"][:1] * len(rows[1]["words"])), "come twice"),
        (lambda rows: rows[1]["words"].__setitem__(0, "two words"), "words that are not text"),
        (lambda rows: rows[1]["words"].__setitem__(0, 5), "words that are not text"),
        (lambda rows: rows[1]["images"].__setitem__(0, 1.5), "not whole"),
        (lambda rows: rows[2]["images"].__setitem__(0, 99), "more mentions than images"),
        (lambda rows: rows[2]["first"].__setitem__(0, 99), "unknown words"),
        (lambda rows: rows[2]["last"].__setitem__(0, -1), "unknown words"),
        (lambda rows: rows[3]["first"].reverse(), "out of order"),
        (lambda rows: rows[3]["first"].pop(), "unequal length"),
        (lambda rows: rows.pop(), "Expecting value"),
        (lambda rows: rows.clear(), "Expecting value"),
        (lambda rows: rows.__setitem__(0, [1]), "a known format"),
    ],
)
def test_a_broken_file_of_frequencies_is_refused_in_one_line(
    change: Callable[[list[dict[str, Any]]], object], reason: str, tmp_path: Path
) -> None:
    edited(change, tmp_path / "df.gz")
    with pytest.raises(
        DataError, match=rf"df\.gz: not a file of document frequencies \(.*{reason}.*\); make"
    ) as caught:
        DocumentFrequencies.load(tmp_path / "df.gz")
    assert "\n" not in str(caught.value)


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        DocumentFrequencies.load(tmp_path / "df.gz")
    (tmp_path / "text.gz").write_text("not gzipped")
    DocumentFrequencies.of(REFERENCES).save(tmp_path / "half.gz")
    (tmp_path / "half.gz").write_bytes((tmp_path / "half.gz").read_bytes()[:-30])
    for name in ("text.gz", "half.gz", "."):
        with pytest.raises(DataError, match="not a file of document frequencies"):
            DocumentFrequencies.load(tmp_path / name)


def test_frequencies_of_another_tokenizer_or_a_bad_name_are_refused() -> None:
    known = DocumentFrequencies.of(REFERENCES, "characters")
    with pytest.raises(UserError, match="of tokenizer 'characters', expected 'ptb'"):
        Scorer(REFERENCES, document_frequencies=known)
    with pytest.raises(UserError, match="'coco val' can't name document frequencies"):
        DocumentFrequencies.of(REFERENCES, name="coco val")
