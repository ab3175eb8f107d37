"""Tables of JSON lines: columns, splits, merging, and one clear line for each thing that can be wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.options import ReadOptions
from captrain.data.readers import detect, jsonl
from captrain.data.readers.columns import Columns
from captrain.data.readers.jsonl import read, recognises
from captrain.data.readers.line_index import BLOCK, LARGEST_LINE, has_more_lines, is_plain, parse_row
from captrain.data.samples import key_of, keys_of
from captrain.errors import DataError
from captrain.records import Rejects, Sample
from captrain.tabular.cells import listed_in, says_nothing


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"jpeg")


def row(name: str, *captions: str, **more: Any) -> dict[str, Any]:
    return {"file_name": name, "captions": list(captions), **more}


def ids(path: Path) -> dict[str, list[str]]:
    return {split: [sample.id for sample in samples] for split, samples in read(str(path), Rejects()).items()}


@pytest.mark.parametrize("column", ["file_name", "image", "filename"])
@pytest.mark.parametrize(
    "text", [{"text": "a dog"}, {"caption": "a dog"}, {"captions": ["a dog"]}, {"text": ["a dog"]}]
)
def test_columns_by_their_usual_names(column: str, text: dict[str, Any]) -> None:
    parsed = parse_row(json.dumps({column: "a.jpg", **text}).encode(), "t:1", Columns())
    assert (parsed.image, parsed.captions, parsed.split) == ("a.jpg", ("a dog",), None)


def test_lines_about_one_image_become_one_sample_in_order_of_first_lines(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg")
    table = write(
        tmp_path / "t.jsonl", row("b.jpg", "one"), b"", row("a.jpg", "two"), row("./b.jpg", "three"), row("a.jpg")
    )
    (samples,) = read(str(table), Rejects()).values()
    assert [(sample.id, sample.captions, sample.source) for sample in samples] == [
        ("b.jpg", ("one", "three"), "t.jsonl:1"),
        ("a.jpg", ("two",), "t.jsonl:3"),
    ]
    assert samples[0].image == tmp_path / "b.jpg"


def test_images_may_lie_in_images(tmp_path: Path) -> None:
    images(tmp_path, "images/a.jpg", "b.jpg", "images/b.jpg")
    write(tmp_path / "captions.jsonl", row("a.jpg", "a"), row("b.jpg", "b"))
    assert ids(tmp_path) == {"all": ["images/a.jpg", "b.jpg"]}


def test_windows_and_mac_spellings_of_a_path_are_found(tmp_path: Path) -> None:
    images(tmp_path, "sub/a.jpg", "cafe\u0301.jpg")  # macOS spells é with two code points
    write(tmp_path / "metadata.jsonl", row("sub\\a.jpg", "a"), row("caf\u00e9.jpg", "b"))
    assert ids(tmp_path) == {"all": ["sub/a.jpg", "cafe\u0301.jpg"]}


def test_a_byte_order_mark_and_blank_lines_are_no_trouble(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg")
    for first in (b"\xef\xbb\xbf" + json.dumps(row("a.jpg", "x")).encode(), b"\xef\xbb\xbf"):
        table = write(tmp_path / "t.jsonl", first, b"  ", row("a.jpg", "y"))
        assert read(str(table), Rejects())["all"][0].captions[-1] == "y"


@pytest.mark.parametrize("name", ["dev", "val", "validation", "valid", "Val"])
def test_one_file_a_split(tmp_path: Path, name: str) -> None:
    images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    for stem, image in (("train", "a.jpg"), (name, "b.jpg"), ("test", "c.jpg")):
        write(tmp_path / f"{stem}.jsonl", row(image, "x"))
    write(tmp_path / "notes.jsonl", {"score": 1})
    assert ids(tmp_path) == {"train": ["a.jpg"], "validation": ["b.jpg"], "test": ["c.jpg"]}


def test_a_column_of_splits(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    rows = [row("a.jpg", "x", split="val"), row("b.jpg", "x", split="restval"), row("a.jpg", "y", split="val")]
    write(tmp_path / "metadata.jsonl", *rows)
    assert ids(tmp_path) == {"validation": ["a.jpg"], "train": ["b.jpg"]}
    write(tmp_path / "metadata.jsonl", *rows, row("c.jpg", "x"))
    with pytest.raises(DataError, match="some lines name a split and some don't"):
        ids(tmp_path)
    write(tmp_path / "metadata.jsonl", row("c.jpg", "x", split="trian"))
    with pytest.raises(DataError, match=r"metadata\.jsonl:1: unknown split 'trian'.*Did you mean 'train'"):
        ids(tmp_path)


def test_a_folder_a_split_with_its_own_metadata(tmp_path: Path) -> None:
    for split in ("train", "test"):
        images(tmp_path / split, "a.jpg")
        write(tmp_path / split / "metadata.jsonl", row("a.jpg", split))
    assert detect(str(tmp_path)) == "jsonl"
    assert ids(tmp_path) == {"test": ["test/a.jpg"], "train": ["train/a.jpg"]}
    sample = read(str(tmp_path), Rejects())["test"][0]
    assert (sample.captions, sample.source) == (("test",), "test/metadata.jsonl:1")
    assert sample.read() == b"jpeg"


@pytest.mark.parametrize("names", [("metadata", "train"), ("dev", "val")])
def test_two_tables_for_one_thing_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write(tmp_path / f"{name}.jsonl", row("a.jpg", "x"))
    with pytest.raises(DataError, match=rf"{names[0]}\.jsonl and {names[1]}\.jsonl"):
        read(str(tmp_path), Rejects())
    assert recognises(str(tmp_path))


def test_a_folder_of_pictures_with_scores_in_it_is_not_a_table(tmp_path: Path) -> None:
    write(tmp_path / "scores.jsonl", {"score": 1})
    assert not recognises(str(tmp_path))
    assert detect(str(tmp_path)) == "sidecar"


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "..", "..\\secret.jpg"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "set"
    images(tmp_path, "secret.jpg")
    images(folder, "a.jpg")
    table = write(folder / "t.jsonl", row("a.jpg", "x"), row(name, "x"))
    with pytest.raises(DataError, match=r"t\.jsonl:2: .* leaves the folder"):
        read(str(table), Rejects())


@pytest.mark.skipif(os.name == "nt", reason="Windows makes symbolic links for administrators only")
def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    images(tmp_path, "elsewhere/secret.jpg")
    images(folder, "a.jpg")
    (folder / "file.jpg").symlink_to(tmp_path / "elsewhere/secret.jpg")
    (folder / "folder").symlink_to(tmp_path / "elsewhere")
    (folder / "inside.jpg").symlink_to("a.jpg")
    for name in ("file.jpg", "folder/secret.jpg"):
        table = write(folder / "t.jsonl", row(name, "x"))
        with pytest.raises(DataError, match=r"t\.jsonl:1: .* leaves the folder"):
            read(str(table), Rejects())
    assert ids(write(folder / "t.jsonl", row("inside.jpg", "x"))) == {"all": ["inside.jpg"]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"file_name": "a.jpg", ', "not valid JSON"),
        (b'["a.jpg"]', "found a JSON list"),
        (b'{"file_name": "caf\xe9.jpg"}', "not UTF-8"),
        (b'{"file_nam": "a.jpg"}', r"no file name \(columns: file_nam\).*Did you mean 'file_name'"),
        (b"{}", r"no file name \(columns: none\)"),
        (b'{"file_name": 5}', "no file name"),
        (b'{"file_name": "a.jpg", "captions": {"raw": "x"}}', "found a dict in 'captions'"),
        (b'{"file_name": "a.jpg", "captions": ["x", {}]}', "found a dict in 'captions'"),
        (b'{"file_name": "a.jpg", "text": "x", "split": 3}', "unknown split '3'"),
        (b"[" * 100_000, "not valid JSON"),
        (b"x" * LARGEST_LINE, "bytes long"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    images(tmp_path, "a.jpg")
    table = write(tmp_path / "t.jsonl", row("a.jpg", "x"), line)
    with pytest.raises(DataError, match=rf"t\.jsonl:2: .*{message}") as raised:
        read(str(table), Rejects())
    assert "\n" not in str(raised.value)


def test_missing_and_uncaptioned_images_are_rejected_once_each(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg")
    gone, bare = row("gone.jpg", "x"), row("b.jpg", " ")
    table = write(
        tmp_path / "t.jsonl", row("a.jpg", "x"), gone, gone, bare, bare, {"file_name": "nul\0.jpg", "text": "x"}
    )
    rejects = Rejects()
    (samples,) = read(str(table), rejects).values()
    assert len(samples) == 1
    assert [(line["id"], line["where"].rsplit(":", 1)[1], line["reason"]) for line in rejects.lines] == [
        ("gone.jpg", "2", "names an image that is not there"),
        ("nul\0.jpg", "6", "names an image that is not there"),
        ("b.jpg", "4", "has no caption"),
    ]


def test_half_a_surrogate_pair_can_be_written_again(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg")
    table = write(
        tmp_path / "t.jsonl", b'{"file_name": "a.jpg", "text": "sun \\ud83d"}', b'{"file_name": "\\udcff", "text": "x"}'
    )
    rejects = Rejects()
    assert read(str(table), rejects)["all"][0].captions == ("sun ?",)
    json.dumps(rejects.lines, ensure_ascii=False).encode("utf-8")


def test_an_image_that_has_gone_since_is_named(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg")
    samples = read(str(write(tmp_path / "t.jsonl", row("a.jpg", "x"))), Rejects())["all"]
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"t\.jsonl:1: 'a\.jpg' has gone"):
        samples[0]


def test_an_empty_table_says_so(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").touch()
    with pytest.raises(DataError, match=r"nothing to use \(no rows\)"):
        read(str(tmp_path), Rejects())


def test_an_image_root_and_absolute_names_below_it(tmp_path: Path) -> None:
    images(tmp_path, "pictures/a.jpg", "pictures/sub/b.jpg")
    table = write(tmp_path / "t.jsonl", row("a.jpg", "x"), row(str(tmp_path / "pictures/sub/b.jpg"), "y"))
    (samples,) = read(str(table), Rejects(), ReadOptions(image_root=tmp_path / "pictures")).values()
    assert [(sample.id, sample.read()) for sample in samples] == [("a.jpg", b"jpeg"), ("sub/b.jpg", b"jpeg")]
    with pytest.raises(DataError, match="leaves the folder"):
        read(
            str(write(tmp_path / "u.jsonl", row("../t.jsonl", "x"))),
            Rejects(),
            ReadOptions(image_root=tmp_path / "pictures"),
        )
    with pytest.raises(DataError, match="not a folder; expected --image-root"):
        read(str(table), Rejects(), ReadOptions(image_root=table))


def test_given_columns_may_be_nested(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg")
    rows = {"photo": {"name": "a.jpg"}, "sentences": [{"raw": "one"}, {"raw": "two"}], "text": "no"}
    table = write(tmp_path / "t.jsonl", rows)
    options = ReadOptions(image_column="photo.name", caption_column="sentences/raw")
    assert read(str(table), Rejects(), options)["all"][0].captions == ("one", "two")


@pytest.mark.parametrize("option", ["image_column", "caption_column"])
def test_an_unknown_given_column_is_named_with_the_nearest(tmp_path: Path, option: str) -> None:
    table = write(tmp_path / "t.jsonl", {"picture": "a.jpg", "legend": "x"})
    with pytest.raises(
        DataError, match=r"t\.jsonl:1: no column 'legnd'.* it has picture, legend\. Did you mean 'legend'"
    ):
        read(str(table), Rejects(), ReadOptions(**{option: "legnd"}))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of more than three lines are large."""
    monkeypatch.setattr(jsonl, "MOST_CHECKED", 3)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("folder", ["", "images/"])
def test_a_large_table_is_believed_until_a_picture_is_read(tmp_path: Path, folder: str) -> None:
    images(tmp_path, f"{folder}a.jpg", f"{folder}c.jpg")
    lines = [
        row("a.jpg", "one"),
        row("gone.jpg", "two"),
        row("c.jpg", "three"),
        row("a.jpg", "four"),
        row("./c.jpg", "five"),
    ]
    rejects = Rejects()
    (samples,) = read(str(write(tmp_path / "t.jsonl", *lines)), rejects).values()
    assert [(sample.id, sample.captions) for sample in samples] == [
        (f"{folder}a.jpg", ("one", "four")),
        (f"{folder}gone.jpg", ("two",)),
        (f"{folder}c.jpg", ("three", "five")),
    ]
    assert keys_of(samples).tolist() == [key_of(sample.id) for sample in samples]
    assert samples[0].read() == b"jpeg"
    with pytest.raises(FileNotFoundError):
        samples[1].read()
    assert len(rejects) == 0


@pytest.mark.usefixtures("large")
def test_a_link_out_of_a_large_table_is_an_unreadable_picture(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    images(tmp_path, "secret.jpg")
    images(folder, "a.jpg")
    (folder / "b.jpg").symlink_to(tmp_path / "secret.jpg")
    (samples,) = read(str(write(folder / "t.jsonl", *(row(f"{name}.jpg", "x") for name in "abcd"))), Rejects()).values()
    with pytest.raises(OSError, match="leaves the folder"):
        samples[1].read()


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"file_name": "a.jpg", "captions": ["x"]} {', "not valid JSON"),
        (b'{"file_name": "../a.jpg", "captions": ["x"]}', "leaves the folder"),
        (b'{"file_name": "/etc/passwd", "captions": ["x"]}', "leaves the folder"),
        (b'{"file_name": "a.jpg", "captions": [["x"]]}', "found a list"),
        (b'{"file_name": "", "captions": ["x"]}', "no file name"),
    ],
)
def test_a_broken_line_of_a_large_table_is_named_at_once(tmp_path: Path, line: bytes, message: str) -> None:
    images(tmp_path, "a.jpg")
    table = write(tmp_path / "t.jsonl", *[row("a.jpg", "x")] * 5, line)
    with pytest.raises(DataError, match=rf"t\.jsonl:6: .*{message}"):
        read(str(table), Rejects())


def test_lines_over_the_ends_of_blocks_are_found_again(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    long = "x" * (BLOCK - 40)
    table = write(
        tmp_path / "t.jsonl",
        row("a.jpg", "one", note=long), b"", row("b.jpg", "two"), row("c.jpg", "three", note=long), row("a.jpg", "é"),
    )  # fmt: skip
    (samples,) = read(str(table), Rejects()).values()
    assert [sample.captions for sample in samples] == [("one", "é"), ("two",), ("three",)]
    assert has_more_lines(table, 4)
    assert not has_more_lines(table, 5)


NAMES = st.text(st.sampled_from("ab./\\:é\ud800\0\n "), max_size=6)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(name=NAMES)
def test_a_plain_name_can_not_leave_a_folder(name: str) -> None:
    if is_plain(name):
        assert os.path.normpath(name) == name
        assert not os.path.isabs(name)
        assert not name.startswith("..")


def found(folder: Path) -> Any:
    rejects = Rejects()
    try:
        splits = read(str(folder / "t.jsonl"), rejects)
    except DataError as error:
        return str(error)
    keyed: dict[str, list[Sample]] = {split: list(samples) for split, samples in splits.items()}
    return [(split, s.id, s.captions, s.source) for split, samples in keyed.items() for s in samples], rejects.lines


ROWS = st.fixed_dictionaries(
    {
        "file_name": st.sampled_from(["a.jpg", "b.jpg", "./a.jpg", "sub/c.jpg"]),
        "text": st.sampled_from(["x", " ", "y "]),
    },
    optional={"split": st.sampled_from(["train", "val"]), "captions": st.lists(st.sampled_from(["z", ""]), max_size=2)},
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(lines=st.lists(ROWS, min_size=1, max_size=6))
def test_large_and_small_tables_are_read_alike_where_nothing_is_missing(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("set")
    images(folder, "a.jpg", "b.jpg", "sub/c.jpg")
    write(folder / "t.jsonl", *lines)
    small = found(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "MOST_CHECKED", 0)
        assert found(folder) == small


TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(
    lambda text: not text.strip() or (not says_nothing(text) and listed_in(text) is None)
)
CAPTIONS = st.lists(TEXTS, max_size=3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lines=st.lists(st.tuples(st.sampled_from("abcd"), CAPTIONS), min_size=1, max_size=12), ascii=st.booleans())
def test_no_caption_is_lost_or_mixed_up(tmp_path_factory: pytest.TempPathFactory, lines: Any, ascii: bool) -> None:
    folder = tmp_path_factory.mktemp("set")
    images(folder, *(f"{name}.jpg" for name in "abcd"))
    text = "".join(json.dumps(row(f"{name}.jpg", *captions), ensure_ascii=ascii) + "\n" for name, captions in lines)
    (folder / "t.jsonl").write_bytes(text.encode("utf-8"))
    expected: dict[str, list[str]] = {}
    for name, captions in lines:
        expected.setdefault(f"{name}.jpg", []).extend(caption.strip() for caption in captions if caption.strip())
    rejects = Rejects()
    try:
        found = {s.id: list(s.captions) for samples in read(str(folder / "t.jsonl"), rejects).values() for s in samples}
    except DataError:
        found = {}
    assert found == {name: captions for name, captions in expected.items() if captions}
    assert {line["id"] for line in rejects.lines} == {name for name, captions in expected.items() if not captions}


SCALARS = st.none() | st.booleans() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda part: st.lists(part, max_size=3), max_leaves=5)
OBJECTS = st.dictionaries(st.sampled_from(["image", "text", "captions", "split"]), VALUES)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(line=st.binary(max_size=60) | OBJECTS.map(lambda values: json.dumps(values).encode()))
def test_any_line_is_a_row_or_one_data_error(line: bytes) -> None:
    try:
        parsed = parse_row(line, "t.jsonl:7", Columns())
    except DataError as error:
        assert str(error).startswith("t.jsonl:7: ")
    else:
        assert parsed.image
        assert all(caption == caption.strip() and caption for caption in parsed.captions)
