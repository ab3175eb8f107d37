"""Intervals and comparisons: the same scores as the metrics give, and right about what chance does."""

from __future__ import annotations

import time

import numpy as np
import pytest

from captrain.metrics.compare import System, compare
from captrain.metrics.score import score_captions
from captrain.metrics.significance import (
    Statistics,
    _coins,
    _drawn,
    bleu_counts,
    corpus_bleu,
    intervals,
    system_differences,
)

WORDS = list("abcdef")


def captions(generator: np.random.Generator, count: int, longest: int = 9) -> list[list[str]]:
    return [list(generator.choice(WORDS, generator.integers(longest))) for _ in range(count)]


def bleu(
    candidates: dict[str, list[str]], references: dict[str, list[list[str]]]
) -> tuple[list[float], list[list[float]]]:
    """As `score_captions` computes it, of the set and of each image."""
    lines = {id: [" ".join(words) for words in known] for id, known in references.items()}
    found = score_captions(
        {id: " ".join(words) for id, words in candidates.items()}, lines, ["bleu_4"], tokenizer="spaces"
    )
    return list(found.scores.values()), [list(values.values()) for values in found.per_image.values()]


def of_means(values: np.ndarray) -> Statistics:
    return Statistics(len(values), None, {"cider": values})


def test_bleu_from_counts_is_bleu() -> None:
    generator = np.random.default_rng(0)
    candidates = dict(zip("123456789", captions(generator, 9), strict=True))
    references = {id: [["a"], *captions(generator, 3)] for id in candidates}
    counts = bleu_counts(candidates, references)
    corpus, per_image = bleu(candidates, references)
    assert corpus_bleu(counts.sum(axis=0, keepdims=True))[0] == pytest.approx(corpus, rel=1e-12)
    assert corpus_bleu(counts) == pytest.approx(np.array(per_image), rel=1e-9)


def test_a_resample_is_scored_as_if_it_were_the_set() -> None:
    generator = np.random.default_rng(1)
    candidates = {str(number): words for number, words in enumerate(captions(generator, 20))}
    references = {id: [["a", "b"], *captions(generator, 2)] for id in candidates}
    statistics = Statistics(20, bleu_counts(candidates, references), {"cider": generator.random(20)})
    (weights,) = _drawn(20, 3, seed=5)
    found = statistics.scores(weights @ statistics.columns())
    ids = [id for id, times in zip(candidates, weights[2].astype(int), strict=True) for _ in range(times)]
    assert len(ids) == 20
    copies = {f"{id}-{number}": candidates[id] for number, id in enumerate(ids)}
    corpus, _ = bleu(copies, {id: references[id.split("-")[0]] for id in copies})
    assert found[2, :4] == pytest.approx(corpus, rel=1e-12)
    assert found[2, 4] == pytest.approx(np.mean([statistics.means["cider"][int(id)] for id in ids]))


def test_intervals_are_those_of_the_mean() -> None:
    values = np.random.default_rng(2).normal(0.5, 0.1, size=400)
    low, high = intervals(of_means(values), 4000)["cider"]
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=error / 10)
    assert high == pytest.approx(values.mean() + error, abs=error / 10)


def test_same_seed_same_numbers() -> None:
    statistics = of_means(np.random.default_rng(3).random(50))
    assert intervals(statistics, seed=7) == intervals(statistics, seed=7) != intervals(statistics, seed=8)


def test_portions_do_not_change_what_is_drawn_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captrain.metrics.significance._CELLS", 25)
    weights = np.concatenate(list(_drawn(10, 7, seed=0)))
    assert weights.shape == (7, 10)
    assert (weights.sum(axis=1) == 10).all()
    assert np.concatenate(list(_coins(10, 7, seed=0))).shape == (7, 10)


def test_a_system_does_not_differ_from_itself() -> None:
    statistics = of_means(np.random.default_rng(4).random(50))
    (found,) = system_differences(statistics, statistics)
    assert (found.difference, found.interval, found.p, found.significant) == (0, (0, 0), 1, False)


def test_a_clear_difference_is_seen_and_its_sign_is_right() -> None:
    values = np.random.default_rng(5).random(200)
    (found,) = system_differences(of_means(values + 0.05), of_means(values))
    assert found.difference == pytest.approx(0.05)
    assert found.interval == pytest.approx((0.05, 0.05))
    assert found.significant


def test_chance_alone_is_called_significant_one_time_in_twenty() -> None:
    generator = np.random.default_rng(6)
    pairs = [generator.random((2, 60)) for _ in range(300)]
    wrong = sum(system_differences(of_means(first), of_means(second), 200)[0].significant for first, second in pairs)
    assert 0.02 < wrong / len(pairs) < 0.08


def test_a_thousand_resamples_of_coco_take_a_moment() -> None:
    generator = np.random.default_rng(7)
    counts = generator.integers(1, 12, size=(5000, 10)).astype(float)
    statistics = Statistics(5000, counts, {"cider": generator.random(5000), "rouge_l": generator.random(5000)})
    start = time.process_time()
    intervals(statistics)
    system_differences(statistics, statistics)
    assert time.process_time() - start < 4


def system(name: str, values: np.ndarray) -> System:
    return System(name, {"cider": float(values.mean())}, len(values), "", of_means(values))


def test_the_best_and_those_that_are_not_worse() -> None:
    generator = np.random.default_rng(8)
    values = generator.random(300)
    near = values + generator.normal(0, 0.01, 300) - 0.0001
    found = compare([system("worse", values - 0.1), system("best", values), system("near", near)])
    assert found.best("cider") == ["best", "near"]
    assert len(found.differences) == 3
    content = found.to_dict()
    assert [entry["name"] for entry in content["systems"]] == ["worse", "best", "near"]
    assert content["comparisons"][0]["systems"] == ["worse", "best"]
    assert content["comparisons"][0]["difference"] == pytest.approx(-0.1)


def test_without_resamples_nothing_is_claimed() -> None:
    systems = [system("a", np.ones(5)), system("b", np.zeros(5))]
    found = compare(systems, resamples=0)
    assert found.best("cider") == []
    assert "intervals" not in found.systems[0].to_dict()


def test_one_image_has_no_interval() -> None:
    found = compare([system("a", np.ones(1)), system("b", np.zeros(1))])
    assert found.differences == {}
    assert found.systems[0].intervals == {}
    assert any("one image" in note for note in found.systems[0].notes)


def test_few_images_are_said_to_be() -> None:
    """What chance may have made of a score is told where the interval, as it is shown, has two ends."""
    (varied,), (equal,), (single,) = (
        compare([system("one", np.array(values))]).systems[0].notes for values in ([0.1, 0.5, 0.9], [0.2, 0.2], [0.3])
    )
    assert varied.startswith("3 images only: scores are largely chance, cider 0.50 may as well be 0.")
    assert equal == "2 images only: scores are largely chance; expected 30 or more to tell captioners apart"
    assert single == "one image only: its scores are chance, and have no intervals; expected 30 or more"
