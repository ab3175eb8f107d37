"""What is said when nothing of a data set can be used is made of what was seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from captrain.data.options import ReadOptions
from captrain.data.readers import detect, reader
from captrain.errors import DataError
from captrain.records import Rejects

NAME = "somewhere/p0.jpg"
COCO = {"images": [{"id": 1, "file_name": NAME}], "annotations": [{"image_id": 1, "caption": "a dog"}]}
KARPATHY = {"images": [{"filename": NAME, "sentences": [{"raw": "a dog"}], "split": "train"}]}
TABLES = {
    "metadata.jsonl": json.dumps({"file_name": NAME, "text": "a dog"}),
    "list.json": json.dumps([{"image": NAME, "caption": "a dog"}]),
    "t.csv": f"image,caption\n{NAME},a dog\n",
    "captions.txt": f"image,caption\n{NAME},a dog\n",
    "list.txt": f"{NAME}\ta dog\n",
    "coco.json": json.dumps(COCO),
    "dataset_coco.json": json.dumps(KARPATHY),
}


def error_of(source: Path, root: Path | None = None) -> str:
    with pytest.raises(DataError) as raised:
        reader(detect(str(source))).read(str(source), Rejects(), ReadOptions(image_root=root))
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", TABLES)
def test_the_path_tried_and_the_option_that_helps(tmp_path: Path, name: str) -> None:
    folder, other = tmp_path / "set", tmp_path / "pictures"
    folder.mkdir()
    other.mkdir()
    (folder / name).write_text(TABLES[name])
    (other / "images.rar").touch()
    said = error_of(folder / name)
    assert str(folder / NAME) in said and "--image-root" in said
    given = error_of(folder / name, other)
    assert str(other / NAME) in given and "--image-root" not in given
    assert f"{other / 'images.rar'} lies there; unpack it first (unrar x images.rar)" in given


def test_an_absolute_path_is_named_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,caption\n/home/you/p0.jpg,a dog\n")
    assert "looked for /home/you/p0.jpg" in error_of(tmp_path)


@pytest.mark.parametrize("name", ["metadata.jsonl", "t.csv", "t.json"])
def test_the_columns_where_captions_are_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / "1.jpg").touch()
    row = {"image": "1.jpg", "legend": "a dog", "text": ""}
    text = {
        "metadata.jsonl": json.dumps(row),
        "t.json": json.dumps([row]),
        "t.csv": "image,legend,text\n1.jpg,a dog,\n",
    }
    (tmp_path / name).write_text(text[name])
    said = error_of(tmp_path / name)
    assert "columns: image, legend, text" in said and "--image-root" not in said


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a.zip", "unzip a.zip -d a"),
        ("a.tar.gz", "tar xzf a.tar.gz"),
        ("a.7z", "7z x a.7z"),
        ("a.rar", "unrar x a.rar"),
    ],
)
def test_archives_of_an_empty_folder(tmp_path: Path, name: str, command: str) -> None:
    (tmp_path / name).touch()
    assert f"{name} lies there; unpack it first ({command})" in error_of(tmp_path)


def test_other_data_sets_beside(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "x.arrow").touch()
    assert "x.arrow lies there; is that the data set?" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "command"), [("s.tar.gz", "gunzip -c s.tar.gz > s.tar"), ("s.tgz", "gunzip -c s.tgz > s.tar")]
)
def test_a_compressed_shard_says_how_to_unpack_it(tmp_path: Path, name: str, command: str) -> None:
    (tmp_path / name).touch()
    assert command in error_of(tmp_path / name)


@pytest.mark.parametrize("text", ["pic,legend\n1.jpg,a dog\n", '{"pic": "1.jpg", "legend": "a dog"}\n'])
def test_the_columns_of_a_table_that_names_no_images(tmp_path: Path, text: str) -> None:
    (tmp_path / "1.jpg").touch()
    (tmp_path / ("list.jsonl" if text.startswith("{") else "list.csv")).write_text(text)
    assert "with the columns pic, legend; --image-column and --caption-column say" in error_of(tmp_path)


def test_tables_whose_names_say_no_split_are_named(tmp_path: Path) -> None:
    for name in ("part1", "part2"):
        (tmp_path / f"{name}.jsonl").write_text('{"image": "a.jpg", "caption": "a dog"}\n')
    said = error_of(tmp_path)
    assert "part1.jsonl, part2.jsonl list pictures" in said and "--image-column" not in said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("results.csv", "image_name| comment_number| comment\n1.jpg| 0| a dog\n"),
        ("captions.json", '{"1.jpg": "a dog"}'),
    ],
)
def test_a_table_in_a_folder_below_is_named(tmp_path: Path, name: str, text: str) -> None:
    below = tmp_path / "flickr30k_images"
    (below / "pictures").mkdir(parents=True)
    (below / "pictures" / "1.jpg").write_bytes(b"jpeg")
    (below / name).write_text(text)
    assert f"{below / name} lists pictures; give {below} to read it" in error_of(tmp_path)
