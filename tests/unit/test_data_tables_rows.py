"""Rows of every kind of table: one caption column for all, nothing taught that is no caption, pictures in known folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captrain.data.dataset import read_splits
from captrain.data.options import BY_LOOKING, ReadOptions
from captrain.records import Rejects

Rows = list[dict[str, object]]


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"jpeg")


def as_csv(folder: Path, rows: Rows) -> Path:
    lines = [
        ",".join(rows[0]),
        *(",".join("" if value is None else str(value) for value in row.values()) for row in rows),
    ]
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


def as_jsonl(folder: Path, rows: Rows) -> Path:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def as_json(folder: Path, rows: Rows) -> Path:
    (folder / "metadata.json").write_text(json.dumps(rows))
    return folder


def as_parquet(folder: Path, rows: Rows) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")
    return folder


def as_parquet_inside(folder: Path, rows: Rows) -> Path:
    inside = [{"image": {"bytes": b"jpeg", "path": row["file_name"]}, **row} for row in rows]
    pq.write_table(pa.Table.from_pylist(inside), folder / "metadata.parquet")
    return folder


def as_saved(folder: Path, rows: Rows) -> Path:
    datasets.Dataset.from_list([{"image": {"bytes": b"jpeg"}, **row} for row in rows]).save_to_disk(folder / "saved")
    return folder / "saved"


Write = Callable[[Path, Rows], Path]
WRITE = [as_csv, as_jsonl, as_json, as_parquet, as_parquet_inside, as_saved]


def read(source: Path, options: ReadOptions = BY_LOOKING) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Captions by id, and reasons of rejects by id."""
    rejects = Rejects()
    splits = read_splits(str(source), rejects, options=options)
    found = {sample.id: sample.captions for samples in splits.values() for sample in samples}
    return found, {line["id"]: line["reason"] for line in rejects.lines}


@pytest.mark.parametrize("write", WRITE)
def test_an_empty_caption_takes_no_other_column(tmp_path: Path, write: Write) -> None:
    images(tmp_path, "a.png", "b.png", "c.png")
    rows: Rows = [
        {"file_name": "a.png", "caption": "a dog", "comment": "checked", "title": "IMG_1"},
        {"file_name": "b.png", "caption": "", "comment": "redo this one", "title": "IMG_2"},
        {"file_name": "c.png", "caption": None, "comment": None, "title": "DSC_0042"},
    ]
    found, reasons = read(write(tmp_path, rows))
    assert found == {"a.png": ("a dog",)}
    assert reasons == {"b.png": "has no caption", "c.png": "has no caption"}


@pytest.mark.parametrize("write", [as_jsonl, as_json])
def test_a_missing_caption_takes_no_other_column(tmp_path: Path, write: Write) -> None:
    images(tmp_path, "a.png", "b.png")
    rows: Rows = [
        {"file_name": "b.png", "title": "DSC_0042"},
        {"file_name": "a.png", "text": "a dog", "title": "IMG_1"},
    ]
    assert read(write(tmp_path, rows)) == ({"a.png": ("a dog",)}, {"b.png": "has no caption"})


@pytest.mark.parametrize("write", WRITE)
def test_nothing_is_taught_that_is_no_caption(tmp_path: Path, write: Write) -> None:
    texts = ["a dog", "nan", "None", "3.5", "['a cat' 'it sleeps']"]
    images(tmp_path, *(f"{number}.png" for number in range(len(texts))))
    found, reasons = read(write(tmp_path, [{"file_name": f"{n}.png", "text": text} for n, text in enumerate(texts)]))
    assert found == {"0.png": ("a dog",), "4.png": ("a cat", "it sleeps")}
    assert reasons == {f"{n}.png": f"has no caption, only '{texts[n]}'" for n in (1, 2, 3)}


@pytest.mark.parametrize("write", WRITE)
def test_numbered_columns_are_several_captions(tmp_path: Path, write: Write) -> None:
    images(tmp_path, "a.png", "b.png")
    rows: Rows = [
        {"file_name": "a.png", "caption_1": "the dog", "caption_0": "a dog", "caption_2": ""},
        {"file_name": "b.png", "caption_1": "nan", "caption_0": "a cat", "caption_2": "a pet"},
    ]
    found, reasons = read(write(tmp_path, rows))
    assert found == {"a.png": ("a dog", "the dog"), "b.png": ("a cat", "a pet")}
    assert reasons == {"b.png": "holds 'nan' where a caption belongs; that is left out"}


@pytest.mark.parametrize("write", [as_csv, as_jsonl, as_json, as_parquet, as_parquet_inside])
def test_marked_captions_are_left_out(tmp_path: Path, write: Write) -> None:
    images(tmp_path, "a.png", "b.png")
    rows: Rows = [
        {"file_name": "a.png", "text": "a can", "is_rejected": False},
        {"file_name": "b.png", "text": "Nothing can be seen.", "is_rejected": True},
    ]
    assert read(write(tmp_path, rows)) == ({"a.png": ("a can",)}, {"b.png": "has no caption"})


@pytest.mark.parametrize("large", [False, True])
def test_a_large_table_of_lines_is_held_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setattr("captrain.data.readers.jsonl.MOST_CHECKED", 0 if large else 100)
    images(tmp_path, "Images/a.png", "Images/b.png", "Images/c.png")
    rows: Rows = [{"file_name": "a.png", "text": "x"}, {"file_name": "b.png", "text": "nan"}]
    rows.append({"file_name": "c.png", "text": "['y', 'z']"})
    found, reasons = read(as_jsonl(tmp_path, rows))
    assert found == {"Images/a.png": ("x",), "Images/c.png": ("y", "z")}
    assert reasons == {"Images/b.png": "has no caption, only 'nan'"}


def test_flickr30k_as_kaggle_hands_it_out(tmp_path: Path) -> None:
    images(tmp_path, "flickr30k_images/1.jpg", "flickr30k_images/2.jpg")
    text = (
        "image_name| comment_number| comment\n1.jpg| 0| Two people .\n1.jpg| 1| They talk .\n2.jpg| 3| A dog , fast .\n"
    )
    (tmp_path / "results.csv").write_text(text + "2.jpg| 4   A broken row .\n")
    found, reasons = read(tmp_path)
    assert found == {
        "flickr30k_images/1.jpg": ("Two people .", "They talk ."),
        "flickr30k_images/2.jpg": ("A dog , fast .",),
    }
    expected = "is a row of 2 cells, expected 3 (image_name, comment_number, comment)"
    assert reasons == {"results.csv:5": expected}


@pytest.mark.parametrize("value", [None, 7, 1.5, float("nan"), True, "nan"])
def test_files_of_objects_are_held_to_the_same(tmp_path: Path, value: object) -> None:
    images(tmp_path, "a.png", "b.png")
    files = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    annotations = [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": value}]
    coco = {"images": files, "annotations": annotations}
    karpathy = [{"filename": name, "sentences": [{"raw": raw}]} for name, raw in (("a.png", "a dog"), ("b.png", value))]
    for content in (coco, {"images": karpathy}):
        (tmp_path / "data.json").write_text(json.dumps(content))
        found, reasons = read(tmp_path)
        assert found == {"a.png": ("a dog",)}
        assert list(reasons) == ["b.png"]
        assert reasons["b.png"].startswith("has no caption, only '")
