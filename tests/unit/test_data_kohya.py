"""sd-scripts' data sets: repeats by folder names, metadata whose keys must be found, and no traceback for any JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.options import ReadOptions
from captrain.data.readers import detect
from captrain.data.readers.kohya import read, recognises
from captrain.errors import DataError
from captrain.records import Rejects, Sample


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"jpeg")


def pair(folder: Path, image: str, suffix: str = ".txt") -> None:
    touch(folder, image)
    (folder / image).with_suffix(suffix).write_text("a dog", encoding="utf-8")


def metadata(folder: Path, value: Any, name: str = "meta_cap.json") -> str:
    (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return str(folder)


def samples_of(source: Path | str, rejects: Rejects | None = None, **options: Any) -> list[Sample]:
    splits = read(str(source), Rejects() if rejects is None else rejects, ReadOptions(**options))
    return [sample for samples in splits.values() for sample in samples]


def found(source: Path | str, **options: Any) -> dict[str, tuple[str, ...]]:
    return {sample.id: sample.captions for sample in samples_of(source, **options)}


def test_folders_say_their_repeats(tmp_path: Path) -> None:
    pair(tmp_path, "10_dogs/1.jpg")
    pair(tmp_path, "3_cats on sofas/deep/2.png", ".caption")
    pair(tmp_path, "plain/5_deep/3.jpg")
    pair(tmp_path, "4.jpg")
    assert detect(str(tmp_path)) == "kohya"
    assert {sample.id: sample.repeats for sample in samples_of(tmp_path)} == {
        "10_dogs/1.jpg": 10,
        "3_cats on sofas/deep/2.png": 3,
        "4.jpg": 1,
        "plain/5_deep/3.jpg": 1,
    }


@pytest.mark.parametrize("name", ["2023_july", "01_dogs", "0_dogs", "10dogs", "10_", "dogs_10", "-1_dogs", "٣_dogs"])
def test_years_and_numbering_are_no_repeats(tmp_path: Path, name: str) -> None:
    pair(tmp_path, f"{name}/1.jpg")
    assert detect(str(tmp_path)) == "sidecar"
    assert samples_of(tmp_path)[0].repeats == 1


def test_a_table_beside_the_folders_goes_first(tmp_path: Path) -> None:
    pair(tmp_path, "10_dogs/1.jpg")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "10_dogs/1.jpg", "text": "a dog"}\n', encoding="utf-8")
    assert not recognises(str(tmp_path))


def test_a_folder_without_images_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "10_dogs").mkdir()
    (tmp_path / "10_dogs/notes.txt").write_text("none yet", encoding="utf-8")
    assert not recognises(str(tmp_path))
    assert not recognises(str(tmp_path / "absent"))
    assert not recognises("\0")


def test_keys_lead_to_images_by_their_last_parts(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "b/deep.er/2.webp", "3.png", "é.jpg")
    keys = ["/home/me/a/1.png.jpg", "C:\\photos\\a\\1.jpg", "/mnt/set/b/1", "2", "../elsewhere/3", "e\u0301"]
    metadata(tmp_path, {key: {"caption": f"caption {number}"} for number, key in enumerate(keys)})
    rejects = Rejects()
    assert {sample.id: sample.captions for sample in samples_of(tmp_path, rejects)} == {
        "a/1.jpg": ("caption 1",),
        "b/1.jpg": ("caption 2",),
        "b/deep.er/2.webp": ("caption 3",),
        "3.png": ("caption 4",),
        "é.jpg": ("caption 5",),
    }
    assert [(line["id"], line["reason"]) for line in rejects.lines] == [(keys[0], "names an image that is not there")]


def test_paths_of_this_machine_are_read_where_they_lie_unless_a_root_confines(tmp_path: Path) -> None:
    picture = tmp_path / "elsewhere/1.jpg"
    picture.parent.mkdir()
    picture.write_bytes(b"\xff\xd8\xff\xe0 the beginning of a JPEG file, as far as anybody looks at it")
    (tmp_path / "set").mkdir()
    source = metadata(tmp_path / "set", {str(picture): {"caption": "a dog"}, "/not/there.jpg": {"caption": "a cat"}})
    rejects = Rejects()
    (sample,) = samples_of(source, rejects)
    assert (str(sample.image), sample.captions) == (str(picture), ("a dog",))
    assert [line["id"] for line in rejects.lines] == ["/not/there.jpg"]
    with pytest.raises(DataError, match="nothing to use"):
        samples_of(source, image_root=tmp_path / "set")


def test_a_key_that_leads_to_several_folders_is_rejected(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "2.jpg", "2.png")
    metadata(tmp_path, {"1": {"caption": "which?"}, "2": {"caption": "both"}, "2.png": {"caption": "one"}})
    rejects = Rejects()
    captions = {sample.id: sample.captions for sample in samples_of(tmp_path, rejects)}
    assert captions == {"2.jpg": ("both",), "2.png": ("both", "one")}
    assert [line["reason"] for line in rejects.lines] == ["may be any of 2 images, 'a/1.jpg' say"]


@pytest.mark.parametrize(
    ("column", "captions"),
    [
        ("", {"1.jpg": ("a dog",), "2.jpg": ("dog, grass",), "3.jpg": ("x", "y")}),
        ("caption", {"1.jpg": ("a dog",), "3.jpg": ("x", "y")}),
        ("tags", {"1.jpg": ("dog, red",), "2.jpg": ("dog, grass",)}),
        ("caption+tags", {"1.jpg": ("a dog, dog, red",), "2.jpg": ("dog, grass",), "3.jpg": ("x", "y")}),
    ],
)
def test_captions_and_tags_are_chosen(tmp_path: Path, column: str, captions: dict[str, tuple[str, ...]]) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    entries: dict[str, Any] = {
        "1": {"caption": " a dog ", "tags": "dog, red", "train_resolution": [512, 512]},
        "2": {"caption": "", "tags": ["dog", "grass"]},
        "3": {"caption": ["x", "y"], "tags": None},
    }
    assert found(metadata(tmp_path, entries), caption_column=column) == captions


def test_an_unknown_column_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    with pytest.raises(DataError, match=r"caption_column 'tag' is not .*; expected caption, .*Did you mean 'tags'\?"):
        samples_of(metadata(tmp_path, {"1": {}}), caption_column="tag")


def test_the_last_step_of_sd_scripts_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "10_dogs/1.jpg")
    metadata(tmp_path, {"1": {"caption": "early"}})
    metadata(tmp_path, {"1": {"caption": "late", "train_resolution": [1, 1]}}, "meta_lat.json")
    assert detect(str(tmp_path)) == "kohya"
    (sample,) = samples_of(tmp_path)
    assert (sample.captions, sample.repeats, sample.source) == (("late",), 10, "meta_lat.json:1")
    assert found(tmp_path / "meta_cap.json") == {"10_dogs/1.jpg": ("early",)}


def test_a_file_of_any_name_is_recognised_by_its_first_entry(tmp_path: Path) -> None:
    metadata(tmp_path, {'a "dog"': {"tags": "x"}}, "mine.json")
    metadata(tmp_path, {"file_name": "a.jpg", "caption": "x"}, "row.json")
    assert recognises(str(tmp_path / "mine.json"))
    assert not recognises(str(tmp_path / "row.json"))
    assert not recognises(str(tmp_path))


@pytest.mark.parametrize("name", ["meta_cap.json", "mine.json"])
def test_entries_may_lie_under_images_behind_a_version(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "f0.jpg", "deep/f1.jpg", "images.png")
    entries = {"f0.jpg": {"caption": ["a table", "people at a table"], "tags": ["x, y"]}, "deep/f1": {"tags": ["x"]}}
    metadata(tmp_path, {"format_version": "1.0", "images": entries}, name)
    source = tmp_path if name == "meta_cap.json" else tmp_path / name
    assert detect(str(source)) == "kohya"
    assert found(source) == {"f0.jpg": ("a table", "people at a table"), "deep/f1.jpg": ("x",)}
    metadata(tmp_path, {"images": {"caption": "a picture called images"}}, name)
    assert found(source) == {"images.png": ("a picture called images",)}


def test_an_entry_may_be_the_list_of_captions(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    assert found(metadata(tmp_path, {"1": ["a dog", " it runs "]})) == {"1.jpg": ("a dog", "it runs")}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "found a JSON list, expected an object"),
        ({"1": "a dog"}, r"entry 1 \('1'\): found a str; expected an object with 'caption' or 'tags'"),
        ({"1": {"caption": 7}}, r"entry 1 \('1'\): found a int in 'caption'"),
        ({"1\n": {"tags": ["x", None]}}, r"entry 1 \('1\\n'\): found a NoneType in 'tags'"),
        ({}, "nothing to use"),
    ],
)
def test_an_entry_of_another_form_is_named(tmp_path: Path, value: Any, message: str) -> None:
    touch(tmp_path, "1.jpg")
    with pytest.raises(DataError, match=message) as raised:
        samples_of(metadata(tmp_path, value))
    assert "\n" not in str(raised.value)


def test_json_that_is_too_deep_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "meta_cap.json").write_bytes(b'{"1":' * 200_000)
    with pytest.raises(DataError, match="nested too deeply"):
        samples_of(tmp_path)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.floats()
    | st.text(st.characters(), max_size=5)  # half surrogate pairs too
)
NAMES = st.sampled_from(["1", "1.jpg", "../1", "/", "a/1", "\0", "1\n", "..", "//1", "\\"]) | st.text(
    st.characters(), max_size=5
)
KEYS = st.sampled_from(["caption", "tags", "train_resolution"])
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
ENTRY = st.dictionaries(KEYS, st.text(max_size=4) | st.lists(st.text(max_size=3), max_size=2) | LEAVES) | JSON


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    touch(folder, "1.jpg", "a/1.jpg", "a/2.jpg")
    return folder


@settings(max_examples=300, deadline=None)
@given(value=st.dictionaries(NAMES, ENTRY, max_size=3) | JSON, column=st.sampled_from(["", "tags", "caption+tags"]))
def test_any_json_is_read_or_refused_in_one_line(place: Path, value: Any, column: str) -> None:
    source = Path(metadata(place, value)) / "meta_cap.json"
    recognises(str(source))
    rejects = Rejects()
    try:
        samples = samples_of(source, rejects, caption_column=column)
    except DataError as error:
        assert str(error).startswith(str(source))
        assert len(str(error).splitlines()) == 1
    else:
        assert samples
        assert {sample.id for sample in samples} <= {"1.jpg", "a/1.jpg", "a/2.jpg"}
        assert all(sample.captions for sample in samples)
    json.dumps(rejects.lines, ensure_ascii=False).encode()
