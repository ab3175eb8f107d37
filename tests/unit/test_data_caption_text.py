"""Captions are cleaned as LAVIS does, tags come and go by chance, and nothing else about a caption changes."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captrain.data.augment import generator
from captrain.data.caption_text import CaptionText
from captrain.errors import SettingsError

LAVIS = CaptionText(lower_case=True, strip_punctuation=True, max_words=50)
TAGS = "1girl, solo, red hair, smile, tree, sky"
ANY_TEXT = st.text(st.characters(), max_size=60)  # lone surrogates too
TAG = st.text("abcé犬 -_", min_size=1, max_size=8).map(str.strip).filter(bool)


def clean(caption: str, **options: Any) -> str:
    return CaptionText(**options).clean([caption])[0]


def by_lavis(caption: str, max_words: int = 50) -> str:
    """What BlipCaptionProcessor.pre_caption of LAVIS 1.0 is described to do."""
    caption = re.sub(r"([.!\"()*#:;~])", " ", caption.lower())
    caption = re.sub(r"\s{2,}", " ", caption).rstrip("\n").strip(" ")
    words = caption.split(" ")
    return " ".join(words[:max_words]) if len(words) > max_words else caption


# Clean


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog , runs .", "a dog , runs"),
        ('Two "big" dogs (brown); one: #1!', "two big dogs brown one 1"),
        ("3.5 metres ~ high", "3 5 metres high"),
        ("a dog's well-lit bed?", "a dog's well-lit bed?"),
        ("  many   spaces \n", "many spaces"),
        ("ÉTÉ à la mer", "été à la mer"),
        ("...", ""),
        ("", ""),
    ],
)
def test_lavis_rules_by_example(caption: str, expected: str) -> None:
    assert LAVIS.clean([caption]) == [expected] == [by_lavis(caption)]


@given(st.text(st.characters(exclude_categories=["Zl", "Zp", "Cc", "Zs"], include_characters=" "), max_size=80))
def test_lavis_rules_on_any_text_on_one_line(caption: str) -> None:
    text = CaptionText(lower_case=True, strip_punctuation=True, max_words=4)
    assert text.clean([caption]) == [by_lavis(caption, 4)]


def test_lavis_rules_on_real_captions(shared_data: Path) -> None:
    lines = (shared_data / "data" / "coco-mini" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    captions = [caption for line in lines for caption in json.loads(line)["captions"]]
    assert len(captions) > 1000
    # A line break or tab alone stays in LAVIS and becomes a space here.
    assert LAVIS.clean(captions) == [" ".join(by_lavis(caption).split()) for caption in captions]


@given(ANY_TEXT)
def test_nothing_on_changes_nothing(caption: str) -> None:
    assert CaptionText().clean([caption]) == [caption if caption.strip() else ""]
    assert CaptionText().vary([caption], generator(0, 1, 2)) == [caption]
    assert not CaptionText().is_random


@pytest.mark.parametrize(
    ("caption", "words", "expected"),
    [
        ("a b c", 3, "a b c"),
        ("a b c d", 3, "a b c"),
        ("a  b\n\nc d", 3, "a  b\n\nc"),
        ("word", 1, "word"),
    ],
)
def test_the_first_words_stay(caption: str, words: int, expected: str) -> None:
    assert clean(caption, max_words=words) == expected


@pytest.mark.parametrize(
    ("prefix", "suffix", "expected"),
    [
        ("a picture of", "", "a picture of dogs"),
        ("a picture of ", "", "a picture of dogs"),
        ("ohwx,", "", "ohwx, dogs"),
        ("", "outdoors", "dogs outdoors"),
        ("", " outdoors", "dogs outdoors"),
        ("", ", best quality", "dogs, best quality"),
        ("", ".", "dogs."),
        ("A", "Z.", "A dogs Z."),
    ],
)
def test_prefix_and_suffix_once(prefix: str, suffix: str, expected: str) -> None:
    assert clean("dogs", prefix=prefix, suffix=suffix) == expected
    assert clean(expected, prefix=prefix, suffix=suffix) == expected


def test_prefix_and_suffix_stay_as_written_and_are_not_counted() -> None:
    options: dict[str, Any] = {"lower_case": True, "strip_punctuation": True, "max_words": 2}
    assert clean("Two dogs run.", prefix="A photo (TOK):", suffix="!", **options) == "A photo (TOK): two dogs!"
    assert clean("A photo (TOK): two dogs!", prefix="A photo (TOK):", suffix="!", **options) == (
        "A photo (TOK): two dogs!"
    )
    assert clean("A Photo Of Dogs", prefix="a photo of", lower_case=True) == "a photo of dogs"


def test_a_caption_with_nothing_left_stays_empty() -> None:
    text = CaptionText(strip_punctuation=True, remove_words=("photo",), prefix="a", suffix="!")
    assert text.clean(["", " ", "(...)", "Photo", "dog"]) == ["", "", "", "", "a dog!"]


def test_replacements_are_plain_text_and_come_in_turn_before_all_else() -> None:
    assert clean("a (.*) b", replace=(("(.*)", "\\1"),)) == "a \\1 b"
    assert clean("ab", replace=(("a", "b"), ("b", "c"))) == "cc"
    assert clean("Mr. X", replace=(("Mr.", "Mister"),), strip_punctuation=True, lower_case=True) == "mister x"
    assert clean("mr. x", replace=(("Mr.", "Mister"),)) == "mr. x"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A photo of a dog", "a dog"),
        ("photograph, photo, dog", "photograph, dog"),
        ("dog, photo", "dog"),
        ("photo, dog", "dog"),
        ("1girl, photo, solo, dog", "1girl, dog"),
        ("a SOLO dog", "a dog"),
        ("soloist", "soloist"),
        ("a dog (photo)", "a dog ()"),
        ("a dog ,  here", "a dog ,  here"),
        ("two\nlines photo here", "two\nlines here"),
    ],
)
def test_words_are_removed_whole_with_their_commas(caption: str, expected: str) -> None:
    assert clean(caption, remove_words=("photo", "a photo of", "solo")) == expected


def test_steps_come_in_the_order_told() -> None:
    """Removing before cutting leaves room for the next word; removing after stripping finds what a dot had parted."""
    assert clean("a nice big dog", remove_words=("nice",), max_words=3) == "a big dog"
    assert clean("a stock.photo dog", strip_punctuation=True, remove_words=("stock photo",)) == "a dog"
    assert clean("NO DOG", replace=(("NO", "Some"),), lower_case=True) == "some dog"


@given(ANY_TEXT)
def test_cleaning_twice_is_cleaning_once(caption: str) -> None:
    text = CaptionText(
        lower_case=True, strip_punctuation=True, max_words=5, remove_words=("a", "dog"), prefix="tok,", suffix=", end"
    )
    once = text.clean([caption])
    assert text.clean(once) == once


# Vary


def test_without_chance_captions_stay() -> None:
    assert CaptionText(keep_tags=2).vary([TAGS, "b ,a"], generator(0, 1, 2)) == [TAGS, "b ,a"]


@given(st.lists(TAG, max_size=8), st.integers(0, 9), st.integers(0, 99))
def test_shuffling_keeps_the_tags_and_the_first_in_place(tags: list[str], keep: int, key: int) -> None:
    text = CaptionText(shuffle_tags=True, keep_tags=keep)
    made = text.vary([", ".join(tags)], generator(0, 1, key))[0]
    parts = made.split(", ") if made else []
    assert Counter(parts) == Counter(tags)
    assert parts[:keep] == tags[:keep]


@given(st.lists(TAG, min_size=1, max_size=8), st.integers(0, 9), st.floats(0, 0.99), st.integers(0, 99))
def test_dropping_keeps_the_order_the_first_and_at_least_one(
    tags: list[str], keep: int, share: float, key: int
) -> None:
    made = CaptionText(drop_tags=share, keep_tags=keep).vary([", ".join(tags)], generator(0, 1, key))[0].split(", ")
    rest = iter(tags[keep:])
    assert made[:keep] == tags[:keep]
    assert all(tag in rest for tag in made[keep:])  # in order: `in` moves the iterator on
    assert made != [""]


def test_tags_are_dropped_as_often_as_told() -> None:
    text = CaptionText(drop_tags=0.3, keep_tags=1, shuffle_tags=True)
    counts: Counter[str] = Counter()
    for key in range(2000):
        counts.update(text.vary([TAGS], generator(0, 1, key))[0].split(", "))
    assert counts["1girl"] == 2000
    assert all(abs(counts[tag] - 1400) < 4 * np.sqrt(420) for tag in TAGS.split(", ")[1:])


def test_every_order_comes_as_often() -> None:
    text = CaptionText(shuffle_tags=True)
    orders = Counter(text.vary(["a, b, c"], generator(0, epoch, 5))[0] for epoch in range(3000))
    assert len(orders) == 6
    assert all(abs(count - 500) < 4 * np.sqrt(417) for count in orders.values())


def test_whole_captions_are_dropped_as_often_as_told() -> None:
    text = CaptionText(drop_captions=0.2, prefix="tok,")
    made = text.vary(["tok, a dog"] * 3000, generator(0, 1, 2))
    assert set(made) == {"", "tok, a dog"}
    assert abs(made.count("") - 600) < 4 * np.sqrt(480)


def test_prefix_and_suffix_are_no_tags() -> None:
    text = CaptionText(shuffle_tags=True, drop_tags=0.5, prefix="ohwx style", suffix=", best quality")
    cleaned = text.clean([TAGS])
    for key in range(50):
        made = text.vary(cleaned, generator(0, 1, key))[0]
        assert made.startswith("ohwx style ")
        assert made.endswith(", best quality")
        middle = made.removeprefix("ohwx style ").removesuffix(", best quality").split(", ")
        assert middle
        assert set(middle) <= set(TAGS.split(", "))


@pytest.mark.parametrize("caption", ["", ",", " , ,", "one tag", "a,b,,c , d"])
def test_odd_captions(caption: str) -> None:
    made = CaptionText(shuffle_tags=True).vary([caption], generator(0, 1, 0))[0]
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    assert made == caption if not tags else sorted(made.split(", ")) == sorted(tags)


@given(st.lists(ANY_TEXT, max_size=4), st.integers(0, 5))
def test_any_text_goes_through(captions: list[str], key: int) -> None:
    text = CaptionText(
        True, True, 7, "tok,", ", end", (("a", ","), ("é", "")), ("b", "c d"), True, 1, drop_tags=0.4, drop_captions=0.1
    )
    cleaned = text.clean(captions)
    varied = text.vary(cleaned, generator(0, 1, key))
    assert len(cleaned) == len(varied) == len(captions)
    assert varied == text.vary(cleaned, generator(0, 1, key))


def test_each_epoch_and_sample_varies_in_its_own_way() -> None:
    text = CaptionText(shuffle_tags=True, drop_tags=0.2)
    made = {text.vary([TAGS], generator(0, epoch, key, "caption"))[0] for epoch in range(5) for key in range(5)}
    assert len(made) > 20


@pytest.mark.parametrize("on", [{"shuffle_tags": True}, {"drop_tags": 0.1}, {"drop_captions": 0.1}])
def test_what_is_random(on: dict[str, Any]) -> None:
    assert CaptionText(**on).is_random


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_words": 0},
        {"keep_tags": -1},
        {"drop_tags": 1.0},
        {"drop_captions": -0.1},
        {"replace": (("", "x"),)},
        {"remove_words": (" ",)},
    ],
)
def test_wrong_options_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"{next(iter(wrong))}.*expected"):
        CaptionText(**wrong)


def test_long_captions_take_no_time() -> None:
    """Patterns that go back and forth over white space would take minutes here."""
    text = CaptionText(True, True, 10**6, remove_words=("dog",), shuffle_tags=True, drop_tags=0.1)
    for caption in ("dog" + " " * 100_000 + "x", "dog" + "\n" * 100_000 + "x", "dog," * 50_000, "dog " * 50_000 + ","):
        assert text.vary(text.clean([caption]), generator(0, 1, 0))
        assert CaptionText(remove_words=("dog",)).clean([caption])
