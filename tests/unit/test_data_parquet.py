"""Parquet: pictures inside or named, splits by file names, and what is read when."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data import parquet_pages
from captrain.data.options import BY_LOOKING, ReadOptions
from captrain.data.readers import embedded
from captrain.data.readers.parquet import read, recognises
from captrain.data.samples import key_of, keys_of
from captrain.errors import DataError
from captrain.records import Rejects, Sample

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, image: Any, texts: list[Any], group: int = 2, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": image, "text": texts, **more}
    pq.write_table(pa.table({name: column for name, column in columns.items() if column is not None}), path, group)
    return path


def inside(*pictures: tuple[bytes | None, str | None]) -> Any:
    return pa.array([{"bytes": data, "path": path} for data, path in pictures], STRUCT)


def only(source: Path, options: ReadOptions = BY_LOOKING, **more: bool) -> list[Sample]:
    (samples,) = read(str(source), Rejects(), options, **more).values()
    return list(samples)


def test_pictures_as_bytes_have_ids_by_their_rows(tmp_path: Path) -> None:
    file = write(tmp_path / "train.parquet", pa.array([b"1", b"2", b"3"]), ["one", "two", "three "])
    samples = only(file)
    assert [(s.id, s.read(), s.captions, s.source) for s in samples] == [
        ("train/1", b"1", ("one",), "train.parquet:1"),
        ("train/2", b"2", ("two",), "train.parquet:2"),
        ("train/3", b"3", ("three",), "train.parquet:3"),
    ]


def test_names_that_come_again_are_numbered_and_never_merged(tmp_path: Path) -> None:
    write(
        tmp_path / "train-00000-of-00002.parquet", inside((b"1", "a.jpg"), (b"2", None), (b"3", "a.jpg")), list("xyz")
    )
    write(tmp_path / "train-00001-of-00002.parquet", inside((b"4", "a.jpg")), ["w"])
    write(tmp_path / "validation-00000-of-00001.parquet", inside((b"5", "b.jpg")), ["v"])
    splits = read(str(tmp_path), Rejects())
    assert {split: [(s.id, s.read()) for s in part] for split, part in splits.items()} == {
        "train": [("a.jpg", b"1"), ("train-00000-of-00002/2", b"2"), ("a.jpg#2", b"3"), ("a.jpg#3", b"4")],
        "validation": [("b.jpg", b"5")],
    }
    assert keys_of(splits["train"]).tolist() == [key_of(sample.id) for sample in splits["train"]]
    assert pickle.loads(pickle.dumps(splits["train"][3])).read() == b"4"


@pytest.mark.parametrize("image", [pa.array(["a.jpg", "b.jpg", "a.jpg"]), inside(*((None, f"{n}.jpg") for n in "aba"))])
def test_named_pictures_are_merged(tmp_path: Path, image: Any) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    samples = only(write(tmp_path / "t.parquet", image, ["one", "two", "three"]))
    assert [(s.id, s.read(), s.captions) for s in samples] == [
        ("a.jpg", b"a.jpg", ("one", "three")),
        ("b.jpg", b"b.jpg", ("two",)),
    ]


def test_lists_of_captions_splits_and_nested_columns(tmp_path: Path) -> None:
    rows = [{"caption": "one"}, {"caption": "two"}]
    file = write(tmp_path / "t.parquet", inside((b"1", "a"), (b"2", "b")), None, json=rows, split=["train", "val"])  # type: ignore[arg-type]
    splits = read(str(file), Rejects(), ReadOptions(caption_column="json/caption"))
    assert {split: [s.captions for s in part] for split, part in splits.items()} == {
        "train": [("one",)],
        "validation": [("two",)],
    }
    file = write(tmp_path / "u.parquet", inside((b"1", "a")), [["one", "two"]])
    assert only(file)[0].captions == ("one", "two")


def test_pictures_are_read_only_when_asked_for_and_a_group_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "t.parquet", inside(*((b"%d" % n, f"{n}.jpg") for n in range(6))), list("abcdef"))
    groups: list[int] = []
    real = embedded._Reading
    monkeypatch.setattr(embedded, "_Reading", lambda *place: groups.append(place[2]) or real(*place))
    samples = read(str(file), Rejects())["all"]
    assert groups == []
    assert [samples[place].read() for place in (4, 5, 0, 1)] == [b"4", b"5", b"0", b"1"]
    assert groups == [2, 0]


def test_what_cannot_be_used(tmp_path: Path) -> None:
    rejects = Rejects()
    file = write(tmp_path / "t.parquet", inside((b"1", "a.jpg"), (None, "b.jpg"), (b"3", "c.jpg")), ["x", "y", " "])
    (samples,) = read(str(file), rejects).values()
    assert [(line["id"], line["reason"]) for line in rejects.lines] == [("c.jpg", "has no caption")]
    with pytest.raises(OSError, match="row 2 of row group 1 holds no picture"):
        samples[1].read()
    assert len(only(file, captioned=False)) == 3
    file.unlink()
    with pytest.raises(OSError):
        embedded.RowImage(file, "image.bytes", 0, 0).read()


def test_what_is_wrong_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 not really PAR1")
    wordless = write(tmp_path / "wordless.parquet", inside((b"1", "a")), None)  # type: ignore[arg-type]
    blind = write(tmp_path / "blind.parquet", None, ["x"], file_nam=["a.jpg"])
    odd = write(tmp_path / "odd.parquet", inside((b"1", "a")), [5])
    empty = write(tmp_path / "empty.parquet", pa.array([], STRUCT), [])
    messages = {
        broken: "not a Parquet file that can be read",
        wordless: "no column of captions",
        blind: "no file name.*Did you mean 'file_name'",
        odd: r"odd\.parquet:1 has no caption, only '5'",
        empty: r"nothing to use \(no rows\)",
    }
    for file, message in messages.items():
        with pytest.raises(DataError, match=message) as raised:
            read(str(file), Rejects())
        assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match=r"no column 'txt'.*it has image, text\. Did you mean 'text'"):
        only(odd, ReadOptions(caption_column="txt"))
    monkeypatch.setattr(parquet_pages, "LARGEST_GROUP", 1)
    with pytest.raises(DataError, match="smaller row groups"):
        read(str(write(tmp_path / "fine.parquet", inside((b"1" * 10_000, "a")), ["x"])), Rejects())


def test_the_folder_of_a_hub_copy(tmp_path: Path) -> None:
    write(tmp_path / "data/train-00000-of-00001.parquet", inside((b"1", "a")), ["x"])
    assert recognises(str(tmp_path))
    assert [sample.id for sample in read(str(tmp_path), Rejects())["train"]] == ["a"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = write(tmp_path_factory.mktemp("whole") / "t.parquet", inside((b"1", "a"), (b"2", "b")), ["x", "y"])
    return file.read_bytes()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_files_are_samples_or_one_data_error(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("set") / "t.parquet"
    file.write_bytes(damaged[: data.draw(st.sampled_from([len(whole), len(whole) // 2]))])
    try:
        samples = only(file)
    except DataError as error:
        assert "\n" not in str(error)
        return
    except ValueError:  # two splits, or none: `only` unpacks one
        return
    for sample in samples:
        try:
            sample.read()
        except OSError:
            continue
