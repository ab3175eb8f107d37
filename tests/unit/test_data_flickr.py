"""Flickr8k and Flickr30k as they are handed out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.dataset import list_images
from captrain.data.options import ReadOptions
from captrain.data.readers import detect
from captrain.data.readers.flickr import read, recognises
from captrain.errors import DataError
from captrain.records import Rejects

COMMAS = (
    'image,caption\n1.jpg,"A dog , a ""big"" one , runs ."\n1.jpg,A dog, unquoted, runs\n2.jpg,"Sit" said the cat .\n'
)
TOKENS = "1.jpg#0\tA dog , runs .\n1.jpg#1\tA dog .\n2.jpg#0\tA cat .\n3.jpg#0\tA bird .\n4.jpg.1#0\tNothing .\n"


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"jpeg")


@pytest.mark.parametrize("place", ["", "Images/", "images/"])
def test_captions_with_commas_quoted_or_not(tmp_path: Path, place: str) -> None:
    images(tmp_path, f"{place}1.jpg", f"{place}2.jpg")
    (tmp_path / "captions.txt").write_text(COMMAS)
    assert detect(str(tmp_path)) == detect(str(tmp_path / "captions.txt")) == "flickr"
    (samples,) = read(str(tmp_path), Rejects()).values()
    assert {sample.id: sample.captions for sample in samples} == {
        f"{place}1.jpg": ('A dog , a "big" one , runs .', "A dog, unquoted, runs"),
        f"{place}2.jpg": ('"Sit" said the cat .',),
    }
    assert [sample.id for sample in list_images([str(tmp_path / "captions.txt")])] == [f"{place}1.jpg", f"{place}2.jpg"]


@pytest.mark.parametrize("texts", ["", "Flickr8k_text/"])
def test_tokens_and_the_lists_of_splits(tmp_path: Path, texts: str) -> None:
    images(tmp_path, *(f"Flicker8k_Dataset/{number}.jpg" for number in (1, 2, 3)))
    (tmp_path / texts).mkdir(exist_ok=True)
    (tmp_path / texts / "Flickr8k.token.txt").write_text(TOKENS)
    for name, image in (("train", "1.jpg"), ("dev", "2.jpg")):
        (tmp_path / texts / f"Flickr_8k.{name}Images.txt").write_text(f"{image}\n")
    rejects = Rejects()
    splits = read(str(tmp_path), rejects)
    assert {split: [(s.id, len(s.captions)) for s in part] for split, part in splits.items()} == {
        "train": [("Flicker8k_Dataset/1.jpg", 2)],
        "validation": [("Flicker8k_Dataset/2.jpg", 1)],
    }
    assert [line["id"] for line in rejects.lines] == ["3.jpg", "4.jpg.1"]


def test_flickr30k_and_an_image_root(tmp_path: Path) -> None:
    images(tmp_path, "elsewhere/1.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/results_20130124.token").write_text("1.jpg#0\tA dog\t.\n")
    (samples,) = read(str(tmp_path / "set"), Rejects(), ReadOptions(image_root=tmp_path / "elsewhere")).values()
    assert [(sample.id, sample.captions, sample.source) for sample in samples] == [
        ("1.jpg", ("A dog\t.",), "results_20130124.token:1")
    ]


def test_a_broken_line_rejects_itself_alone(tmp_path: Path) -> None:
    images(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "captions.txt").write_text("image,caption\n1.jpg,a dog\n2.jpg a cat\n2.jpg,it sleeps\n")
    rejects = Rejects()
    (samples,) = read(str(tmp_path), rejects).values()
    assert [sample.captions for sample in samples] == [("a dog",), ("it sleeps",)]
    assert [line["id"] for line in rejects.lines] == ["captions.txt:3"]


@pytest.mark.parametrize("text", ["a dog on grass\n", "1.jpg\n2.jpg\n", "", "image, a caption of it\n"])
def test_a_caption_or_a_list_of_pictures_is_not_claimed(tmp_path: Path, text: str) -> None:
    images(tmp_path, "captions.jpg")
    (tmp_path / "captions.txt").write_text(text)
    assert not recognises(str(tmp_path))
    assert not recognises(str(tmp_path / "captions.txt"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"image,caption\n1.jpg\n", r"captions\.txt:2 is a row of '1\.jpg', expected name\.jpg,caption"),
        (b"image,caption\n../1.jpg,x\n", "leaves the folder"),
        (b"image,caption\n1.jpg,caf\xe9\n", r"captions\.txt:2: not UTF-8"),
        (b"image,caption\n", r"nothing to use \(no lines\)"),
        (b"image,caption\n9.jpg,x\n", r"names an image that is not there.*--image-root"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: bytes, message: str) -> None:
    images(tmp_path, "1.jpg")
    (tmp_path / "captions.txt").write_bytes(text)
    with pytest.raises(DataError, match=message) as raised:
        read(str(tmp_path), Rejects())
    assert "\n" not in str(raised.value)


FRAGMENTS = st.sampled_from(["image,caption\n", "1.jpg", "#0", "\t", ",", "\n", "\r", "x", '"', "\0", "\ufeff"])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.binary(max_size=40) | st.lists(FRAGMENTS, max_size=10).map(lambda parts: "".join(parts).encode()))
def test_any_bytes_are_samples_or_one_data_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("set")
    images(folder, "1.jpg")
    (folder / "captions.txt").write_bytes(data)
    recognises(str(folder))
    try:
        splits = read(str(folder / "captions.txt"), Rejects())
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert [sample.id for sample in splits["all"]] == ["1.jpg"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp932", "utf-32", "gb18030"])
@pytest.mark.parametrize("text", ["image,caption\n1.jpg,猫が寝ている\n", "1.jpg#0\t猫が寝ている\n"])
def test_other_encodings(tmp_path: Path, encoding: str, text: str) -> None:
    images(tmp_path, "1.jpg")
    mark = "\ufeff" if encoding == "gb18030" else ""  # which Python's codec neither writes nor takes off
    (tmp_path / "captions.txt").write_bytes((mark + text).encode(encoding))
    assert detect(str(tmp_path)) == "flickr"
    (samples,) = read(str(tmp_path), Rejects(), ReadOptions(encoding="cp932")).values()
    assert [(sample.id, sample.captions) for sample in samples] == [("1.jpg", ("猫が寝ている",))]
