"""Cells and columns of captions: what is one, what is several, what is none, and which columns hold them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.readers.columns import Columns
from captrain.limits import MOST_CAPTIONS, TOO_LONG, TOO_MANY
from captrain.tabular.cells import CAPTION_COLUMNS, LONGEST_LIST, caption_columns, listed_in, says_nothing, sifted


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=4), st.booleans())
def test_a_list_that_python_prints_comes_back(texts: list[str], tuple_: bool) -> None:
    if not tuple_:
        assert listed_in(str(texts)) == texts
    elif texts:
        assert listed_in(str(tuple(texts))) == texts


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("""["it's", 'b']""", ["it's", "b"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),  # numpy
        ("[np.str_('a'), np.str_('b')]", ["a", "b"]),
        ("['a', None, nan]", ["a", "None", "nan"]),
        ("[]", []),
        ("[sic] a dog", None),
        ("[music]", None),
        ("(a dog)", None),
        ("('a dog')", None),
        ("['a'] + ['b']", None),
        ("[__import__('os').getcwd()]", None),
        ("['" + "x" * LONGEST_LIST + "']", None),
    ],
)
def test_what_is_a_list(text: str, texts: list[str] | None) -> None:
    assert listed_in(text) == texts


@pytest.mark.parametrize(
    ("values", "captions", "odd"),
    [
        (["nan", "NaN", "None", "null", "N/A", "<NA>", "#N/A"], 0, 7),
        (["7", "-1.5", "1e9", "1,234", "inf", 7, 1.5, float("nan"), True], 0, 9),
        (["", "  ", None, "[]"], 0, 0),
        (["7 dogs", "nan bread", "none of them", "a null", "route 66", "[sic]"], 6, 0),
        (['["a" or "b"]', "['" + "x" * LONGEST_LIST + "']"], 0, 2),  # lists that can't be read
    ],
)
def test_what_is_no_caption(values: list[Any], captions: int, odd: int) -> None:
    found = sifted(values)
    assert (len(found[0]), len(found[1])) == (captions, odd)
    assert all(len(text) <= 40 or text == TOO_LONG for text in found[1])


def test_spaces_say_nothing() -> None:
    assert says_nothing(" " * 100)
    assert sifted(["nan" + " " * 100]) == ((), ("nan",))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("image", "comment", "caption", "title"), ("caption",)),
        (("caption_1", "caption_0", "caption_10", "caption_2"), ("caption_0", "caption_1", "caption_2", "caption_10")),
        (("raw_1", "raw", "raw_2", "filename"), ("raw", "raw_1", "raw_2")),
        (("Caption 1", "Caption 2"), ("Caption 1", "Caption 2")),
        (("caption", "caption.1"), ("caption", "caption.1")),
        (("text2", "texture"), ("text2",)),
        (("image", "words", "image_1"), ()),
    ],
)
def test_which_columns_hold_captions(names: tuple[str, ...], chosen: tuple[str, ...]) -> None:
    assert caption_columns(CAPTION_COLUMNS, names) == chosen


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(CAPTION_COLUMNS), st.sampled_from(["", "x", None, "nan"]), min_size=1))
def test_a_row_never_takes_a_caption_from_another_column(values: dict[str, str | None]) -> None:
    columns = Columns().of(CAPTION_COLUMNS)
    captions, _ = columns.texts(values, "t:1")
    assert captions == (("x",) if values.get("captions") == "x" else ())


def test_a_given_name_may_be_that_of_numbered_columns() -> None:
    names = ("image", "note_1", "note_2")
    assert Columns(caption="note").captions_in(names) == ("note_1", "note_2")
    Columns(caption="note").check(names, "t:1")
    assert Columns(caption="note_2").captions_in(names) == ("note_2",)


def test_more_captions_than_any_picture_has_are_none() -> None:
    assert len(sifted(["a dog"] * MOST_CAPTIONS)[0]) == MOST_CAPTIONS
    for values in (["a dog"] * (MOST_CAPTIONS + 1), [str(["a"] * (MOST_CAPTIONS + 1))], iter(["1"] * 10**6)):
        assert sifted(values) == ((), (TOO_MANY,))
