"""Words there and back through a tokenizer: what is lost is counted, what is only spelt otherwise is not."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from captrain.models.vocabulary import MOST_LOST, RoundTrip, make_tokenizer, round_trip, spread_captions, words_of
from captrain.records import Sample

#                                                             words, unknown, without accents, in another case
REAL = {
    ("bert-base-uncased", "A dog doesn't run 3.5 km; it's 10% off!"): (12, 0, 0, 1),
    ("bert-base-uncased", "Un élève regarde la télé près de la fenêtre"): (9, 0, 4, 1),
    ("bert-base-uncased", "一只狗在草地上奔跑"): (9, 6, 0, 0),
    ("bert-base-uncased", "a dog 🐶 runs"): (4, 1, 0, 0),
    ("bert-base-uncased", "Ein großer Hund läuft"): (4, 0, 1, 2),
    ("clip-vit-base-patch32", "Two CATS, 10 dogs in 2024"): (6, 0, 0, 2),
    ("clip-vit-base-patch32", "หมาวิ่งบนหญ้า"): (10, 0, 0, 0),
    ("gpt2", "Un élève regarde 狗 🐶 Пёс"): (6, 0, 0, 0),
    ("t5", "Ein großer Hund läuft über die Straße"): (7, 0, 0, 0),
    ("t5", "一只狗在草地上奔跑"): (9, 9, 0, 0),
    ("t5", "a dog runs"): (3, 0, 0, 0),
}


@pytest.mark.parametrize(("name", "text"), REAL, ids=[" ".join(key)[:40] for key in REAL])
def test_real_vocabularies(name: str, text: str, shared_data: Path) -> None:
    found = round_trip(AutoTokenizer.from_pretrained(shared_data / "models" / "tokenizers" / name), [text])
    assert (found.words, found.unknown, found.accents, found.case) == REAL[name, text]


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerBase:
    """Ten words, in lower case."""
    return make_tokenizer("words", ["one two three four five six seven eight nine ten été"] * 2, size=100)


KNOWN = ["one", "two", "three", "Four", "FIVE", "été"]
UNKNOWN = ["eleven", "garçon", "狗"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(KNOWN + UNKNOWN), min_size=1, max_size=12), min_size=1, max_size=5))
def test_every_word_is_counted_once(words: PreTrainedTokenizerBase, captions: list[list[str]]) -> None:
    found = round_trip(words, [" ".join(caption) for caption in captions])
    every = [word for caption in captions for word in caption]
    assert (found.captions, found.words) == (len(captions), len(every))
    assert found.unknown == sum(word in UNKNOWN for word in every)
    assert found.case == sum(word in ("Four", "FIVE") for word in every)
    assert found.accents == 0
    assert dict(found.worst) == {word: every.count(word) for word in UNKNOWN if word in every}


@given(st.text(string.ascii_letters + string.digits + " éüñ狗猫,.!'-", max_size=60))
def test_words_do_not_hang_on_spaces_and_signs_around_them(text: str) -> None:
    assert words_of(text) == words_of(f"  {text} .. ") == words_of(text.replace("狗", " 狗 "))
    assert "".join(words_of(text)) == "".join(letter for letter in text if letter.isalnum())


def test_what_is_told() -> None:
    found = RoundTrip(2, 40, 3, 2, 0, (("chat", 3), ("été", 2)), vocabulary=30_522)
    assert found.told == (
        '5 of 40 words (12 %) in 2 captions: 3 are unknown to it, 2 lose accents; most often: "chat" 3, "été" 2'
    )
    assert found.is_refused
    assert not RoundTrip(2, 40, 4, 0, 40, (), 30_522).is_refused, f"not more than {MOST_LOST}"
    assert not RoundTrip(0, 0, 0, 0, 0, (), 30_522).is_refused
    assert not RoundTrip(2, 40, 36, 0, 0, (), vocabulary=8_000).is_refused, "made for certain captions"
    assert RoundTrip(2, 40, 37, 0, 0, (), vocabulary=8_000).is_refused


def test_large_data_is_looked_at_evenly() -> None:
    samples = [Sample(str(number), Path("x"), (str(number),), "") for number in range(2500)]
    found = list(spread_captions(samples))
    assert len(found) == 834
    assert found[:2] == ["0", "3"]
    assert found[-1] == "2499"
    assert list(spread_captions(samples[:10])) == [str(number) for number in range(10)]
