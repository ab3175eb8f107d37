"""Configurations of sd-scripts: subsets with their folders, captions and repeats, and what is not taken over."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.dataset import read_splits
from captrain.data.options import ReadOptions
from captrain.data.readers import detect
from captrain.data.readers.kohya_toml import read, recognises
from captrain.errors import DataError
from captrain.records import Rejects, Sample

USUAL = """\
[general]
shuffle_caption = true
keep_tokens = 1
caption_extension = ".txt"
caption_dropout_rate = 0.0

[[datasets]]
resolution = 512
batch_size = 4

  [[datasets.subsets]]
  image_dir = 'dogs'
  num_repeats = 10

  [[datasets.subsets]]
  image_dir = 'cats'
  class_tokens = 'a cat'
  caption_extension = '.cap'
  caption_prefix = 'in my style,'
  num_repeats = 2
"""


def pair(folder: Path, image: str, text: str = "", suffix: str = ".txt") -> None:
    (folder / image).parent.mkdir(parents=True, exist_ok=True)
    (folder / image).write_bytes(b"jpeg")
    if text:
        (folder / image).with_suffix(suffix).write_text(text, encoding="utf-8")


def configuration(folder: Path, text: str, name: str = "dataset.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def subsets(*tables: dict[str, Any]) -> str:
    """One data set of subsets; json writes strings, numbers and true as TOML does."""
    lines = ["[[datasets]]"]
    for table in tables:
        lines += ["[[datasets.subsets]]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def samples_of(source: Path, rejects: Rejects | None = None, **options: Any) -> list[Sample]:
    splits = read(str(source), Rejects() if rejects is None else rejects, ReadOptions(**options))
    return [sample for samples in splits.values() for sample in samples]


def found(source: Path, **options: Any) -> dict[str, tuple[tuple[str, ...], int]]:
    return {sample.id: (sample.captions, sample.repeats) for sample in samples_of(source, **options)}


def test_subsets_have_their_captions_and_repeats(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair(tmp_path, "dogs/1.jpg", "a dog")
    pair(tmp_path, "dogs/deeper/2.jpg", "not right in the folder")
    pair(tmp_path, "dogs/bare.jpg")
    pair(tmp_path, "cats/3.png", "a black cat", ".cap")
    pair(tmp_path, "cats/4.png")
    file = configuration(tmp_path, USUAL)
    assert detect(str(file)) == "kohya-toml"
    rejects = Rejects()
    with caplog.at_level(logging.INFO):
        assert {sample.id: (sample.captions, sample.repeats) for sample in samples_of(file, rejects)} == {
            "dogs/1.jpg": (("a dog",), 10),
            "cats/3.png": (("in my style, a black cat",), 2),
            "cats/4.png": (("in my style, a cat",), 2),
        }
    assert [line["id"] for line in rejects.lines] == ["bare.jpg"]
    (said,) = caplog.messages
    assert said.endswith(
        "not taken over: batch_size (--batch-size 4 does it), keep_tokens (--keep-tags 1 does it), resolution, "
        "shuffle_caption (--shuffle-tags does it)"
    )


def test_a_metadata_file_names_the_captions(tmp_path: Path) -> None:
    pair(tmp_path, "set/1.jpg")
    pair(tmp_path, "set/2.jpg")
    entries = {"/workspace/set/1.jpg": {"caption": "a dog"}, "2": {"tags": "cat, black"}}
    (tmp_path / "meta.json").write_text(json.dumps(entries), encoding="utf-8")
    file = configuration(tmp_path, subsets({"image_dir": "set", "metadata_file": "meta.json", "num_repeats": 3}))
    assert found(file) == {"set/1.jpg": (("a dog",), 3), "set/2.jpg": (("cat, black",), 3)}


@pytest.mark.parametrize(
    "written", ["/content/drive/MyDrive/data/dogs", "C:\\train\\data\\dogs", "./data/dogs/", "dogs"]
)
def test_folders_of_another_machine_are_found_by_their_last_parts(tmp_path: Path, written: str) -> None:
    pair(tmp_path, "data/dogs/1.jpg" if "data" in written else "dogs/1.jpg", "a dog")
    place = "data/dogs" if "data" in written else "dogs"
    assert found(configuration(tmp_path, subsets({"image_dir": written}))) == {f"{place}/1.jpg": (("a dog",), 1)}
    other = configuration(tmp_path / "elsewhere", subsets({"image_dir": written}))
    assert found(other, image_root=tmp_path) == {f"{place}/1.jpg": (("a dog",), 1)}


def test_a_folder_elsewhere_on_this_machine_is_read_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair(tmp_path, "photos/1.jpg", "a dog")
    file = configuration(tmp_path / "configs", subsets({"image_dir": str(tmp_path / "photos")}))
    with caplog.at_level(logging.INFO):
        assert found(file) == {"photos/1.jpg": (("a dog",), 1)}
    assert f"'{tmp_path / 'photos'}' is outside of {tmp_path / 'configs'}" in caplog.text
    with pytest.raises(DataError, match="is not there"):
        found(file, image_root=tmp_path / "configs")


def test_what_stands_twice_is_shown_as_often_as_both_and_other_captions_are_other_samples(tmp_path: Path) -> None:
    pair(tmp_path, "dogs/1.jpg", "a dog")
    one = {"image_dir": "dogs", "num_repeats": 2}
    text = subsets(one) + subsets(one | {"num_repeats": 3}) + subsets(one | {"caption_prefix": "photo of"})
    assert found(configuration(tmp_path, text)) == {
        "dogs/1.jpg": (("a dog",), 5),
        "dogs-2/1.jpg": (("photo of a dog",), 2),
    }


def test_subsets_that_are_not_learned_from_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair(tmp_path, "dogs/1.jpg", "a dog")
    tables = ({"image_dir": "dogs"}, {"image_dir": "reg", "is_reg": True}, {"image_dir": "none", "num_repeats": 0})
    with caplog.at_level(logging.INFO):
        assert found(configuration(tmp_path, subsets(*tables))) == {"dogs/1.jpg": (("a dog",), 1)}
    assert "1 subset of regularisation pictures" in caplog.text


def test_json_and_musubis_spelling(tmp_path: Path) -> None:
    pair(tmp_path, "dogs/1.jpg", "a dog")
    config = {"general": {"num_repeats": 4}, "datasets": [{"subsets": [{"image_dir": "dogs"}]}]}
    file = configuration(tmp_path, json.dumps(config), "config.json")
    assert detect(str(file)) == "kohya-toml"
    assert found(file) == {"dogs/1.jpg": (("a dog",), 4)}
    text = '[general]\ncaption_extension = ".txt"\n[[datasets]]\nimage_directory = "dogs"\nnum_repeats = 4\n'
    assert found(configuration(tmp_path, text)) == {"dogs/1.jpg": (("a dog",), 4)}


def test_a_folder_is_claimed_where_its_pictures_lie_elsewhere_alone(tmp_path: Path) -> None:
    file = configuration(tmp_path / "set", subsets({"image_dir": str(tmp_path / "photos")}))
    pair(tmp_path, "photos/1.jpg", "a dog")
    assert detect(str(tmp_path / "set")) == "kohya-toml"
    assert list(found(file.parent)) == ["photos/1.jpg"]
    pair(tmp_path, "set/2.jpg", "a cat")
    assert detect(str(tmp_path / "set")) == "sidecar"
    (tmp_path / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    assert not recognises(str(tmp_path / "pyproject.toml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[datasets]\n", "not valid TOML"),
        ("[general]\n", r"no data sets; expected \[\[datasets\]\]"),
        ("[[datasets]]\nsubsets = 5\n", "'subsets' is no list of tables"),
        ("[[datasets]]\n", "a subset names no image_dir"),
        (subsets({"image_dir": "../dogs"}), "leaves the folder"),
        (subsets({"image_dir": "absent"}), "image_dir 'absent' is not there"),
        (subsets({"image_dir": "dogs", "metadata_file": "absent.json"}), "metadata_file 'absent.json' is not there"),
        (subsets({"image_dir": "dogs", "num_repeats": "many"}), "num_repeats is 'many'; expected a whole number"),
        (subsets({"image_dir": "dogs", "is_reg": True}), r"nothing to use \(no pictures\)"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    pair(tmp_path, "dogs/1.jpg", "a dog")
    with pytest.raises(DataError, match=message) as raised:
        samples_of(configuration(tmp_path, text))
    assert "\n" not in str(raised.value)


PIECES = st.sampled_from(
    [
        *("[general]\n", "[[datasets]]\n", "[[datasets.subsets]]\n", 'image_dir = "dogs"\n', "num_repeats = 2\n"),
        *(
            "is_reg = true\n",
            'image_dir = "."\n',
            "caption_prefix = 5\n",
            "subsets = []\n",
            "x",
            "=",
            '"',
            "[",
            "\0",
            "é\n",
        ),
    ]
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(parts=st.lists(PIECES, max_size=8))
def test_any_text_is_samples_or_one_data_error(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("set")
    pair(folder, "dogs/1.jpg", "a dog")
    file = configuration(folder, "".join(parts))
    recognises(str(file))
    try:
        samples = samples_of(file)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert {sample.id for sample in samples} == {"dogs/1.jpg"}


def test_one_beside_folders_of_pictures_is_told(tmp_path: Path) -> None:
    pair(tmp_path, "dogs/a.jpg", "a dog")
    configuration(tmp_path, subsets({"image_dir": "dogs", "caption_prefix": "see:"}))
    rejects = Rejects()
    splits = read_splits(str(tmp_path), rejects)
    assert [sample.captions for sample in splits["all"]] == [("a dog",)]
    assert [(line["id"], line["problem"]) for line in rejects.remarks] == [("dataset.toml", "unread")]
