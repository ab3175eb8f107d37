"""COCO captions: which file is one, where its images are, what is rejected, and that no JSON at all gives a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.options import ReadOptions
from captrain.data.readers import detect, json_objects
from captrain.data.readers.coco import read, recognises
from captrain.errors import DataError
from captrain.records import Rejects, Sample


def content(**captions: list[str]) -> dict[str, Any]:
    """Images called after the keys, with their captions."""
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate(captions, start=7)]
    annotations = [
        {"id": 0, "image_id": number, "caption": text}
        for number, texts in enumerate(captions.values(), start=7)
        for text in texts
    ]
    return {"info": {"year": 2017}, "images": images, "annotations": annotations}


def write(path: Path, value: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"jpeg")


def samples_of(source: Path | str, rejects: Rejects | None = None, root: Path | None = None) -> list[Sample]:
    splits = read(str(source), Rejects() if rejects is None else rejects, ReadOptions(image_root=root))
    return [sample for samples in splits.values() for sample in samples]


def test_captions_are_gathered_by_image_in_the_order_of_images(tmp_path: Path) -> None:
    value = content(b=["two", " three "], a=["one"])
    value["annotations"].reverse()
    touch(tmp_path, "a.jpg", "b.jpg")
    samples = samples_of(write(tmp_path / "mine.json", value))
    assert [(sample.id, sample.captions) for sample in samples] == [("b.jpg", ("three", "two")), ("a.jpg", ("one",))]
    assert samples[1].source == "mine.json:2"


def test_the_official_folders_give_splits(tmp_path: Path) -> None:
    write(tmp_path / "annotations/captions_train2017.json", content(a=["one"], b=["two"]))
    write(tmp_path / "annotations/captions_val2017.json", content(c=["three"]))
    write(tmp_path / "annotations/instances_val2017.json", {"images": [], "annotations": [{"image_id": 1, "bbox": []}]})
    touch(tmp_path, "train2017/a.jpg", "images/train2017/b.jpg", "images/c.jpg")
    assert detect(str(tmp_path)) == "coco"
    splits = read(str(tmp_path), Rejects())
    assert {name: [sample.id for sample in samples] for name, samples in splits.items()} == {
        "train": ["train2017/a.jpg", "images/train2017/b.jpg"],
        "validation": ["images/c.jpg"],
    }
    alone = read(str(tmp_path / "annotations/captions_val2017.json"), Rejects())
    assert [(name, samples[0].id) for name, samples in alone.items()] == [("all", "images/c.jpg")]


def test_an_image_root_may_be_anywhere(tmp_path: Path) -> None:
    source = write(tmp_path / "notes/mine.json", content(a=["one"]))
    touch(tmp_path / "photos", "a.jpg")
    assert [sample.image for sample in samples_of(source, root=tmp_path / "photos")] == [tmp_path / "photos/a.jpg"]
    with pytest.raises(DataError, match="--image-root FOLDER says where"):
        samples_of(source)
    with pytest.raises(DataError, match="not a folder"):
        samples_of(source, root=tmp_path / "photos/a.jpg")


def test_what_does_not_fit_together_is_rejected_once(tmp_path: Path) -> None:
    value = content(a=["one"], gone=["lost"] * 5, bare=[" "])
    value["images"].append({"id": 7, "file_name": "twin.jpg"})
    value["annotations"] += [{"image_id": 99, "caption": "whose?"}] * 3
    touch(tmp_path, "a.jpg", "bare.jpg", "twin.jpg")
    rejects = Rejects()
    source = write(tmp_path / "mine.json", value)
    assert [sample.id for sample in samples_of(source, rejects)] == ["a.jpg"]
    assert {(line["id"], line["where"].removeprefix(source), line["reason"]) for line in rejects.lines} == {
        ("twin.jpg", ": image 4", "has the id of image 1"),
        ("99", ": annotation 8", "is about an image that is not in 'images'"),
        ("gone.jpg", ":2", "names an image that is not there"),
        ("bare.jpg", ":3", "has no caption"),
    }
    assert len(rejects) == 4


def test_an_id_may_be_a_number_here_and_text_there(tmp_path: Path) -> None:
    value = content(a=["one"])
    value["annotations"][0]["image_id"] = "7"
    touch(tmp_path, "a.jpg")
    assert samples_of(write(tmp_path / "mine.json", value))[0].captions == ("one",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, r"mine\.json: found no 'images'; expected a list of objects"),
        ({"images": [3]}, r"mine\.json: entry 1 of 'images' is a int; expected an object"),
        ({"images": [{"file_name": "a.jpg"}]}, r"mine\.json: image 1: found no 'id'"),
        ({"images": [{"id": 7}]}, r"mine\.json: image 1: found no 'file_name'; expected a string"),
        ({"images": [{"id": 7, "file_name": "a\nb"}]}, r"image 1: 'file_name' is 'a\\nb'; expected the path"),
        ({"images": [{"id": True, "file_name": "a.jpg"}]}, r"image 1: found a bool in 'id'"),
        ({"images": [{"id": 7, "file_name": "../secret.jpg"}]}, r"image 1: '\.\./secret\.jpg' leaves the folder"),
        ({"annotations": [{"caption": "x"}]}, r"annotation 1: found no 'image_id'; expected a number or a string"),
        ({"annotations": [{"image_id": 7, "caption": ["x"]}]}, r"annotation 1: found a list in 'caption'"),
    ],
)
def test_an_entry_of_another_form_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    touch(tmp_path, "a.jpg")
    source = write(tmp_path / "mine.json", {**content(a=["one"]), **change})
    with pytest.raises(DataError, match=message) as raised:
        samples_of(source)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b'{"images": ' * 200_000, "nested too deeply"),
        (b'{"images": [}', "not valid JSON"),
        (b'{"images": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"images": "caf\xe9"}', "not UTF-8"),
        (b"[]", "found a JSON list, expected an object"),
        (b"", "not valid JSON"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "mine.json").write_bytes(text)
    with pytest.raises(DataError, match=message) as raised:
        samples_of(tmp_path / "mine.json")
    assert "\n" not in str(raised.value)
    assert str(tmp_path / "mine.json") in str(raised.value)


def test_a_giant_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "mine.json", content(a=["one"]))
    monkeypatch.setattr(json_objects, "LARGEST_FILE", 100)
    with pytest.raises(DataError, match="over 100; split the file"):
        samples_of(source)


def test_a_large_file_is_recognised_by_its_ends(tmp_path: Path) -> None:
    value = content(**{f"i{number}": [] for number in range(20_000)}, a=["one"])
    source = write(tmp_path / "large.json", value)
    assert Path(source).stat().st_size > 500_000
    assert recognises(source)
    value["annotations"] = value.pop("annotations") * 20_000
    reordered = {"annotations": value["annotations"], "images": value["images"][:1]}
    assert recognises(write(tmp_path / "reordered.json", reordered))


def test_other_json_is_not_claimed(tmp_path: Path) -> None:
    others: dict[str, Any] = {
        "results": [{"image_id": 1, "caption": "a dog"}],
        "instances": {
            "images": [{"id": 1, "file_name": "a.jpg"}],
            "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}],
        },
        "karpathy": {"images": [{"filename": "a.jpg", "sentences": [{"raw": 'an "image_id": and "caption":'}]}]},
        "empty": {},
    }
    for name, value in others.items():
        assert not recognises(write(tmp_path / f"{name}.json", value))
    assert not recognises(str(tmp_path))
    assert not recognises(str(tmp_path / "absent.json"))
    assert not recognises("\0.json")
    assert not recognises("s3://bucket/captions.json")


def test_two_files_that_can_not_be_told_apart_are_named(tmp_path: Path) -> None:
    for name in ("captions_train2014", "captions_train2017"):
        write(tmp_path / f"annotations/{name}.json", content(a=["one"]))
    with pytest.raises(
        DataError, match=r"train2014\.json and annotations/captions_train2017\.json can't be told apart"
    ):
        samples_of(tmp_path)
    (tmp_path / "annotations/captions_train2014.json").rename(tmp_path / "mine.json")
    with pytest.raises(DataError, match="can't be told apart"):
        samples_of(tmp_path)


def test_a_folder_without_a_file_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no COCO captions file; expected one such as annotations/captions_train2017"):
        samples_of(tmp_path)


def test_the_real_file_reads_with_the_photos_that_are_there(shared_data: Path) -> None:
    source = shared_data / "data/coco-captions/captions_val2017.json"
    photos = shared_data / "data/coco-mini/images"
    rejects = Rejects()
    samples = samples_of(source, rejects, photos)
    listed = (json.loads(line) for line in (photos.parent / "captions.jsonl").read_text(encoding="utf-8").splitlines())
    expected = {line["file_name"]: tuple(text.strip() for text in line["captions"]) for line in listed}
    assert len(samples) + len(rejects) == 5000
    assert len(samples) > 100
    assert all(expected[sample.id] == sample.captions for sample in samples)


KEYS = st.sampled_from(["images", "annotations", "id", "image_id", "file_name", "caption"])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.floats()
    | st.text(st.characters(), max_size=5)  # half surrogate pairs too
    | st.sampled_from(["a.jpg", "../a.jpg", "/etc/passwd", "C:\\a.jpg", "a\n.jpg", "\0", "1"])
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
IMAGE = st.fixed_dictionaries({"id": st.integers(0, 2) | LEAVES, "file_name": st.just("a.jpg") | LEAVES})
ANNOTATION = st.fixed_dictionaries({"image_id": st.integers(0, 2) | LEAVES, "caption": st.text(max_size=4) | LEAVES})
FILE = st.fixed_dictionaries(
    {"images": st.lists(IMAGE | JSON) | JSON, "annotations": st.lists(ANNOTATION | JSON) | JSON}
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    touch(folder, "a.jpg")
    return folder


@settings(max_examples=200, deadline=None)
@given(value=FILE | JSON)
def test_any_json_is_read_or_refused_in_one_line(place: Path, value: Any) -> None:
    source = write(place / "mine.json", value)
    recognises(source)
    rejects = Rejects()
    try:
        samples = samples_of(source, rejects)
    except DataError as error:
        assert str(error).startswith(source)
        assert len(str(error).splitlines()) == 1
    else:
        assert [(sample.id, bool(sample.captions)) for sample in samples] == [("a.jpg", True)]
    json.dumps(rejects.lines, ensure_ascii=False).encode()


@settings(max_examples=200, deadline=None)
@given(text=st.binary(max_size=40), cut=st.integers(0, 400))
def test_any_bytes_are_read_or_refused_in_one_line(place: Path, text: bytes, cut: int) -> None:
    whole = json.dumps(content(a=["one"], b=["two"])).encode()
    (place / "mine.json").write_bytes(whole[:cut] + text + whole[cut + len(text) :])
    recognises(str(place / "mine.json"))
    try:
        samples_of(place / "mine.json")
    except DataError as error:
        assert len(str(error).splitlines()) == 1
