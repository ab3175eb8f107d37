"""ROUGE-L against the plain definition, computed the slow way."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.metrics.bleu_rouge_cider import rouge_l

lines = st.lists(st.sampled_from(["a", "b", "c", "dog", "cat"]), max_size=12).map(" ".join)


def common(left: list[str], right: list[str]) -> int:
    """Length of the longest common subsequence by the textbook's table."""
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for row, word in enumerate(left, start=1):
        for column, other in enumerate(right, start=1):
            above = max(table[row - 1][column], table[row][column - 1])
            table[row][column] = table[row - 1][column - 1] + 1 if word == other else above
    return table[-1][-1]


def slow_rouge(candidate: str, references: list[str]) -> float:
    words = candidate.split(" ")
    found = [(common(words, other.split(" ")), len(other.split(" "))) for other in references]
    precision, recall = max(same / len(words) for same, _ in found), max(same / length for same, length in found)
    return 2.44 * precision * recall / (recall + 1.44 * precision) if precision and recall else 0.0


@settings(deadline=None, max_examples=50)
@given(lines, st.lists(lines, min_size=1, max_size=4))
def test_equals_the_definition(candidate: str, references: list[str]) -> None:
    assert rouge_l(candidate, references) == pytest.approx(slow_rouge(candidate, references), rel=1e-12)


def test_precision_and_recall_come_from_their_best_references() -> None:
    assert rouge_l("a b", ["a b c d", "a"]) == pytest.approx(1)
    assert rouge_l("a b", ["c d"]) == 0


def test_tokens_are_split_at_plain_spaces_only() -> None:
    assert rouge_l("1\xa01/2", ["1\xa01/2"]) == 1
    assert rouge_l("1\xa01/2", ["1 1/2"]) == 0


def test_a_line_without_tokens_counts_as_one_empty_token() -> None:
    assert rouge_l("", ["a dog"]) == 0
    assert rouge_l("", [""]) == 1


def test_long_captions_take_no_long_time() -> None:
    long = "a b c d e " * 4000 + "f"
    begun = time.process_time()
    assert rouge_l(long, [long, "x " + long]) == 1
    assert time.process_time() - begun < 5
