"""Captions that carry their references are scored as a whole, one by one, and with what there is to say about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from captrain.metrics import judging
from captrain.metrics.java import MetricScores
from captrain.metrics.judging import judge
from captrain.metrics.score import score_captions
from captrain.records import Caption

WRITTEN = [
    Caption("1", "a dog runs on the grass", references=("a dog runs on grass", "the brown dog runs")),
    Caption("2", "two cats sleep", references=("two cats sleep on a sofa", "cats asleep")),
    Caption("3", "a red bus", references=("a man rides a bicycle", "a cyclist in the street")),
]


def test_scores_are_those_of_the_score_function() -> None:
    judged = judge(WRITTEN)
    expected = score_captions({c.id: c.text for c in WRITTEN}, {c.id: c.references for c in WRITTEN})
    assert judged.scores == expected.scores
    assert judged.system.signature == expected.signature
    for caption in judged.captions:
        for name, value in caption.measured.items():
            assert value == expected.per_image[caption.id][name]


def test_every_caption_keeps_what_it_had_and_says_its_own_score() -> None:
    judged = judge(WRITTEN)
    assert [caption.text for caption in judged.captions] == [caption.text for caption in WRITTEN]
    assert judged.captions[2].measured["cider"] < judged.captions[0].measured["cider"]
    assert set(judged.captions[0].to_dict()["measured"]) == {"cider", "bleu_4", "rouge_l"}


def in_java(name: str, candidates: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> MetricScores:
    """Stands for the Java programs: how long a caption is, of the set their sum."""
    lengths = {id: {name: float(len(caption.split()))} for id, caption in candidates.items()}
    assert references["3"] == ["a man rides a bicycle", "a cyclist in the street"]
    return {name: sum(values[name] for values in lengths.values())}, lengths


def test_java_runs_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "score_java", lambda *_: pytest.fail("was not asked for"))
    plain = judge(WRITTEN, asked=("cider",))
    monkeypatch.setattr(judging, "score_java", in_java)
    for name in ("meteor", "spice"):
        judged = judge(WRITTEN, asked=(name,))
        assert judged.scores == plain.scores | {name: 12}
        assert [caption.measured[name] for caption in judged.captions] == [6, 3, 3]
        assert (name in judged.to_dict()["intervals"]) == (name == "spice"), "METEOR of a set is no mean of its images"


def test_intervals_hold_the_scores_and_one_image_has_none() -> None:
    content = judge(WRITTEN).to_dict()
    for name, (low, high) in content["intervals"].items():
        assert low <= content["scores"][name] <= high
    assert "intervals" not in judge(WRITTEN[:1]).to_dict()


def test_a_captioner_that_says_one_thing_raises_an_alarm() -> None:
    alike = [Caption(str(number), "a man in a shirt", references=("a dog runs",)) for number in range(30)]
    notes = " ".join(judge(alike).to_dict()["notes"])
    assert "a man in a shirt" in notes
    assert "notes" not in judge(WRITTEN).to_dict() or "shirt" not in str(judge(WRITTEN).to_dict()["notes"])


def test_no_words_score_nothing() -> None:
    judged = judge([Caption("1", "", references=("a dog",)), Caption("2", "two cats", references=("two cats",))])
    assert judged.captions[0].measured == pytest.approx({"cider": 0, "bleu_4": 0, "rouge_l": 0})


def test_scores_that_are_next_to_nothing_are_nothing() -> None:
    """BLEU of no match is a little more than 0 in pycocoevalcap, which nobody wants to read; what is something stays."""
    wrong = [Caption("1", "x y z", references=("a dog runs",)), Caption("2", "q", references=("two cats",))]
    judged = judge(wrong)
    assert set(judged.to_dict()["scores"].values()) == {0.0}
    assert {end for ends in judged.to_dict()["intervals"].values() for end in ends} == {0.0}
    exact = score_captions({"1": "a dog"}, {"1": ["a dog runs"]}).scores
    assert judge([Caption("1", "a dog", references=("a dog runs",))]).scores == pytest.approx(exact, abs=1e-6)
    assert 0 < exact["bleu_3"] < 0.01
