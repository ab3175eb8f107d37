"""`auto`: the tokenizer of papers wherever it finds words, another one where it does not, and a word about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import captrain
from captrain.cli import main
from captrain.metrics import score_captions
from captrain.metrics.judging import judge
from captrain.metrics.suited import suited_to
from captrain.records import Caption

SCRIPTS = {
    "A dog doesn't run.": "ptb",
    "Ein Hund läuft über die Straße": "ptb",
    "Пёс бежит по траве": "ptb",
    "ένας σκύλος τρέχει": "ptb",
    "كلب يجري على العشب": "ptb",
    "כלב רץ על הדשא": "ptb",
    "एक कुत्ता घास पर दौड़ता है": "ptb",
    "개가 잔디 위를 달린다": "ptb",
    "12 + 3 = 15 !!": "ptb",
    "": "ptb",
    "一只狗在草地上奔跑": "characters",
    "犬が芝生の上を走っている": "characters",
    "スケートボードをする男": "characters",
    "หมาวิ่งบนหญ้า": "characters",
    "ໝາແລ່ນ": "characters",
    "ឆ្កែរត់លើស្មៅ": "characters",
    "ခွေးတစ်ကောင်": "characters",
    "Nike 运动鞋 红色 shoe": "unicode",
    "𞤂𞤭𞤲𞤺𞤵 𞤮𞤲": "unicode",
}
CHINESE = {"1": ["一只狗在草地上奔跑", "狗在草地上"], "2": ["两只猫睡在沙发上"], "3": ["红色的公共汽车停在车站"]}
WRITTEN = {"1": "一只狗在草地上", "2": "两只猫在沙发上", "3": "公共汽车停在车站"}


@pytest.mark.parametrize(("text", "tokenizer"), SCRIPTS.items())
def test_by_script(text: str, tokenizer: str) -> None:
    assert suited_to([text])[0] == tokenizer


@given(st.lists(st.text(st.characters(max_codepoint=0x24F)), max_size=5))
def test_latin_is_always_the_tokenizer_of_papers(texts: list[str]) -> None:
    assert suited_to(texts)[0] == "ptb"


def test_english_with_a_foreign_word_stays_as_papers_have_it() -> None:
    references = {"1": ["a sign that says 狗 in a street of a large city"], "2": ["two cats sleep on a sofa"]}
    captions = {"1": "a sign in a street", "2": "two cats"}
    chosen, papers = (score_captions(captions, references, tokenizer=name) for name in ("auto", "ptb"))
    assert (chosen.scores, chosen.signature, chosen.notes) == (papers.scores, papers.signature, papers.notes)


@pytest.mark.parametrize("asked", ["auto", "ptb", "characters"])
def test_chinese_is_scored_or_said_to_be_lost(asked: str) -> None:
    found = captrain.score(WRITTEN, CHINESE, tokenizer=asked)
    notes = " ".join(found.notes)
    if asked == "ptb":
        assert found.scores["bleu_4"] < 1e-3
        assert "tokenizer ptb can't find the words of these references" in notes
        assert "use --tokenize characters, or auto" in notes
    else:
        assert found.scores["bleu_4"] > 0.3
        assert found.scores["cider"] > 1
        assert "tokenizer:characters" in found.signature
        assert ("tokenizer characters, chosen as 100 % of their letters" in notes) == (asked == "auto")


def test_what_is_judged_says_it_too() -> None:
    captions = [Caption(id, WRITTEN[id], references=tuple(CHINESE[id])) for id in CHINESE]
    judged = judge(captions)
    assert judged.scores == captrain.score(WRITTEN, CHINESE, tokenizer="characters").scores
    assert judged.to_dict()["signature"].split("|")[1] == "tokenizer:characters"
    assert any("chosen as" in note for note in judged.to_dict()["notes"])
    assert "tokenizer:ptb" in judge(captions, tokenizer="ptb").system.signature


def test_document_frequencies_bring_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"1": "a dog runs", "2": "a cat"}))
    (tmp_path / "r.json").write_text(json.dumps({"1": ["a dog runs fast"], "2": ["a cat sits"]}))
    files = [str(tmp_path / "p.json"), str(tmp_path / "r.json")]
    counts = str(tmp_path / "counts.gz")
    assert main(["score", *files, "--tokenize", "unicode", "--save-document-frequencies", counts]) == 0
    capsys.readouterr()
    assert main(["score", *files, "--document-frequencies", counts, "--json"]) == 0
    assert "tokenizer:unicode" in json.loads(capsys.readouterr().out)["signature"]
    assert main(["score", *files, "--document-frequencies", counts, "--tokenize", "ptb"]) == 2
