"""Files of captions: every form gives the same captions, ids match by one rule, and bad files give one clear line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captrain.errors import DataError
from captrain.metrics.inputs import MAX_CHARACTERS, read_predictions, read_references
from captrain.metrics.matching import match_ids, path_parts

CAPTIONS = {"1": "a dog, running", "2": 'two "cats"'}
REFERENCES = {"1": ["A dog runs.", "One dog"], "2": ["Cats"]}


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


PREDICTION_FILES = {
    "coco.json": json.dumps([{"image_id": int(id), "caption": text} for id, text in CAPTIONS.items()]),
    "candidates.json": json.dumps([{"image_id": int(id), "candidate": text} for id, text in CAPTIONS.items()]),
    "object.json": json.dumps(CAPTIONS),
    "lists.json": json.dumps({id: [text] for id, text in CAPTIONS.items()}),
    "ours.jsonl": lines(*({"id": id, "text": text, "references": ["x"]} for id, text in CAPTIONS.items())),
    "names.jsonl": lines(*({"file_name": id, "caption": text} for id, text in CAPTIONS.items())) + "\n",
    "table.csv": '\ufeffcaption,id\r\n"a dog, running",1\r\n"two ""cats""",2\r\n',
    "table.tsv": 'id\tcaption\n1\ta dog, running\n2\t"two ""cats"""\n',
}

REFERENCE_FILES = {
    "coco.json": json.dumps(
        {
            "images": [{"id": 1}, {"id": 2}],
            "annotations": [
                {"id": 9, "image_id": 1, "caption": "One dog"},
                {"id": 8, "image_id": 2, "caption": "Cats"},
                {"id": 7, "image_id": 1, "caption": "A dog runs."},
            ],
        }
    ),
    "object.json": json.dumps(REFERENCES),
    "ours.jsonl": lines(*({"id": id, "text": "x", "references": texts} for id, texts in REFERENCES.items())),
    "captions.jsonl": lines(*({"file_name": id, "captions": texts} for id, texts in REFERENCES.items())),
    "flat.jsonl": lines(*({"id": id, "text": text} for id, texts in REFERENCES.items() for text in texts)),
    "table.csv": "id,caption\n1,A dog runs.\n2,Cats\n1,One dog\n",
}


@pytest.mark.parametrize("name", PREDICTION_FILES)
def test_every_form_of_predictions(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(PREDICTION_FILES[name], encoding="utf-8")
    assert read_predictions(tmp_path / name) == CAPTIONS


@pytest.mark.parametrize("name", REFERENCE_FILES)
def test_every_form_of_references(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(REFERENCE_FILES[name], encoding="utf-8")
    assert read_references(tmp_path / name) == REFERENCES


def test_quotation_marks_mean_what_they_mean_in_data(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('id\tcaption\n1\t"no entry" sign\n2\t"half\n3\ta dog\n')
    assert read_predictions(tmp_path / "t.tsv") == {"1": '"no entry" sign', "2": '"half', "3": "a dog"}
    (tmp_path / "t.csv").write_text('id;caption\n1;"a; b"\n2;"open\n')
    assert read_predictions(tmp_path / "t.csv") == {"1": "a; b", "2": '"open'}


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ("image_name| comment_number| comment\n1.jpg| 0| a dog\n1.jpg| 1   broken\n", ["a dog"]),
        ("id,caption_0,caption_1,caption_2\n1.jpg,a,b,\n", ["a", "b"]),
        ("filename,raw\n1.jpg,\"['a', 'it\"\"s']\"\n", ["a", 'it"s']),
        ("image,caption,title\n1.jpg,a,x\n1.jpg,nan,y\n1.jpg,3.5,z\n", ["a"]),
        ("File_Name,Text\n1.jpg,a\n", ["a"]),
    ],
)
def test_tables_of_references_are_read_as_data_is(tmp_path: Path, text: str, captions: list[str]) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert [caption.strip() for caption in read_references(tmp_path / "t.csv")["1.jpg"]] == captions


def test_marked_references_are_left_out(tmp_path: Path, captrain_log: pytest.LogCaptureFixture) -> None:
    marked = [
        {"image_id": 1, "caption": "a can", "is_rejected": False},
        {"image_id": 1, "caption": "x", "is_rejected": True},
    ]
    (tmp_path / "refs.json").write_text(json.dumps({"annotations": marked}))
    assert read_references(tmp_path / "refs.json") == {"1": ["a can"]}
    assert "left out 1 captions marked is_rejected or is_precanned" in captrain_log.text


@pytest.fixture
def captrain_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("captrain"), "propagate", True)
    return caplog


def test_a_folder_of_text_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "dog.v2.txt").write_text("A dog\n\nruns \n", encoding="utf-8")
    (tmp_path / "cat.txt").write_text("", encoding="utf-8")
    (tmp_path / "cat.jpg").write_text("")
    (tmp_path / ".hidden.txt").write_text("x")
    assert read_predictions(tmp_path) == {"cat": "", "a/dog.v2": "A dog runs"}
    (tmp_path / "cat.txt").write_text("Cats")
    assert read_references(tmp_path) == {"cat": ["Cats"], "a/dog.v2": ["A dog", "runs"]}


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "captions"
    folder.mkdir()
    (folder / "dog.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DataError, match="leaves the folder"):
        read_predictions(folder)


DEEP = "[" * 100_000
BAD_PREDICTIONS = {
    "empty.json": ("", "is empty"),
    "blank.jsonl": (" \n\n", "is empty"),
    "nothing.json": ("[]", "holds no captions"),
    "number.json": ("5", "found a JSON int"),
    "cut.json": ('{"1": "a"', "not valid JSON"),
    "deep.json": (DEEP, "nested too deep"),
    "deep.jsonl": (DEEP, "deep.jsonl:1: not valid JSON"),
    "digits.json": ('{"1": ' + "9" * 5000 + "}", "not valid JSON"),
    "really_lines.json": ('{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}', "call it .jsonl"),
    "nan.json": ('{"1": NaN}', "'1' is nan, expected text"),
    "null.jsonl": ('{"id": 1, "text": null}', "null.jsonl:1.*'1' is nothing, expected text"),
    "value.json": ('[{"image_id": 1, "caption": 3}]', "entry 1.*'1' is 3"),
    "object.json": ('{"1": {"caption": "a"}}', "'1' is an object"),
    "two.json": ('{"1": ["a", "b"]}', "found 2 captions for '1', expected one"),
    "twice.jsonl": (
        '{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}',
        "twice.jsonl:2: a second caption for '1' .*jsonl:1",
    ),
    "no_id.jsonl": ('{"text": "a"}', "found no id .*keys: 'text'"),
    "no_text.jsonl": ('{"id": 1, "captoin": "a"}', "found no caption.*Did you mean 'caption'"),
    "lacks.jsonl": ('{"id": 1, "text": "a"}\n{"id": 2}', "lacks.jsonl:2: has no 'text'"),
    "mixed.json": ('[{"id": 1, "text": "a"}, 5]', "entry 2: found int"),
    "bad_id.json": ('[{"id": true, "text": "a"}]', "id True, expected a name or a number"),
    "blank_id.jsonl": ('{"id": " ", "text": "a"}', "expected a name or a number"),
    "cells.csv": ("id,caption\n1,a dog, running\n", "cells.csv:2: has more cells"),
    "short.csv": ("id,caption\n1,a\n2\n", "short.csv:3: has no 'caption'"),
    "words.docx": ("x", "unknown kind of file '.docx'"),
    "long.json": (json.dumps({"1": "a" * (MAX_CHARACTERS + 1)}), "100001 characters, over the limit"),
}


@pytest.mark.parametrize("name", BAD_PREDICTIONS)
def test_bad_files_give_one_line_that_names_them(name: str, tmp_path: Path) -> None:
    content, message = BAD_PREDICTIONS[name]
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_or_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "predictions.json").write_text("{}")
    with pytest.raises(DataError, match="not UTF-8"):
        read_predictions(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"not found\. Did you mean 'predictions.json'"):
        read_predictions(tmp_path / "prediction.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.txt files"):
        read_predictions(tmp_path / "empty")
    (tmp_path / "none.json").write_text('{"1": []}')
    with pytest.raises(DataError, match="'1' has no references"):
        read_references(tmp_path / "none.json")


def test_the_limit_on_file_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captrain.metrics.entries.MAX_BYTES", 10)
    (tmp_path / "a.json").write_text('{"1": "a dog"}')
    with pytest.raises(DataError, match="14 bytes, over the limit of 10"):
        read_predictions(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("391895", "000000391895.jpg"),
        ("COCO_val2014_000000391895.jpg", "391895"),
        ("val2017/000000391895.jpg", "391895"),
        ("dog", "dog.JPG"),
        ("dog.png", "dog.jpg"),
        ("photos/a/dog.jpg", "a/dog"),
        ("a\\dog.jpg", "a/dog.jpg"),
        ("dog.v2", "dog.v2.jpg"),
    ],
)
def test_ids_that_are_the_same(prediction: str, reference: str) -> None:
    assert match_ids([prediction], [reference]).pairs == {prediction: reference}
    assert match_ids([reference], [prediction]).pairs == {reference: prediction}


@pytest.mark.parametrize(
    ("prediction", "reference"), [("a/dog", "b/dog"), ("dog", "Dog"), ("dog.v2", "dog"), ("10", "1"), ("a1", "a01")]
)
def test_ids_that_are_not(prediction: str, reference: str) -> None:
    found = match_ids([prediction], [reference])
    assert (found.pairs, found.extra, found.missing) == ({}, [prediction], [reference])


def test_ambiguous_ids_are_never_guessed() -> None:
    with pytest.raises(DataError, match="prediction 'dog' fits 2 references \\('a/dog', 'b/dog'\\)"):
        match_ids(["dog"], ["a/dog", "b/dog"])
    with pytest.raises(DataError, match=r"predictions 'dog.jpg', 'dog.png' both fit the reference 'dog'"):
        match_ids(["dog.jpg", "dog.png"], ["dog"])
    found = match_ids(["dog", "dog.jpg"], ["dog"])
    assert (found.pairs, found.extra) == ({"dog": "dog"}, ["dog.jpg"]), "equal ids come first"
    found = match_ids(["a/dog.jpg", "b/dog.jpg"], ["b/dog", "a/dog"])
    assert found.pairs == {"a/dog.jpg": "a/dog", "b/dog.jpg": "b/dog"}


@given(st.sets(st.text(min_size=1, max_size=6)), st.sets(st.text(min_size=1, max_size=6)))
def test_matching_never_uses_an_id_twice_or_loses_one(predictions: set[str], references: set[str]) -> None:
    try:
        found = match_ids(predictions, references)
    except DataError:
        return
    assert len(set(found.pairs.values())) == len(found.pairs)
    assert {*found.pairs, *found.extra} == predictions
    assert {*found.pairs.values(), *found.missing} == references
    assert all(path_parts(id)[-1] == path_parts(other)[-1] for id, other in found.pairs.items())


def test_a_byte_order_mark_says_the_encoding(tmp_path: Path) -> None:
    for name, text in {"t.csv": "id,caption\n1,ein Hund läuft\n", "t.json": '{"1": "ein Hund läuft"}'}.items():
        for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
            (tmp_path / name).write_bytes(f"\ufeff{text}".encode(encoding))
            assert read_predictions(tmp_path / name) == {"1": "ein Hund läuft"}
    (tmp_path / "t.csv").write_bytes(b"\xff\xfei\x00d")
    with pytest.raises(DataError, match=r"t\.csv: not UTF-8, nor UTF-16-LE as its mark says"):
        read_predictions(tmp_path / "t.csv")


def test_letters_that_unicode_spells_in_two_ways_match() -> None:
    composed, decomposed = "caf\u00e9.jpg", "photos/cafe\u0301.JPG"
    assert match_ids([composed], [decomposed]).pairs == {composed: decomposed}
