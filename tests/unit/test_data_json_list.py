"""JSON lists: the seeds' and LAVIS's forms, folders of them, and one clear line for what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.readers import json_list
from captrain.data.readers.json_list import objects, read, recognises
from captrain.errors import DataError
from captrain.records import Rejects


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"jpeg")


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def content(source: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    splits = read(str(source), Rejects())
    return {split: {sample.id: sample.captions for sample in samples} for split, samples in splits.items()}


def test_the_form_of_conceptual_captions(tmp_path: Path) -> None:
    images(tmp_path, "validation/1.jpg", "validation/2.jpg")
    names = [str(tmp_path / "validation/1.jpg"), "validation/2.jpg", "validation/1.jpg"]
    file = write(tmp_path / "data.json", [{"text": f"caption {n}", "image": name} for n, name in enumerate(names)])
    assert content(file) == {
        "all": {"validation/1.jpg": ("caption 0", "caption 2"), "validation/2.jpg": ("caption 1",)}
    }


def test_the_three_files_of_lavis(tmp_path: Path) -> None:
    images(tmp_path, "val2014/a.jpg", "val2014/b.jpg", "train2014/c.jpg")
    train = [{"image": "train2014/c.jpg", "caption": text, "image_id": "coco_1"} for text in ("one", "two")]
    write(tmp_path / "coco_karpathy_train.json", train)
    write(tmp_path / "coco_karpathy_val.json", [{"image": "val2014/a.jpg", "caption": ["three", "four"]}])
    write(tmp_path / "coco_karpathy_test.json", [{"image": "val2014/b.jpg", "caption": ["five"]}])
    write(tmp_path / "coco_karpathy_val_gt.json", {"annotations": []})
    write(tmp_path / "results_val.json", [{"image_id": 1, "caption": "six"}])
    assert recognises(str(tmp_path))
    assert content(tmp_path) == {
        "test": {"val2014/b.jpg": ("five",)},
        "train": {"train2014/c.jpg": ("one", "two")},
        "validation": {"val2014/a.jpg": ("three", "four")},
    }


@pytest.mark.parametrize(
    "text", ['{"images": [], "annotations": []}', '{"a.jpg": {"caption": "x"}}', "", "[1, 2]", '["a.jpg"]', "[[]]"]
)
@pytest.mark.parametrize("name", ["data.json", "metadata.json", "train.json"])
def test_other_json_is_not_claimed(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / name).write_text(text)
    assert not recognises(str(tmp_path / name))
    assert not recognises(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "not a JSON list"),
        ("", "not a JSON list"),
        ("[]", r"nothing to use \(no rows\)"),
        ('[{"image": "a.jpg", "text": "x"}, 5]', r"t\.json:2: entry 2 of the list is not an object"),
        ('[{"image": "a.jpg", "text": "x"} {"image": "a.jpg"}]', "no comma"),
        ('[{"image": "a.jpg", "text": "x"}', "the file ends there"),
        ('[{"image": "a.jpg", "text": "x"}, {"image": "a.', r"t\.json:2: object 2 of the list is not valid JSON"),
        ('[{"image": "a.jpg", "text": "x"}] []', "something follows"),
        ('[{"image": ' + "[" * 100_000, "not valid JSON"),
        ('[{"image": "a.jpg", "n": ' + "1" * 5000 + "}]", "not valid JSON"),
        ('[{"image_id": 5, "caption": "x"}]', r"t\.json:1: no file name \(columns: image_id, caption\)"),
        ('[{"image": "../a.jpg", "caption": "x"}]', "leaves the folder"),
        ('[{"image": "a.jpg", "caption": "x", "split": "trian"}]', "Did you mean 'train'"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    images(tmp_path, "a.jpg")
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DataError, match=message) as raised:
        read(str(tmp_path / "t.json"), Rejects())
    assert "\n" not in str(raised.value)


def test_bytes_that_are_not_unicode(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(b'[{"image": "caf\xe9.jpg"}]')
    with pytest.raises(DataError, match="not UTF-8"):
        read(str(tmp_path / "t.json"), Rejects())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    values=st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=8) | st.integers() | st.lists(st.text()))),
    size=st.integers(1, 20),
    indent=st.none() | st.just(1),
)
def test_any_list_comes_back_whatever_is_read_at_a_time(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, Any]], size: int, indent: int | None
) -> None:
    path = tmp_path_factory.mktemp("set") / "t.json"
    path.write_text(json.dumps(values, indent=indent), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "CHUNK", size)
        assert [value for _, value in objects(path)] == values


FRAGMENTS = st.sampled_from(
    ['[{"image": "a.jpg", "text": "x"}', "[", "]", "{", "}", ",", '"', "a", ":", "\\", "1", "\ufeff"]
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.binary(max_size=40) | st.lists(FRAGMENTS, max_size=10).map(lambda parts: "".join(parts).encode()))
def test_any_bytes_are_samples_or_one_data_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("set")
    images(folder, "a.jpg")
    (folder / "t.json").write_bytes(data)
    recognises(str(folder))
    try:
        splits = read(str(folder / "t.json"), Rejects())
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert [sample.id for sample in splits["all"]] == ["a.jpg"]
