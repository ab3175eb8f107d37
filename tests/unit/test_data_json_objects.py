"""JSON objects of pictures: lists of rows by split or class, names with captions, and what is left to other readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.dataset import list_images
from captrain.data.options import ReadOptions
from captrain.data.readers import detect, json_list, reader
from captrain.data.readers.json_entries import entries
from captrain.errors import DataError
from captrain.records import Rejects

FORMS = ("grouped", "names")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"jpeg")


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def content(
    source: Path, rejects: Rejects | None = None, form: str | None = None, **options: Any
) -> dict[str, dict[str, tuple[str, ...]]]:
    chosen = reader(form or detect(str(source)))
    splits = chosen.read(str(source), Rejects() if rejects is None else rejects, ReadOptions(**options))
    return {split: {sample.id: sample.captions for sample in samples} for split, samples in splits.items()}


def test_a_report_is_the_caption_of_each_of_its_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "images/CXR1/0.png", "images/CXR1/1.png", "images/CXR2/0.png")
    rows = [
        {"id": "CXR1", "report": "Clear lungs.", "image_path": ["CXR1/0.png", "CXR1/1.png"], "split": "train"},
        {"id": "CXR2", "report": "A nodule.", "image_path": ["CXR2/0.png"], "split": "val"},
    ]
    write(tmp_path / "annotation.json", {"train": rows[:1], "val": rows[1:], "test": []})
    assert detect(str(tmp_path)) == detect(str(tmp_path / "annotation.json")) == "grouped"
    expected = {
        "train": {"images/CXR1/0.png": ("Clear lungs.",), "images/CXR1/1.png": ("Clear lungs.",)},
        "validation": {"images/CXR2/0.png": ("A nodule.",)},
    }
    assert content(tmp_path) == expected
    assert content(tmp_path / "annotation.json") == expected


def test_pictures_elsewhere_are_found_by_image_root(tmp_path: Path) -> None:
    touch(tmp_path / "files", "p10/p1/s1/x.jpg")
    row = {"id": "x", "study_id": 1, "report": "Normal.", "image_path": ["p10/p1/s1/x.jpg"], "split": "train"}
    write(tmp_path / "set/mimic_annotation.json", {"train": [row]})
    assert content(tmp_path / "set", image_root=tmp_path / "files") == {"train": {"p10/p1/s1/x.jpg": ("Normal.",)}}


def textcaps(split: str, name: str, *captions: str) -> dict[str, Any]:
    row = {"image_id": name, "image_path": f"train/{name}.jpg", "image_name": name, "image_width": 1024}
    rows = [
        row | {"caption_id": number, "caption_str": text, "reference_strs": list(captions), "set_name": split}
        for number, text in enumerate(captions)
    ]
    return {"dataset_type": split, "dataset_name": "textcaps", "dataset_version": "0.1", "data": rows}


def test_textcaps_repeats_its_captions_and_they_are_taken_once(tmp_path: Path) -> None:
    touch(tmp_path, "train_images/0a1.jpg", "train_images/0b2.jpg", "test_images/0a1.jpg")
    write(tmp_path / "TextCaps_0.1_train.json", textcaps("train", "0a1", "a yellow bus", "a bus"))
    write(tmp_path / "TextCaps_0.1_val.json", textcaps("val", "0b2", "a sign"))
    assert content(tmp_path) == {
        "train": {"train_images/0a1.jpg": ("a yellow bus", "a bus")},
        "validation": {"train_images/0b2.jpg": ("a sign",)},
    }


def test_classes_are_folders_and_rows_name_their_splits(tmp_path: Path) -> None:
    touch(tmp_path, "NWPU_images/airplane/airplane_001.jpg", "NWPU_images/lake/lake_001.jpg")
    many = {"raw": "A plane.", "raw_1": "A jet.", "raw_2": "A jet.", "raw_3": "", "raw_4": "It flies."}
    rows = {
        "airplane": [{"filename": "airplane_001.jpg", "imgid": 0, "split": "train", **many, "sentids": [0, 1]}],
        "lake": [{"filename": "lake_001.jpg", "imgid": 1, "split": "val", "raw": "A lake."}],
    }
    write(tmp_path / "dataset_nwpu.json", rows)
    assert content(tmp_path) == {
        "train": {"NWPU_images/airplane/airplane_001.jpg": ("A plane.", "A jet.", "It flies.")},
        "validation": {"NWPU_images/lake/lake_001.jpg": ("A lake.",)},
    }


def test_a_picture_that_its_class_lacks_is_never_taken_from_another(tmp_path: Path) -> None:
    touch(tmp_path, "set/airplane/1.jpg", "set/airplane/2.jpg", "set/lake/2.jpg")
    classes = {
        key: [{"filename": "1.jpg", "raw": f"{key} 1"}, {"filename": "2.jpg", "raw": f"{key} 2"}]
        for key in ("airplane", "lake", "bay")
    }
    rejects = Rejects()
    assert content(write(tmp_path / "classes.json", classes), rejects) == {
        "all": {
            "set/airplane/1.jpg": ("airplane 1",),
            "set/airplane/2.jpg": ("airplane 2",),
            "set/lake/2.jpg": ("lake 2",),
        }
    }
    assert [line["id"] for line in rejects.lines] == ["lake/1.jpg", "bay/1.jpg", "bay/2.jpg"]


def test_names_may_lack_their_endings_or_be_of_another_machine(tmp_path: Path) -> None:
    touch(tmp_path, "img/a1.jpg", "img/b2.png")
    names = write(tmp_path / "one.json", {"a1": "a dog", "b2": "a cat"})
    assert (detect(str(names)), detect(str(tmp_path))) == ("names", "names")
    expected = {"img/a1.jpg": ("a dog",), "img/b2.png": ("a cat",)}
    assert content(names) == {"all": expected}
    rows = [{"image_path": "/home/me/set/img/a1.jpg", "report": "a dog"}, {"image_id": "b2", "caption": "a cat"}]
    assert content(write(tmp_path / "two.json", {"train": rows})) == {"train": expected}


def test_a_name_that_lies_in_several_folders_is_rejected_unless_one_is_the_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train_images/1.jpg", "test_images/1.jpg", "more/2.jpg", "others/2.jpg")
    rows = [{"filename": "1.jpg", "caption": "a dog"}, {"filename": "2.jpg", "caption": "which?"}]
    write(tmp_path / "captions.json", {"train": rows, "test": rows[:1]})
    rejects = Rejects()
    assert content(tmp_path, rejects) == {
        "train": {"train_images/1.jpg": ("a dog",)},
        "test": {"test_images/1.jpg": ("a dog",)},
    }
    assert [line["reason"] for line in rejects.lines] == [
        "may be any of 2 images, 'more/2.jpg' or 'others/2.jpg'; expected a name of one"
    ]


def test_what_stands_beside_the_rows_is_no_row(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    value = {"info": {"year": 2014}, "licenses": [{"id": 1}], "data": [{"image": "1.jpg", "caption": "a dog"}]}
    rejects = Rejects()
    assert content(write(tmp_path / "set.json", value), rejects) == {"all": {"1.jpg": ("a dog",)}}
    assert not rejects.lines


def test_captions_by_image_ids_alone_lead_to_pictures_called_so(tmp_path: Path) -> None:
    touch(tmp_path, "image/2.jpg", "image/10.jpg")
    rows = [{"image_id": "2", "caption": "a dog"}, {"image_id": 10, "caption": "a cat"}]
    write(tmp_path / "filter_cap.json", {"annotations": rows})
    assert content(tmp_path) == {"all": {"image/2.jpg": ("a dog",), "image/10.jpg": ("a cat",)}}


def test_odd_rows_are_rejected_by_their_numbers_and_the_others_read(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    rows: list[Any] = [
        {"image": "1.jpg", "caption": "a dog"},
        {"image": "2.jpg", "caption": 7},
        {"image": "3.jpg", "caption": " "},
        {"image": "4.jpg", "caption": "a cat"},
        {"caption": "of what?"},
    ]
    rejects = Rejects()
    assert content(write(tmp_path / "set.json", {"train": rows}), rejects) == {"train": {"1.jpg": ("a dog",)}}
    assert {line["where"].rpartition(":")[2]: line["reason"] for line in rejects.lines} == {
        "2": "has no caption, only '7'",
        "4": "names an image that is not there",
        "5": "names no image",
        "3": "has no caption",
    }


@pytest.mark.parametrize(
    "value",
    [
        {"1.jpg": "a dog", "2.png": ["a cat", " a black cat "]},
        {"1.jpg": {"text": "a dog"}, "2.png": {"captions": ["a cat", "a black cat"]}},
        {"1.jpg": [{"image_id": "1", "caption": "a dog"}], "2.png": [{"raw": "a cat"}, {"raw": "a black cat"}]},
        {"annotations": {"1.jpg": "a dog", "2.png": ["a cat", "a black cat"]}, "version": "1.0"},
    ],
)
def test_names_lead_to_captions_in_several_spellings(tmp_path: Path, value: Any) -> None:
    touch(tmp_path, "1.jpg", "2.png")
    write(tmp_path / "captions.json", value)
    rejects = Rejects()
    assert content(tmp_path, rejects) == {"all": {"1.jpg": ("a dog",), "2.png": ("a cat", "a black cat")}}
    assert not rejects.lines


def test_names_by_split_and_in_files_by_split(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/2.jpg")
    write(tmp_path / "one/c.json", {"train": {"1.jpg": "a dog"}, "val": {"2.jpg": ["a cat"]}})
    write(tmp_path / "two/captions_train.json", {"1.jpg": "a dog"})
    write(tmp_path / "two/captions_val.json", {"2.jpg": ["a cat"]})
    expected = {"train": {"images/1.jpg": ("a dog",)}, "validation": {"images/2.jpg": ("a cat",)}}
    assert content(tmp_path / "one", image_root=tmp_path) == expected
    assert content(tmp_path / "two", image_root=tmp_path) == expected


def test_a_column_is_chosen_in_objects(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    file = write(tmp_path / "c.json", {"1.jpg": {"title": "a title", "alt": "an alt text"}})
    assert content(file, caption_column="alt") == {"all": {"1.jpg": ("an alt text",)}}


@pytest.mark.parametrize(
    "value",
    [
        {"learning_rate": "1e-4", "note": "a long day"},
        {"1.jpg": "1_mask.png"},
        {"1.jpg": 3, "2.jpg": [0, 1, 2, 3]},
        {"1.jpg": {"boxes": [[0, 1]]}},
        {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]},
        {"model": {"name": "blip"}, "training": {"epochs": 3}},
        {"predictions": [{"id": 1, "caption": "x"}]},
    ],
)
def test_other_objects_are_claimed_by_nobody(tmp_path: Path, value: Any) -> None:
    touch(tmp_path, "1.jpg")
    (tmp_path / "1.txt").write_text("a dog", encoding="utf-8")
    file = write(tmp_path / "other.json", value)
    assert detect(str(tmp_path)) == "sidecar"
    with pytest.raises(DataError, match="not a data set"):
        detect(str(file))


def test_caption_files_and_tables_go_before_names(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    file = write(tmp_path / "results.json", {"1.jpg": "written by a model"})
    assert detect(str(tmp_path)) == detect(str(file)) == "names"
    (tmp_path / "1.txt").write_text("a dog", encoding="utf-8")
    assert (detect(str(tmp_path)), detect(str(file))) == ("sidecar", "names")
    write(file, {"results": [{"image_id": "7", "caption": "written by a model"}]})
    assert (detect(str(tmp_path)), detect(str(file))) == ("sidecar", "grouped")
    (tmp_path / "metadata.csv").write_text("file_name,text\n1.jpg,a dog\n", encoding="utf-8")
    assert detect(str(tmp_path)) == "csv"


def test_pictures_to_caption_are_all_of_a_folder_whatever_a_file_in_it_names(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "deep/3.jpg")
    file = write(tmp_path / "results.json", {"2.jpg": "written by a model"})
    listed = {name: {sample.id for sample in list_images([str(name)])} for name in (tmp_path, file)}
    assert listed == {tmp_path: {"1.jpg", "2.jpg", "deep/3.jpg"}, file: {"2.jpg"}}


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        ("grouped", "[]", "not a JSON object"),
        ("grouped", '{"train": [{"image": "1.jpg", "caption": "x"}', "the file ends there"),
        ("grouped", '{"train": [{"image": "1.jpg", "caption": "x"}]} []', "something follows"),
        ("grouped", '{"train": []}', r"nothing to use \(no rows\)"),
        ("grouped", '{"a": [{"image": "1.jpg", "caption": "x", "split": "trian"}]}', "Did you mean 'train'"),
        ("grouped", '{"a": [{"image": "../1.jpg", "caption": "x"}]}', "leaves the folder"),
        ("names", '{"1.jpg" "x"}', "entry 1 has no key"),
        ("names", '{"1.jpg": "x" "2.jpg": "y"}', "no comma or } after entry 1"),
        ("names", '{"1.jpg": tru', "the value of '1.jpg' is not valid JSON"),
        ("names", '{"1.jpg": ' + "[" * 100_000, "not valid JSON"),
        ("names", '{"1.jpg": 7}', r"1 rejected: .*c\.json:1 has no caption, only '7'"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, form: str, text: str, message: str) -> None:
    touch(tmp_path, "1.jpg")
    (tmp_path / "c.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as raised:
        content(tmp_path / "c.json", form=form)
    assert "\n" not in str(raised.value)


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    value=st.dictionaries(
        st.text(max_size=3), st.lists(VALUES, max_size=3) | st.dictionaries(st.text(max_size=2), VALUES)
    ),
    size=st.integers(1, 20),
    indent=st.none() | st.just(1),
)
def test_any_object_comes_back_whatever_is_read_at_a_time(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any], size: int, indent: int | None
) -> None:
    path = tmp_path_factory.mktemp("set") / "t.json"
    path.write_text(json.dumps(value, indent=indent), encoding="utf-8")
    expected = [
        (key, *entry)
        for key, inner in value.items()
        for entry in (inner.items() if isinstance(inner, dict) else [("", part) for part in inner])
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "CHUNK", size)
        assert [(entry.group, entry.key, entry.value) for entry in entries(path, lambda key: True)] == expected


FRAGMENTS = st.sampled_from(
    ['{"train": [{"image": "a.jpg", "text": "x"}]}', '"a.jpg": "x"', *'[]{},":\\1', "a", "\ufeff", '{"a.jpg": ["x"]}']
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    data=st.binary(max_size=40) | st.lists(FRAGMENTS, max_size=10).map(lambda parts: "".join(parts).encode()),
    form=st.sampled_from(FORMS),
)
def test_any_bytes_are_samples_or_one_data_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, form: str
) -> None:
    folder = tmp_path_factory.mktemp("set")
    touch(folder, "a.jpg")
    (folder / "t.json").write_bytes(data)
    reader(form).recognises(str(folder))
    try:
        found = content(folder / "t.json", form=form)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert all(set(images) == {"a.jpg"} for images in found.values())
