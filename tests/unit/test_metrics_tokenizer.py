"""The treebank tokenizer against lines of the reference tokenizer (CoreNLP 3.4.1 as pycocoevalcap 1.2 runs it)."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from captrain import metrics
from captrain.errors import UserError
from captrain.metrics.tokenizer import tokenize, tokenize_lines
from captrain.metrics.treebank import treebank_line, treebank_lines

FIXTURES = Path(__file__).parents[1] / "fixtures" / "metrics"


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (FIXTURES / name).read_text(encoding="utf-8").splitlines()]


KINDS = sorted({row["kind"] for row in rows("ptb_kinds.jsonl")})


def test_gives_the_reference_tokens() -> None:
    wrong = [row for row in rows("ptb_tokens.jsonl") if tokenize(row["caption"]) != row["tokens"].split()]
    assert wrong == []


@pytest.mark.parametrize("kind", KINDS)
def test_gives_the_reference_lines_for_captions_of_each_kind(kind: str) -> None:
    """Lines as the reference writes them, so that no-break spaces within a token count."""
    wrong = [
        (row, treebank_line(row["caption"]))
        for row in rows("ptb_kinds.jsonl")
        if row["kind"] == kind and treebank_line(row["caption"]) != row["line"]
    ]
    assert wrong == []


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
        ("1 1/2 cups", ["1", "1/2", "cups"]),
    ],
)
def test_small_cases(caption: str, tokens: list[str]) -> None:
    assert tokenize(caption) == tokens == metrics.tokenize(caption)


def test_a_token_with_a_space_inside_stays_one_in_the_line() -> None:
    assert treebank_line("1 1/2 cups <br />") == "1\xa01/2 cups <br\xa0/>"


def test_a_final_initial_reads_the_next_line() -> None:
    assert tokenize_lines(["Vitamin C.", "A man"]) == [["vitamin", "c"], ["a", "man"]]
    assert tokenize_lines(["Vitamin C.", "a man"]) == [["vitamin", "c."], ["a", "man"]]
    assert tokenize_lines(["Vitamin C.", "", " The man"]) == [["vitamin", "c"], [], ["the", "man"]]
    assert tokenize_lines(["Vitamin C."]) == [["vitamin", "c."]]
    assert tokenize_lines(["in '90", "a"]) == [["in", "'90"], ["a"]]
    assert tokenize_lines(["in '90"]) == [["in", "90"]]  # the end of the file is no space
    assert tokenize_lines([]) == []


def test_all_coco_captions(shared_data: Path) -> None:
    with gzip.open(shared_data / "data/coco-captions/ptb_tokens_val2017.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    lines = treebank_lines([row["caption"] for row in rows])
    wrong = [row["caption"] for row, line in zip(rows, lines, strict=True) if line != row["tokens"]]
    assert len(rows) == 25014
    assert wrong == []


@settings(deadline=None, max_examples=50)
@given(st.text())
@example("\u0130\u00df \u2028 x")
@example("a,.")
@example("<a b='c' d>'s")
@example("\xad- 5\xad")
def test_any_text_gives_clean_tokens(text: str) -> None:
    for token in tokenize(text):
        assert token
        assert token.split() == [token]
    assert "  " not in treebank_line(text)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["a", "Dog", "the", "'s", "n't", "U.S.", "(", "1/2", "...", "\u2019", "@", "-", ","])))
def test_spaces_around_a_caption_do_not_matter(words: list[str]) -> None:
    assert tokenize("  ".join(words)) == tokenize("  " + "  ".join(words) + " ")


@pytest.mark.parametrize(
    "piece",
    [
        "a,",
        "<a ",
        "<!a",
        "a@",
        "-a",
        "a'",
        "a",
        "1,",
        "<a b='",
        "http://",
        "e'e",
        "aa-",
        ".",
        "1 1",
        "\xad",
        "a.a",
        "(x",
    ],
)
def test_long_text_takes_no_long_time(piece: str) -> None:
    begun = time.process_time()
    tokenize(piece * (20_000 // len(piece)))
    assert time.process_time() - begun < 5


def test_an_unknown_tokenizer_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown tokenizer 'unicod'\. Did you mean 'unicode'"):
        tokenize("a dog", "unicod")
