"""Captions under `captrain data check`: garbled letters, repeats, lengths."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captrain.data.check.captions import MANY, CaptionTally, Lengths, repaired, words_of
from captrain.data.check.problems import Findings

GARBLED = {
    "a cafÃ©": "a café",
    "the childâ€™s hat": "the child’s hat",
    "â€œStopâ€\x9d": "“Stop”",
    "ä¸\xadæ–‡": "中文",
    "ÐšÐ¾Ñ‚": "Кот",
}


@pytest.mark.parametrize("garbled", GARBLED)
def test_garbled_letters_are_set_right(garbled: str) -> None:
    assert repaired(garbled) == GARBLED[garbled]


@pytest.mark.parametrize("encoding", ["latin-1"])
@given(text=st.text(st.characters(min_codepoint=0xC0, max_codepoint=0x17F), min_size=2, max_size=20))
def test_what_was_garbled_is_noticed(encoding: str, text: str) -> None:
    assert repaired(text.encode("utf-8").decode(encoding)) != text.encode("utf-8").decode(encoding)


@pytest.mark.parametrize(
    "text",
    ["Être à Åre", "NÃO", "CAFÉ»", "«déjà vu»", "naïve — “quoted” …", "Ça coûte 5 € ™", "größer", "Łódź", "猫 🐈"],
)
def test_plain_text_is_left_alone(text: str) -> None:
    assert repaired(text) == text


@given(st.text())
def test_repairing_never_fails(text: str) -> None:
    assert isinstance(repaired(text), str)


def tally_of(captions: list[list[str]], **limits: int) -> tuple[CaptionTally, Findings]:
    findings = Findings()
    tally = CaptionTally(findings, limits.get("max_words", 100), lambda texts: [len(text) for text in texts], 40)
    for picture, texts in enumerate(captions):
        tally.add(picture, texts)
    tally.finish(lambda picture: captions[picture])
    return tally, findings


def test_each_kind_is_found_where_it_is() -> None:
    captions = [["a dog", "A  dog"], ["x " * 9], [], ["  "], ["lost \ufffd"], ["y" * 41]]
    _, findings = tally_of(captions, max_words=8)
    found = [(finding.kind, finding.picture) for finding in findings]
    assert found == [
        ("caption-twice", 0),
        ("long-caption", 1),
        ("no-caption", 2),
        ("empty-caption", 3),
        ("garbled", 4),
        ("cut", 5),
    ]


def test_a_caption_counts_as_shared_from_many_pictures_on() -> None:
    _, few = tally_of([["a dog", "a dog"]] * (MANY - 1))
    assert "caption-shared" not in few.counts()
    _, many = tally_of([["A dog"]] * MANY + [["a cat"]] * (MANY + 1))
    shared = [finding for finding in many if finding.kind == "caption-shared"]
    assert len(shared) == 2 * MANY + 1
    assert [finding.picture for finding in shared[:2]] == [MANY, 0]  # one of each caption, the commoner first
    assert shared[0].detail == f'shares with {MANY} others the caption "a cat"'


def test_words_and_tokens_are_counted() -> None:
    tally, _ = tally_of([["a dog", "two dogs run"]])
    assert list(tally.words) == [2, 3]
    assert list(tally.tokens) == [5, 12]
    assert tally.vocabulary == {"a": 1, "dog": 1, "two": 1, "dogs": 1, "run": 1}


def test_scripts_without_spaces_are_counted_by_character() -> None:
    assert len(words_of("一只猫坐在垫子上")) == 8
    assert words_of("Корабль, на МОРЕ") == ["корабль", "на", "море"]


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=50))
def test_bins_hold_each_caption_once(lengths: list[int]) -> None:
    found = Lengths.of(array("H", lengths))
    assert found is not None
    for low, high, count in found.bins:
        assert count == sum(low <= length <= high for length in lengths)
    assert sum(count for _, _, count in found.bins) == len(lengths)


def test_no_captions_have_no_lengths() -> None:
    assert Lengths.of(array("H")) is None
