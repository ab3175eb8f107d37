"""Folders with several tables: every split that a name says is read, nothing is left out silently, flags find tables."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captrain.data import readers
from captrain.data.check.check import check_data
from captrain.data.dataset import read_splits
from captrain.data.options import BY_LOOKING, ReadOptions
from captrain.data.readers import READERS, SPLIT_NAMES, detect, jsonl
from captrain.errors import DataError
from captrain.records import Rejects, Sample

Found = dict[str, dict[str, tuple[str, ...]]]


def put(folder: Path, name: str, image: str, text: str, **columns: str) -> None:
    """A table of one picture, in the form that its name says, and the picture."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    ((folder / name).parent / image).write_bytes(b"jpeg")
    row = {"file_name": image, "text": text, **columns}
    kind = name.rpartition(".")[2]
    content = json.dumps([row] if kind == "json" else row)
    if kind in ("csv", "tsv"):
        between = "," if kind == "csv" else "\t"
        content = "\n".join(between.join(cells) for cells in (row.keys(), row.values()))
    (folder / name).write_text(content)


def coco(path: Path, image: str, text: str, **mark: bool) -> None:
    path.parent.mkdir(exist_ok=True)
    annotations = [{"image_id": 1, "caption": text}, {"image_id": 1, "caption": "marked", **mark}]
    path.write_text(
        json.dumps({"images": [{"id": 1, "file_name": image}], "annotations": annotations[: 1 + bool(mark)]})
    )


def read(folder: Path, options: ReadOptions = BY_LOOKING, format: str | None = None) -> tuple[Found, list[str]]:
    rejects = Rejects()
    splits = read_splits(str(folder), rejects, format, options)
    found = {name: {sample.id: sample.captions for sample in samples} for name, samples in splits.items()}
    assert not rejects.lines
    return found, [f"{line['id']} {line['reason']}" for line in rejects.remarks]


NAMES = st.sampled_from(["{}", "metadata_{}", "coco_karpathy_{}", "{}_captions", "iconclass{}", "captions-{}2017"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    tables=st.lists(
        st.tuples(st.sampled_from(["train", "val", "test"]), NAMES, st.sampled_from(["jsonl", "json", "csv", "tsv"])),
        min_size=1,
        max_size=3,
        unique_by=lambda table: table[0],
    )
)
def test_every_split_that_a_name_says_is_read(
    tmp_path_factory: pytest.TempPathFactory, tables: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("set")
    for split, name, suffix in tables:
        word = split.title() if name == "iconclass{}" else split
        put(folder, f"{name.format(word)}.{suffix}", f"{split}.png", f"{split} text")
    expected = {SPLIT_NAMES[split]: {f"{split}.png": (f"{split} text",)} for split, _, _ in tables}
    assert read(folder) == (expected, [])


def test_a_list_beside_lavis_files_of_ids(tmp_path: Path) -> None:
    put(tmp_path, "coco_karpathy_train.json", "a.png", "a")
    put(tmp_path, "val.jsonl", "b.png", "b")
    gt = {"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "b", "id": 1}]}
    (tmp_path / "coco_karpathy_val_gt.json").write_text(json.dumps(gt))
    assert read(tmp_path) == ({"train": {"a.png": ("a",)}, "validation": {"b.png": ("b",)}}, [])


def parquet(path: Path, image: str, text: str) -> None:
    (path.parent / image).write_bytes(b"jpeg")
    pq.write_table(pa.table({"file_name": [image], "text": [text]}), path)


def test_parquet_beside_other_tables(tmp_path: Path) -> None:
    put(tmp_path, "train.jsonl", "a.png", "a")
    for number, image in enumerate(("b.png", "c.png")):
        parquet(tmp_path / f"test-{number:05d}-of-00002.parquet", image, image)
    expected = {"train": {"a.png": ("a",)}, "test": {"b.png": ("b.png",), "c.png": ("c.png",)}}
    assert read(tmp_path) == (expected, [])
    parquet(tmp_path / "train.parquet", "a.png", "x")
    with pytest.raises(DataError, match=r"train\.jsonl and train\.parquet are tables of the same images"):
        read(tmp_path)


def test_flickrs_captions_beside_a_table(tmp_path: Path) -> None:
    put(tmp_path, "metadata.jsonl", "a.png", "a")
    (tmp_path / "captions.txt").write_text("image,caption\na.png,x\n")
    found, notes = read(tmp_path)
    assert found == {"all": {"a.png": ("a",)}}
    assert notes == ["captions.txt lists pictures and is not read beside metadata.jsonl; give its path to read it"]
    (tmp_path / "metadata.jsonl").unlink()
    assert read(tmp_path) == ({"all": {"a.png": ("x",)}}, [])


def test_a_coco_file_beside_a_table(tmp_path: Path) -> None:
    put(tmp_path, "train.jsonl", "a.png", "a")
    (tmp_path / "b.png").write_bytes(b"jpeg")
    coco(tmp_path / "annotations/captions_val2014.json", "b.png", "b")
    assert read(tmp_path) == ({"train": {"a.png": ("a",)}, "validation": {"b.png": ("b",)}}, [])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("train.jsonl", "train.csv"),
        ("train.json", "train_old.json"),
        ("metadata.jsonl", "metadata.csv"),
        ("metadata.csv", "my_test.json"),
        ("metadata.jsonl", "train/metadata.csv"),
        ("coco_karpathy_train.json", "annotations/captions_train2014.json"),
    ],
)
def test_two_tables_of_one_split_are_named(tmp_path: Path, first: str, second: str) -> None:
    put(tmp_path, first, "a.png", "a")
    if second.startswith("annotations"):
        coco(tmp_path / second, "a.png", "b")
    else:
        put(tmp_path, second, "b.png", "b")
    with pytest.raises(DataError, match="are tables of the same images; give the path of the one to use") as raised:
        read(tmp_path)
    assert first in str(raised.value) and second in str(raised.value)


def test_the_form_says_which_of_two_tables(tmp_path: Path) -> None:
    put(tmp_path, "train.jsonl", "a.png", "a")
    put(tmp_path, "train.csv", "a.png", "b")
    assert read(tmp_path, format="csv")[0] == {"train": {"a.png": ("b",)}}


def test_a_table_whose_name_says_nothing_is_told(tmp_path: Path) -> None:
    put(tmp_path, "train.jsonl", "a.png", "a")
    put(tmp_path, "extra.csv", "a.png", "b")
    expected = "extra.csv lists pictures and is not read beside train.jsonl; give its path to read it"
    assert read(tmp_path) == ({"train": {"a.png": ("a",)}}, [expected])


def test_two_tables_of_no_split_beside_caption_files(tmp_path: Path) -> None:
    for name in ("one.csv", "two.csv"):
        put(tmp_path, name, "a.png", "a")
    (tmp_path / "a.txt").write_text("beside")
    found, notes = read(tmp_path)
    assert found == {"all": {"a.png": ("beside",)}}
    assert [note.split()[0] for note in notes] == ["one.csv", "two.csv"]


def test_a_table_without_captions_is_no_data_set_beside_one_with(tmp_path: Path) -> None:
    put(tmp_path, "train.jsonl", "a.png", "a")
    (tmp_path / "val_scores.csv").write_text("image,score\na.png,1\n")
    written = {"id": "a.png", "text": "a dog", "score": -0.5, "image": "a.png"}
    (tmp_path / "predictions_test.jsonl").write_text(json.dumps(written))
    assert read(tmp_path) == ({"train": {"a.png": ("a",)}}, [])


def test_rows_and_names_that_say_the_same_split_are_joined(tmp_path: Path) -> None:
    put(tmp_path, "train.jsonl", "a.png", "a", split="val")
    put(tmp_path, "val.csv", "b.png", "b")
    assert read(tmp_path)[0] == {"validation": {"a.png": ("a",), "b.png": ("b",)}}
    put(tmp_path, "test.jsonl", "c.png", "c", split="val")
    assert list(read(tmp_path)[0]["validation"]) == ["c.png", "a.png", "b.png"]


def test_a_form_that_knows_single_files_alone_joins_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lines(source: str, rejects: Rejects, options: ReadOptions, *, captioned: bool) -> dict[str, list[Sample]]:
        return {"all": [Sample("b.png", Path(source).parent / "b.png", ("b",), "t:1")]}

    module = SimpleNamespace(recognises=lambda source, _: source.endswith("namesVal.json"), read=lines)
    real = readers.reader
    monkeypatch.setitem(READERS, "names", "")
    monkeypatch.setattr("captrain.data.readers.several.reader", lambda name: module if name == "names" else real(name))
    monkeypatch.setattr("captrain.data.readers.reader", lambda name: module if name == "names" else real(name))
    put(tmp_path, "train.jsonl", "a.png", "a")
    (tmp_path / "namesVal.json").write_text('{"b.png": "b"}')
    (tmp_path / "b.png").write_bytes(b"jpeg")
    assert read(tmp_path)[0] == {"train": {"a.png": ("a",)}, "validation": {"b.png": ("b",)}}


def test_column_flags_find_tables_beside_caption_files(tmp_path: Path) -> None:
    for suffix, text in (("csv", "pic,desc\na.png,from the table\n"), ("jsonl", '{"pic": "a.png", "desc": "y"}\n')):
        folder = tmp_path / suffix
        folder.mkdir()
        (folder / f"captions.{suffix}").write_text(text)
        (folder / "a.png").write_bytes(b"jpeg")
        (folder / "a.txt").write_text("beside")
        given = ReadOptions(image_column="pic", caption_column="desc")
        assert list(read(folder, given)[0]["all"]) == ["a.png"]
        assert read(folder, given)[0]["all"]["a.png"] != ("beside",)
        assert read(folder)[0]["all"]["a.png"] == ("beside",)


def test_flags_choose_between_tables(tmp_path: Path) -> None:
    put(tmp_path, "one.csv", "a.png", "a")
    (tmp_path / "two.csv").write_text("pic,desc\na.png,b\n")
    assert read(tmp_path, ReadOptions(image_column="pic", caption_column="desc"))[0] == {"all": {"a.png": ("b",)}}
    assert read(tmp_path)[0] == {"all": {"a.png": ("a",)}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ReadOptions(image_column="pix"),
            "column 'pix', which --image-column names.*captions.csv has pic, desc.*'pic'",
        ),
        (ReadOptions(caption_column="dsc"), "column 'dsc', which --caption-column names.*Did you mean 'desc'"),
    ],
)
def test_a_flag_that_no_table_has_is_an_error(
    tmp_path: Path, options: ReadOptions, message: str, captrain_log: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "captions.csv").write_text("pic,desc\na.png,x\n")
    (tmp_path / "a.png").write_bytes(b"jpeg")
    (tmp_path / "a.txt").write_text("beside")
    with pytest.raises(DataError, match=message):
        detect(str(tmp_path), options)
    (tmp_path / "captions.csv").unlink()
    assert detect(str(tmp_path), options) == "sidecar"
    assert "there is no table with the column" in captrain_log.text


@pytest.fixture
def captrain_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("captrain"), "propagate", True)
    return caplog


def test_pictures_that_no_table_lists_are_told(
    tmp_path: Path, captrain_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "train.jsonl", "a.png", "a")
    put(tmp_path, "val.csv", "b.png", "b")
    for name in ("c.png", "deep/d.png", "e.png", "f.JPG", "g.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"jpeg")
    told = f"{tmp_path} holds 4 pictures that no table lists: c.png, e.png, f.JPG, ..."
    assert read(tmp_path)[1] == [told]
    assert captrain_log.messages == [told]
    monkeypatch.setattr(jsonl, "MOST_CHECKED", 0)
    assert len(read(tmp_path)[1]) == 1


def test_marked_captions_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"jpeg")
    for mark in ("is_rejected", "is_precanned"):
        coco(tmp_path / "captions.json", "a.png", "a can", **{mark: True})
        expected = "captions.json has 1 captions marked is_rejected or is_precanned; they are left out"
        assert read(tmp_path) == ({"all": {"a.png": ("a can",)}}, [expected])
        coco(tmp_path / "captions.json", "a.png", "a can", **{mark: False})
        assert read(tmp_path) == ({"all": {"a.png": ("a can", "marked")}}, [])


def test_a_check_lists_what_is_not_read_as_remarks(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (64, 64), (len(name) * 9, ord(name[0]) * 2 - 100, 7)).save(tmp_path / name)
    (tmp_path / "train.csv").write_text("image,text\na.png,a dog\nb.png,nan\nb.png\n")
    (tmp_path / "extra.csv").write_text("image,text\na.png,x\n")
    found = check_data(str(tmp_path))
    lines = {line["problem"]: (line["grade"], line["where"]) for line in found.lines()}
    assert lines == {
        "broken-row": ("wrong", f"{tmp_path / 'train.csv'}:4"),
        "no-caption": ("wrong", f"{tmp_path / 'train.csv'}:3"),
        "unread": ("remark", str(tmp_path / "extra.csv")),
        "unlisted": ("remark", str(tmp_path)),
    }
    assert found.examples()["unlisted"][0]["reason"] == "holds 1 picture that no table lists: c.png"


def test_a_table_without_captions_is_not_read_in_place_of_one_of_another_form(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"jpeg")
    (tmp_path / "parts.csv").write_text("image,quality\na.jpg,3\n")
    (tmp_path / "captions.json").write_text(json.dumps({"a.jpg": "a dog"}))
    assert read(tmp_path) == ({"all": {"a.jpg": ("a dog",)}}, [])
    (tmp_path / "parts.csv").unlink()
    (tmp_path / "a.txt").write_text("a dog beside")  # captions of the pictures' own go before
    assert read(tmp_path)[0] == {"all": {"a.jpg": ("a dog beside",)}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.json", json.dumps({"a.png": "a", "b.png": ["b", "c"]})),
        ("lists.json", json.dumps({"train": [{"image": "a.png", "caption": "a"}, {"image": "b.png", "caption": "b"}]})),
        ("list.txt", "a.png\ta dog\nb.png\ta cat\n"),
        (
            "talk.json",
            json.dumps(
                [
                    {
                        "image": name,
                        "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A"}],
                    }
                    for name in ("a.png", "b.png")
                ]
            ),
        ),
    ],
)
def test_every_form_of_lists_tells_what_it_does_not_list(tmp_path: Path, name: str, content: str) -> None:
    for picture in ("a.png", "b.png", "c.png"):
        (tmp_path / picture).write_bytes(b"jpeg")
    (tmp_path / name).write_text(content, encoding="utf-8")
    _, told = read(tmp_path)
    assert [line for line in told if "no table lists" in line] == [
        f"{tmp_path} holds 1 picture that no table lists: c.png"
    ]


def test_a_table_by_itself_says_nothing_of_what_tables_beside_it_list(tmp_path: Path) -> None:
    put(tmp_path, "train.jsonl", "a.png", "a")
    put(tmp_path, "test.jsonl", "b.png", "b")
    rejects = Rejects()
    read_splits(str(tmp_path / "test.jsonl"), rejects)
    assert not rejects.remarks
