"""Tokenizers for any language: word boundaries, single characters, tokens made elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain import metrics
from captrain.metrics import score_captions


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A dog, a cat.", ["a", "dog", "a", "cat"]),
        ("He doesn't run; it's 3.5 km!", ["he", "doesn't", "run", "it's", "3.5", "km"]),
        ("«Пёс» бежит…", ["пёс", "бежит"]),
        ("Zwei HÜHNER über Straßen", ["zwei", "hühner", "über", "straßen"]),
        ("cafe\u0301 cre\u0300me", ["cafe\u0301", "cre\u0300me"]),
        ("कुत्ता दौड़ रहा है।", ["कुत्ता", "दौड़", "रहा", "है"]),
        ("الكلب يجري، سريعا", ["الكلب", "يجري", "سريعا"]),
        ("개가 뛴다.", ["개가", "뛴다"]),
        ("犬が走る", ["犬", "が", "走", "る"]),
        ("カタカナ", ["カタカナ"]),
        ("I ❤️ 👨‍👩‍👧!", ["i", "❤️", "👨‍👩‍👧"]),
        ("$5 + 3", ["$", "5", "+", "3"]),
        ("... !? —", []),
        ("", []),
    ],
)
def test_words(caption: str, tokens: list[str]) -> None:
    assert metrics.tokenize(caption, "unicode") == tokens


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("一只狗在跑。", ["一", "只", "狗", "在", "跑"]),
        ("สุนัขวิ่ง", ["สุ", "นั", "ข", "วิ่", "ง"]),
        ("OK, 犬", ["o", "k", "犬"]),
        ("👨‍👩‍👧e\u0301", ["👨‍👩‍👧", "e\u0301"]),
        ("、。！", []),
    ],
)
def test_characters(caption: str, tokens: list[str]) -> None:
    assert metrics.tokenize(caption, "characters") == tokens


def test_tokens_made_elsewhere_stay_as_they_are() -> None:
    assert metrics.tokenize("A  dog 's ball .", "spaces") == ["A", "dog", "'s", "ball", "."]


@pytest.mark.parametrize("tokenizer", ["unicode", "characters", "spaces"])
@settings(deadline=None, max_examples=50)
@given(text=st.text())
def test_any_text_gives_clean_tokens(tokenizer: str, text: str) -> None:
    for token in metrics.tokenize(text, tokenizer):
        assert token.split() == [token]


def test_captions_without_spaces_score_by_character() -> None:
    captions = {"1": "一只狗在草地上跑", "2": "两只猫睡觉了吗"}
    references = {"1": ["一只狗在草地上跑。"], "2": ["桌子上有一杯水。"]}
    scores = score_captions(captions, references, tokenizer="characters")
    assert scores.per_image["1"]["bleu_4"] == pytest.approx(1)
    assert scores.per_image["1"]["cider"] == pytest.approx(10)
    assert scores.per_image["2"]["rouge_l"] < 0.2
    assert score_captions(captions, references).per_image["1"]["bleu_4"] < 0.01  # one long word to the treebank
