"""CSV and TSV: separators, quotes, headers, splits, and tables of web addresses with pictures that were downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.options import BY_LOOKING, ReadOptions
from captrain.data.readers import detect
from captrain.data.readers.csv_table import read, recognises
from captrain.errors import DataError
from captrain.records import Rejects


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"jpeg")


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def captions(path: Path, options: ReadOptions = BY_LOOKING) -> dict[str, tuple[str, ...]]:
    return {s.id: s.captions for samples in read(str(path), Rejects(), options).values() for s in samples}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_separators_line_ends_and_a_byte_order_mark(tmp_path: Path, delimiter: str, end: str, mark: str) -> None:
    images(tmp_path, "a b.jpg", "é.jpg")
    rows = [
        ("File_Name", " text"),
        ("a b.jpg", '"one, two; ""three"""'),
        ("é.jpg", '"over two\nlines"'),
        ("é.jpg", "猫"),
    ]
    text = mark + end.join(delimiter.join(row) for row in rows) + end
    expected = {"a b.jpg": ('one, two; "three"',), "é.jpg": ("over two\nlines", "猫")}
    assert captions(write(tmp_path / "t.csv", text)) == expected


def test_other_columns_a_split_and_a_list_in_a_cell(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg")
    text = 'id,image,caption,split\n1,a.jpg,"[""one"", ""two""]",train\n2,b.jpg,[sic] three,val\n\n'
    splits = read(str(write(tmp_path / "metadata.csv", text)), Rejects())
    assert {split: [s.captions for s in samples] for split, samples in splits.items()} == {
        "train": [("one", "two")],
        "validation": [("[sic] three",)],
    }


def test_a_file_a_split(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg")
    write(tmp_path / "train.csv", "filepath,title\na.jpg,x\n")
    write(tmp_path / "val.tsv", "filepath\ttitle\nb.jpg\ty\n")
    assert detect(str(tmp_path)) == "csv"
    assert {split: [s.id for s in part] for split, part in read(str(tmp_path), Rejects()).items()} == {
        "train": ["a.jpg"],
        "validation": ["b.jpg"],
    }


def test_a_folder_whose_table_is_in_another_encoding(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg")
    write(tmp_path / "words.csv", "file_name,text\na.jpg,猫が寝ている\n".encode("cp932"))
    options = ReadOptions(encoding="cp932")
    assert detect(str(tmp_path), options) == "csv"
    assert captions(tmp_path, options) == {"a.jpg": ("猫が寝ている",)}


def test_a_folder_of_pictures_with_a_table_of_numbers_is_not_one(tmp_path: Path) -> None:
    write(tmp_path / "scores.csv", "epoch,loss\n1,2\n")
    assert not recognises(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_nam,text\na.jpg,x\n", r"t\.csv:1: no file name \(columns: file_nam, text\).*Did you mean 'file_name'"),
        ("image,words\na.jpg,x\n", r"no column of captions \(columns: image, words\)"),
        ("image,text\na.jpg,x,y\n", r"t\.csv:2 is a row of 3 cells, expected 2"),
        ("image,text\na.jpg\n", "1 cells, expected 2"),
        ("image,text\n../a.jpg,x\n", "leaves the folder"),
        (b"image,text\ncaf\xe9.jpg,x\n", "not UTF-8"),
        (b"\xff\xfei\x00m", "not UTF-16"),
        ("image,text,split\na.jpg,x,trian\n", "Did you mean 'train'"),
        ("image,text\n", r"nothing to use \(no rows\)"),
        ("", "no file name"),
        ("image,text\na.jpg,\n", r"nothing to use \(1 rejected: .*has no caption\)"),
        ("image,text\na.jpg,nan\n", r"nothing to use \(1 rejected: .*has no caption, only 'nan'\)"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    images(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=message) as raised:
        read(str(write(tmp_path / "t.csv", text)), Rejects())
    assert "\n" not in str(raised.value)


def test_given_columns(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg")
    table = write(tmp_path / "t.csv", "photo,text,legend\na.jpg,no,yes\n")
    assert captions(table, ReadOptions(image_column="photo", caption_column="legend")) == {"a.jpg": ("yes",)}
    with pytest.raises(DataError, match=r"no column 'foto'.*it has photo, text, legend\. Did you mean 'photo'"):
        captions(table, ReadOptions(image_column="foto"))


URLS = "a dog\thttps://a.org/1/dog.jpg?w=9\na cat\thttp://b.org/my%20cat.png\n"


def test_conceptual_captions_by_the_end_of_the_address(tmp_path: Path) -> None:
    images(tmp_path, "pictures/dog.jpg", "pictures/my cat.png")
    table = write(tmp_path / "Train_GCC-training.tsv", URLS + "another\thttp://c.org/gone.jpg\n")
    rejects = Rejects()
    (samples,) = read(str(table), rejects, ReadOptions(image_root=tmp_path / "pictures")).values()
    assert {sample.id: sample.captions for sample in samples} == {"dog.jpg": ("a dog",), "my cat.png": ("a cat",)}
    assert [(line["id"], line["where"]) for line in rejects.lines] == [("gone.jpg", f"{table}:3")]


def test_addresses_that_end_alike_are_never_mixed_up(tmp_path: Path) -> None:
    images(tmp_path, "dog.jpg", "my cat.png")
    table = write(tmp_path / "t.tsv", URLS + "other\thttp://c.org/dog.jpg\n")
    rejects = Rejects()
    (samples,) = read(str(table), rejects).values()
    assert [sample.id for sample in samples] == ["my cat.png"]
    assert [line["reason"].split(";")[0] for line in rejects.lines] == ["several addresses end in the same name"] * 2


@pytest.mark.parametrize("name", ["t.map.tsv", "map.tsv", "map.json", "pictures/map.tsv"])
def test_a_map_says_which_file_is_from_which_address(tmp_path: Path, name: str) -> None:
    images(tmp_path, "pictures/000.jpg", "pictures/001.jpg")
    pairs = {"https://a.org/1/dog.jpg?w=9": "000.jpg", "http://c.org/dog.jpg": "001.jpg"}
    lines = "".join(f"{url}\t{file}\n" for url, file in pairs.items())
    write(tmp_path / name, json.dumps(pairs) if name.endswith("json") else lines)
    table = write(tmp_path / "t.tsv", URLS + "other\thttp://c.org/dog.jpg\n")
    rejects = Rejects()
    (samples,) = read(str(table), rejects, ReadOptions(image_root=tmp_path / "pictures")).values()
    assert {sample.id: sample.captions for sample in samples} == {"000.jpg": ("a dog",), "001.jpg": ("other",)}
    assert [line["id"] for line in rejects.lines] == ["http://b.org/my%20cat.png"]
    assert recognises(str(tmp_path))


def test_a_map_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "set/map.tsv", "https://a.org/1/dog.jpg?w=9\t../secret.jpg\n")
    with pytest.raises(DataError, match="leaves the folder"):
        read(str(write(tmp_path / "set/t.tsv", URLS)), Rejects())


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 5}', b"\xff"])
def test_a_broken_map_is_one_line(tmp_path: Path, text: str | bytes) -> None:
    write(tmp_path / "map.json", text)
    with pytest.raises(DataError, match=r"map\.json: "):
        read(str(write(tmp_path / "t.tsv", URLS)), Rejects())


FRAGMENTS = st.sampled_from(
    ["image,text\n", "a.jpg", ",", '"', "\n", "\r", "\t", ";", "x", "\0", "http://a.org/a.jpg", "é"]
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.binary(max_size=40) | st.lists(FRAGMENTS, max_size=12).map(lambda parts: "".join(parts).encode()))
def test_any_bytes_are_samples_or_one_data_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("set")
    images(folder, "a.jpg")
    table = write(folder / "t.csv", data)
    recognises(str(folder))
    try:
        splits = read(str(table), Rejects())
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert [sample.id for sample in splits["all"]] == ["a.jpg"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-8"])
@pytest.mark.parametrize("asked", ["", "cp932"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, encoding: str, asked: str) -> None:
    images(tmp_path, "a.jpg")
    write(tmp_path / "t.tsv", "\ufeffimage\tcaption\na.jpg\tein Hund läuft\n".encode(encoding))
    for source in (tmp_path, tmp_path / "t.tsv"):
        assert captions(source, ReadOptions(encoding=asked)) == {"a.jpg": ("ein Hund läuft",)}


def test_a_table_in_another_encoding_is_found_and_named(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg")
    write(tmp_path / "t.csv", "画像,caption\na.jpg,犬\n".encode("cp932"))
    options = ReadOptions(encoding="cp932", image_column="画像")
    assert detect(str(tmp_path), options) == "csv" and captions(tmp_path, options) == {"a.jpg": ("犬",)}
    write(tmp_path / "t.csv", "image,caption\na.jpg,日本\n".encode("cp932"))
    assert detect(str(tmp_path)) == "csv"
    with pytest.raises(DataError, match=r"t\.csv: not UTF-8 .*--encoding"):
        captions(tmp_path)
