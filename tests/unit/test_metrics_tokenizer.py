"""The tokenizer against tokens of the reference tokenizer (CoreNLP 3.4.1 as pycocoevalcap 1.2 runs it)."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from captrain.metrics.tokenizer import tokenize, tokenize_lines

FIXTURE = Path(__file__).parents[1] / "fixtures" / "metrics" / "ptb_tokens.jsonl"
CASES = [json.loads(line) for line in FIXTURE.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("case", CASES, ids=[case["caption"][:40] for case in CASES])
def test_gives_the_reference_tokens(case: dict[str, str]) -> None:
    assert tokenize(case["caption"]) == case["tokens"].split()


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("", []),
        (" \n\t ", []),
        ("...", []),
        ("A dog.", ["a", "dog"]),
        ("a dog,a cat", ["a", "dog", "a", "cat"]),
        ("two\nlines", ["two", "lines"]),
        ("on Main St.", ["on", "main", "st."]),
        ("Wanna ride", ["wan", "na", "ride"]),
        ("gonna's", ["gonna", "'s"]),
        ("(a cat)", ["-lrb-", "a", "cat", "-rrb-"]),
        ("a\x00b \U0001f600 c", ["a", "b", "c"]),
    ],
)
def test_small_cases(caption: str, tokens: list[str]) -> None:
    assert tokenize(caption) == tokens


def test_a_final_initial_reads_the_next_line() -> None:
    assert tokenize_lines(["Vitamin C.", "A man"]) == [["vitamin", "c"], ["a", "man"]]
    assert tokenize_lines(["Vitamin C.", "a man"]) == [["vitamin", "c."], ["a", "man"]]
    assert tokenize_lines(["Vitamin C."]) == [["vitamin", "c."]]
    assert tokenize_lines([]) == []


def test_all_coco_captions(shared_data: Path) -> None:
    with gzip.open(shared_data / "data/coco-captions/ptb_tokens_val2017.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    tokens = tokenize_lines([row["caption"] for row in rows])
    wrong = [row["caption"] for row, got in zip(rows, tokens, strict=True) if got != row["tokens"].split()]
    assert len(rows) == 25014
    assert wrong == []


@given(st.text())
@example("\u0130\u00df \u2028 x")
@example("a,.")
@example("<a b='c' d>'s")
def test_any_text_gives_clean_tokens(text: str) -> None:
    for token in tokenize(text):
        assert token
        assert token.split() == [token]


@given(st.lists(st.sampled_from(["a", "Dog", "the", "'s", "n't", "U.S.", "(", "1/2", "...", "\u2019", "@", "-", ","])))
def test_spaces_between_tokens_do_not_matter(words: list[str]) -> None:
    assert tokenize("  ".join(words)) == tokenize("  " + "  ".join(words) + " ")


@pytest.mark.parametrize(
    "piece", ["a,", "<a ", "<!a", "a@", "-a", "a'", "a", "1,", "<a b='", "http://", "e'e", "aa-", "."]
)
def test_long_text_takes_no_long_time(piece: str) -> None:
    begun = time.perf_counter()
    tokenize(piece * (20_000 // len(piece)))
    assert time.perf_counter() - begun < 5
