"""Compiling: tables that `datasets` loads, whatever folders and pictures are called."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from PIL import Image

from captrain.data.dataset import load_splits
from captrain.data.imagefolder import Compilation, compile_captions
from captrain.errors import DataError, SettingsError

pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def write(folder: Path, captions: dict[str, str]) -> Path:
    for name, caption in captions.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(path)
        path.with_suffix(".txt").write_text(caption)
    return folder


def rows(table: Path) -> list[dict]:
    return [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]


def run(call: str) -> dict:
    """What the call that is printed loads."""
    from datasets import load_dataset

    return eval(call, {"load_dataset": load_dataset})  # the text is our own


def test_pairs_become_a_table_beside_them(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", {"a.jpg": "a dog", "deep/b.png": "a cat"})
    done = compile_captions(photos)
    assert done == Compilation(
        2, [photos / "metadata.jsonl"], f"load_dataset('imagefolder', data_dir={str(photos)!r})", 0, None
    )
    assert rows(photos / "metadata.jsonl") == [
        {"file_name": "a.jpg", "text": "a dog"},
        {"file_name": "deep/b.png", "text": "a cat"},
    ]
    assert len(load_splits(str(photos)).train) == 1
    assert run(done.loads)["train"][1]["text"] == "a cat"


def test_several_captions_are_a_column_beside_the_first(tmp_path: Path) -> None:
    photos = write(tmp_path, {"a.jpg": "a dog\nit runs", "b.jpg": "a cat"})
    done = compile_captions(photos)
    assert rows(photos / "metadata.jsonl") == [
        {"file_name": "a.jpg", "text": "a dog", "captions": ["a dog", "it runs"]},
        {"file_name": "b.jpg", "text": "a cat", "captions": ["a cat"]},
    ]
    assert run(done.loads)["train"]["captions"] == [["a dog", "it runs"], ["a cat"]]


def test_kohya_folders_whose_repeats_are_said_to_be_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos = write(tmp_path, {"10_dogs/1.jpg": "a dog", "1_cats/1.jpg": "a cat"})
    compile_captions(photos)
    assert {row["file_name"]: row["text"] for row in rows(photos / "metadata.jsonl")} == {
        "1_cats/1.jpg": "a cat",
        "10_dogs/1.jpg": "a dog",
    }
    assert f"{photos}: repeats of 1 images are not kept" in caplog.messages


def test_a_folder_above_leads_down_to_the_images(tmp_path: Path) -> None:
    write(tmp_path / "photos", {"a.jpg": "a dog"})
    done = compile_captions(tmp_path / "photos", tmp_path)
    assert rows(tmp_path / "metadata.jsonl") == [{"file_name": "photos/a.jpg", "text": "a dog"}]
    assert run(done.loads)["train"][0]["image"].size == (8, 8)


def test_another_folder_gets_links(tmp_path: Path) -> None:
    write(tmp_path / "photos", {"x/a.jpg": "a dog"})
    done = compile_captions(tmp_path / "photos", tmp_path / "out")
    assert (tmp_path / "out/x/a.jpg").samefile(tmp_path / "photos/x/a.jpg")
    assert done.tables == [tmp_path / "out/metadata.jsonl"]
    assert run(done.loads)["train"][0]["text"] == "a dog"
    with pytest.raises(DataError, match="--overwrite"):
        compile_captions(tmp_path / "photos", tmp_path / "out")
    with pytest.raises(DataError, match="choose a folder outside"):
        compile_captions(tmp_path / "photos", tmp_path / "photos/inner")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_splits_have_tables_of_their_own(tmp_path: Path, elsewhere: bool) -> None:
    photos = write(tmp_path / "photos", {"train/a.jpg": "x\ny", "train/b.jpg": "z", "val/a.jpg": "w"})
    out = tmp_path / "out" if elsewhere else photos
    done = compile_captions(photos, out)
    assert sorted(done.tables) == [out / "train/metadata.jsonl", out / "val/metadata.jsonl"]
    assert {split: len(part) for split, part in run(done.loads).items()} == {"train": 2, "validation": 1}
    assert {name: len(getattr(load_splits(str(out)), name)) for name in ("train", "validation")} == {
        "train": 2,
        "validation": 1,
    }


def test_a_name_that_looks_like_a_split_is_loaded_by_its_table(tmp_path: Path) -> None:
    photos = write(tmp_path, {"my test.jpg": "a dog", "b.jpg": "a cat"})
    done = compile_captions(photos)
    assert done.loads == f"load_dataset('imagefolder', data_files={str(photos / 'metadata.jsonl')!r})"
    assert run(done.loads)["train"].num_rows == 2


def test_a_table_that_is_there_stays_unless_told(tmp_path: Path) -> None:
    photos = write(tmp_path, {"a.jpg": "a dog"})
    compile_captions(photos)
    write(photos, {"b.jpg": "a cat"})
    with pytest.raises(DataError, match="is there already; --overwrite"):
        compile_captions(photos)
    assert len(rows(photos / "metadata.jsonl")) == 1
    assert compile_captions(photos, overwrite=True).rows == 2
    assert sorted(path.name for path in photos.iterdir()) == ["a.jpg", "a.txt", "b.jpg", "b.txt", "metadata.jsonl"]


def test_pictures_without_captions_are_listed(tmp_path: Path) -> None:
    photos = write(tmp_path, {"a.jpg": "a dog", "b.jpg": "a cat"})
    (photos / "b.txt").unlink()
    done = compile_captions(photos)
    assert (done.rows, done.rejected, done.rejects_file) == (1, 1, photos / "rejected.jsonl")
    assert [line["id"] for line in rows(photos / "rejected.jsonl")] == ["b.jpg"]


def test_wrong_use(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", {"a.jpg": "a dog"})
    with pytest.raises(SettingsError, match="data convert"):
        compile_captions(photos, format="coco")
    with pytest.raises(DataError, match="is a file; expected a folder"):
        compile_captions(photos / "a.jpg")
    with pytest.raises(DataError, match="not found"):
        compile_captions(tmp_path / "phots")
