"""Lists of names and captions without a header: what is one, in which folders, and that every line comes back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.options import ReadOptions
from captrain.data.readers import detect, headerless
from captrain.errors import DataError
from captrain.records import Rejects


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"jpeg")


def captions(source: Path) -> dict[str, tuple[str, ...]]:
    assert detect(str(source)) == "headerless"
    splits = headerless.read(str(source), Rejects(), ReadOptions())
    return {sample.id: sample.captions for samples in splits.values() for sample in samples}


@pytest.mark.parametrize(
    "lines",
    [
        ["1.jpg\ta dog, a cat", "1.jpg\ttwo", "2.JPG\tthree"],
        ["1.jpg, a dog, a cat", "1.jpg,two", "2.JPG , three"],
        ['1.jpg,"a dog, a cat"', "1.jpg,two", "2.JPG,three"],
        ["1.jpg|a dog, a cat", "1.jpg|two", "2.JPG|three"],
        ["1.jpg| 0| a dog, a cat", "1.jpg| 1| two", "2.JPG| 0| three"],
        ["1.jpg#0,a dog, a cat", "1.jpg#1,two", "2.JPG#0,three"],
        ["a dog, a cat\t1.jpg", "two\t1.jpg", "three\t2.JPG"],
        ["\ufeff1.jpg;a dog, a cat", "", "1.jpg;two", "2.JPG;three"],
    ],
)
@pytest.mark.parametrize("name", ["captions.txt", "captions.csv", "list.tsv", "train.lst"])
def test_every_form(tmp_path: Path, lines: list[str], name: str) -> None:
    images(tmp_path, "1.jpg", "img/2.JPG")
    write(tmp_path / name, "\n".join(lines))
    for source in (tmp_path, tmp_path / name):
        assert captions(source) == {"1.jpg": ("a dog, a cat", "two"), "img/2.JPG": ("three",)}


def test_names_without_endings(tmp_path: Path) -> None:
    images(tmp_path, "img/1.jpg", "img/2.png")
    write(tmp_path / "captions.txt", "1\ta dog\n3\tgone\n4\tgone\n")
    assert not headerless.recognises(str(tmp_path))  # most of the names lead nowhere
    write(tmp_path / "captions.txt", "1\ta dog\n1\ttwo\n2#0\ta cat\n3\tgone\n")
    assert captions(tmp_path) == {"img/1.jpg": ("a dog", "two"), "img/2.png": ("a cat",)}


def test_splits_by_their_names(tmp_path: Path) -> None:
    images(tmp_path, "1.jpg", "2.jpg")
    write(tmp_path / "train.txt", "1.jpg\tone\n")
    write(tmp_path / "val.txt", "2.jpg\ttwo\n")
    assert {name: len(part) for name, part in headerless.read(str(tmp_path), Rejects()).items()} == {
        "train": 1,
        "validation": 1,
    }


def test_a_line_of_another_form_is_rejected_by_its_number(tmp_path: Path) -> None:
    images(tmp_path, "1.jpg", "2.jpg")
    lines = [*["1.jpg\tone"] * 5, "2.jpg", "no name\tno", "3.jpg\tgone", "2.jpg\ttwo"]
    rejects = Rejects()
    (samples,) = headerless.read(str(write(tmp_path / "t.txt", "\n".join(lines))), rejects).values()
    assert [sample.id for sample in samples] == ["1.jpg", "2.jpg"]
    assert [line["where"].rpartition(":")[2] for line in rejects.lines] == ["6", "7", "8"]


@pytest.mark.parametrize(
    "text",
    [
        "1.jpg\n2.jpg\n",
        "1.jpg,2.jpg\n",
        "a dog\n",
        "",
        "\n",
        "a dog\thttp://a.org/1.jpg\n",
        "image,caption\n1.jpg,x\n",
        "1.jpg\t\n",
    ],
)
def test_other_texts_are_no_lists(tmp_path: Path, text: str) -> None:
    assert not headerless.recognises(str(write(tmp_path / "t.txt", text)))
    with pytest.raises(DataError, match="expected"):
        headerless.read(str(tmp_path / "t.txt"), Rejects())


def test_captions_beside_pictures_stay_what_they_are(tmp_path: Path) -> None:
    images(tmp_path, "1.jpg", "2.jpg")
    write(tmp_path / "1.txt", "2.jpg, as seen from behind")
    write(tmp_path / "list.csv", "1.jpg,one\n")
    assert detect(str(tmp_path)) == "sidecar"


WORDS = st.text(st.sampled_from("ab ,;|.\t\"'#0\u732b"), min_size=1, max_size=12).map(str.strip).filter(bool)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(WORDS, min_size=1, max_size=6), mark=st.sampled_from(["\t", ",", "|", ";"]))
def test_every_caption_comes_back(texts: list[str], mark: str) -> None:
    """Whatever separators a caption holds; a number between name and caption in all lines is a count, as Flickr30k has it."""
    texts = [f"a {text}" for text in texts]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images(folder, *(f"{number}.jpg" for number in range(len(texts))))
        write(folder / "t.txt", "".join(f"{number}.jpg{mark}{text}\n" for number, text in enumerate(texts)))
        splits = headerless.read(str(folder / "t.txt"), Rejects())
        assert {sample.id: sample.captions for sample in splits["all"]} == {
            f"{number}.jpg": (text,) for number, text in enumerate(texts)
        }


@pytest.mark.parametrize(
    "lines",
    [
        ["image\tcaption", '1.jpg\t"a dog', "2.jpg\ttwo, three"],
        ["file_name; text", '1.jpg;"a dog', "2.jpg;two, three"],
        ["\ufeffimage_name| comment_number| comment", '1.jpg| 0| "a dog', "2.jpg| 0| two, three"],
    ],
)
def test_names_of_columns_in_a_text_file(tmp_path: Path, lines: list[str]) -> None:
    images(tmp_path, "1.jpg", "img/2.jpg")
    write(tmp_path / "captions.txt", "\n".join(lines))
    for source in (tmp_path, tmp_path / "captions.txt"):
        rejects = Rejects()
        assert captions(source) == {"1.jpg": ('"a dog',), "img/2.jpg": ("two, three",)}
        headerless.read(str(source), rejects, ReadOptions())
        assert not rejects
    write(tmp_path / "captions.txt", "\n".join(lines)).rename(tmp_path / "captions.csv")
    assert not headerless.recognises(str(tmp_path / "captions.csv"))  # a table
