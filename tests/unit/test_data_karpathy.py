"""Karpathy's splits: which split an image is of, where it is looked for, and that no JSON gives a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.options import ReadOptions
from captrain.data.readers import detect
from captrain.data.readers.karpathy import read, recognises
from captrain.errors import DataError
from captrain.records import Rejects


def image(name: str, *captions: str, **more: Any) -> dict[str, Any]:
    folder, _, base = name.rpartition("/")
    sentences = [{"tokens": text.split(), "raw": text, "imgid": 0, "sentid": 0} for text in captions]
    return {"filepath": folder, "sentids": [0], "filename": base, "imgid": 0, "sentences": sentences, **more}


def write(path: Path, *images: Any) -> str:
    path.write_text(json.dumps({"images": images, "dataset": "coco"}), encoding="utf-8")
    return str(path)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"jpeg")


def ids(source: Path | str, **options: Any) -> dict[str, list[str]]:
    splits = read(str(source), Rejects(), ReadOptions(**options))
    return {name: [sample.id for sample in samples] for name, samples in splits.items()}


def test_restval_is_trained_on(tmp_path: Path) -> None:
    names = {"train": "train2014/1.jpg", "restval": "val2014/2.jpg", "val": "val2014/3.jpg", "test": "val2014/4.jpg"}
    touch(tmp_path, *names.values())
    write(tmp_path / "dataset_coco.json", *(image(name, "a dog ", split=split) for split, name in names.items()))
    assert detect(str(tmp_path)) == "karpathy"
    assert ids(tmp_path) == {
        "train": ["train2014/1.jpg", "val2014/2.jpg"],
        "validation": ["val2014/3.jpg"],
        "test": ["val2014/4.jpg"],
    }
    sample = read(str(tmp_path), Rejects())["train"][1]
    assert (sample.captions, sample.source) == (("a dog",), "dataset_coco.json:2")


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("dataset_rsicd.json", "RSICD_images/airport_1.jpg"),
        ("dataset.json", "imgs/1.tif"),
        ("dataset_ucm.json", "UCM_images/1.tif"),
        ("dataset.json", "Sydney_captions/imgs/1.tif"),
    ],
)
def test_remote_sensing_names_pictures_in_the_folder_of_their_archive(tmp_path: Path, file: str, place: str) -> None:
    touch(tmp_path, place)
    sentences = [{"tokens": ["a"], "raw": text, "imgid": 0, "sentid": 0} for text in ("many planes .", "an airport .")]
    entry = {"filename": Path(place).name, "imgid": 0, "sentences": sentences, "split": "val", "sentids": [0, 1]}
    (tmp_path / file).write_text(json.dumps({"images": [entry], "dataset": "rsicd"}), encoding="utf-8")
    assert detect(str(tmp_path)) == "karpathy"
    (sample,) = read(str(tmp_path), Rejects())["validation"]
    assert (sample.id, sample.captions) == (place, ("many planes .", "an airport ."))


@pytest.mark.parametrize(
    "place", ["val2014/1.jpg", "1.jpg", "images/1.jpg", "images/val2014/1.jpg", "flickr30k-images/1.jpg"]
)
def test_an_image_is_found_where_the_archives_put_it(tmp_path: Path, place: str) -> None:
    touch(tmp_path / "photos", place)
    source = write(tmp_path / "dataset_coco.json", image("val2014/1.jpg", "a dog"))
    assert ids(source, image_root=tmp_path / "photos") == {"all": [place]}


def test_a_file_without_filepath_reads(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    entry = image("1.jpg", "a dog", split="train")
    del entry["filepath"]
    assert ids(write(tmp_path / "dataset_flickr8k.json", entry)) == {"train": ["1.jpg"]}


def test_each_missing_or_bare_image_is_rejected_once(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "bare.jpg")
    rejects = Rejects()
    read(write(tmp_path / "a.json", image("1.jpg", "x"), image("gone.jpg", "x"), image("bare.jpg", "")), rejects)
    assert [(line["id"], line["reason"]) for line in rejects.lines] == [
        ("gone.jpg", "names an image that is not there"),
        ("bare.jpg", "has no caption"),
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (image("1.jpg", "x", split="vall"), r"image 2: unknown split 'vall'; expected train.* Did you mean 'val'\?"),
        (image("1.jpg", "x", split=3), r"image 2: found a int in 'split'"),
        (image("2.jpg", "x", split="val"), "some images name a split and some don't"),
        ({"filename": "1.jpg"}, r"image 2: found no 'sentences'; expected a list of objects"),
        (image("1.jpg", sentences=[{"tokens": []}]), r"image 2: found no 'raw'"),
        (image("1.jpg", filepath=7), r"image 2: found a int in 'filepath'"),
        (image("../secret.jpg", "x"), r"image 2: '\.\./secret\.jpg' leaves the folder"),
    ],
)
def test_an_entry_of_another_form_is_named(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match=message) as raised:
        ids(write(tmp_path / "dataset_coco.json", image("1.jpg", "x"), entry))
    assert "\n" not in str(raised.value)


def test_a_folder_must_hold_one_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; expected one file such as dataset_coco\.json"):
        ids(tmp_path)
    for name in ("dataset_coco", "dataset_flickr8k"):
        write(tmp_path / f"{name}.json", image("1.jpg", "x"))
    with pytest.raises(DataError, match=r"dataset_coco\.json and dataset_flickr8k\.json; expected one file"):
        ids(tmp_path)


def test_a_large_file_is_recognised_by_its_ends_and_others_are_not(tmp_path: Path) -> None:
    assert recognises(write(tmp_path / "large.json", *[image("1.jpg", "x")] * 5000))
    assert not recognises(write(tmp_path / "else.json", {"filename": "1.jpg", "text": "sentences"}))
    (tmp_path / "coco.json").write_text('{"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": ""}]}')
    assert not recognises(str(tmp_path / "coco.json"))
    assert not recognises(str(tmp_path / "absent.json"))


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.floats()
    | st.text(st.characters(), max_size=5)  # half surrogate pairs too
    | st.sampled_from(["1.jpg", "../1.jpg", "/etc/passwd", "1\n.jpg", "\0", "train", "VAL", "vall\u2028"])
)
KEYS = st.sampled_from(["images", "filepath", "filename", "split", "sentences", "raw"])
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
SENTENCE = st.fixed_dictionaries({"raw": st.text(max_size=4) | LEAVES}) | JSON
IMAGE = st.fixed_dictionaries(
    {"filename": st.just("1.jpg") | LEAVES, "sentences": st.lists(SENTENCE) | JSON},
    optional={"filepath": LEAVES, "split": LEAVES},
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    touch(folder, "1.jpg")
    return folder


@settings(max_examples=200, deadline=None)
@given(value=st.fixed_dictionaries({"images": st.lists(IMAGE | JSON) | JSON}) | JSON)
def test_any_json_is_read_or_refused_in_one_line(place: Path, value: Any) -> None:
    source = place / "dataset_coco.json"
    source.write_text(json.dumps(value), encoding="utf-8")
    recognises(str(source))
    rejects = Rejects()
    try:
        splits = read(str(source), rejects)
    except DataError as error:
        assert str(error).startswith(str(source))
        assert len(str(error).splitlines()) == 1
    else:
        assert [samples[0].id for samples in splits.values()] == ["1.jpg"]
    json.dumps(rejects.lines, ensure_ascii=False).encode()
