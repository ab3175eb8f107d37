"""Data sets of the library `datasets`: saved folders, columns, and what a bad folder may not do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from captrain.data.options import ReadOptions
from captrain.data.readers import detect, hub
from captrain.errors import DataError
from captrain.records import Rejects, Sample

datasets = pytest.importorskip("datasets")
PICTURE = b"not decoded, so anything"


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def table(images: str = "image", texts: str = "caption", values: list[Any] | None = None, **columns: list[Any]) -> Any:
    values = ["one", "two", "three"] if values is None else values
    content = {images: [{"bytes": PICTURE, "path": None}] * len(values), texts: values, **columns}
    return datasets.Dataset.from_dict(content).cast_column(images, datasets.Image())


def read(folder: Path, captioned: bool = True, **options: str) -> tuple[dict[str, list[Sample]], Rejects]:
    rejects = Rejects()
    splits = hub.read(str(folder), rejects, ReadOptions(**options), captioned=captioned)  # type: ignore[arg-type]
    return {name: list(samples) for name, samples in splits.items()}, rejects


def test_splits_of_a_saved_dict(tmp_path: Path) -> None:
    whole = datasets.DatasetDict({"train": table(), "dev": table(values=["a", "b"])})
    whole.save_to_disk(str(tmp_path / "set"))
    assert detect(str(tmp_path / "set")) == "datasets"
    splits, rejects = read(tmp_path / "set")
    assert {name: [sample.id for sample in samples] for name, samples in splits.items()} == {
        "train": ["train/0", "train/1", "train/2"],
        "validation": ["dev/0", "dev/1"],
    }
    assert splits["validation"][1].captions == ("b",)
    assert splits["train"][0].read() == PICTURE
    assert not rejects


def test_rows_without_picture_or_caption_are_rejected(tmp_path: Path) -> None:
    pictures = [{"bytes": PICTURE, "path": None}, None, {"bytes": PICTURE, "path": None}]
    set_ = datasets.Dataset.from_dict(
        {"image": pictures, "text": [["a", "b"], ["c"], [" "]], "file_name": ["x", "y", "z"]}
    )
    set_.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "set"))
    splits, rejects = read(tmp_path / "set")
    assert [(sample.id, sample.captions) for sample in splits["all"]] == [("x", ("a", "b"))]
    assert {line["id"]: line["reason"] for line in rejects.lines} == {"y": "holds no picture", "z": "has no caption"}
    splits, rejects = read(tmp_path / "set", captioned=False)
    assert [sample.id for sample in splits["all"]] == ["x", "z"]


def test_columns_are_named_or_found(tmp_path: Path) -> None:
    set_ = table("scan", "words").add_column("other", ["x", "y", "z"])
    set_.save_to_disk(str(tmp_path / "set"))
    splits, _ = read(tmp_path / "set", caption_column="words")
    assert [sample.captions for sample in splits["all"]] == [("one",), ("two",), ("three",)]
    with pytest.raises(DataError, match="Did you mean 'words'"):
        read(tmp_path / "set", caption_column="word")
    with pytest.raises(DataError, match="nothing to use") as raised:
        read(tmp_path / "set")
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match="no picture column"):
        read(saved(tmp_path / "bare", datasets.Dataset.from_dict({"caption": ["a"]})))


def saved(folder: Path, set_: Any) -> Path:
    set_.save_to_disk(str(folder))
    return folder


def test_ids_that_repeat_or_leave_the_folder_are_not_used(tmp_path: Path) -> None:
    for number, names in enumerate((["a", "a", "b"], ["../a", "b", "c"], ["a", None, "b"])):
        splits, _ = read(saved(tmp_path / str(number), table(file_name=names)))
        assert [sample.id for sample in splits["all"]] == ["0", "1", "2"]
    splits, _ = read(saved(tmp_path / "numbers", table(image_id=[7, 8, 9])))
    assert [sample.id for sample in splits["all"]] == ["7", "8", "9"]


def test_a_caption_that_is_no_text_names_its_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\[0\] has no caption, only '1'"):
        read(saved(tmp_path / "set", table(values=[1, 2])))


def test_a_path_out_of_the_folder_is_never_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"not yours")
    set_ = datasets.Dataset.from_dict({"image": [str(secret), "../secret.jpg", "in.jpg"], "caption": ["a", "b", "c"]})
    folder = saved(tmp_path / "set", set_)
    (folder / "in.jpg").write_bytes(PICTURE)
    splits, _ = read(folder)
    for sample in splits["all"][:2]:
        with pytest.raises(OSError, match="not in the data set"):
            sample.read()
    assert splits["all"][2].read() == PICTURE


@pytest.mark.parametrize("name", ["../other/data-00000-of-00001.arrow", "/etc/passwd", "none.arrow", 3, None])
def test_a_table_out_of_the_folder_is_never_opened(tmp_path: Path, name: object) -> None:
    saved(tmp_path / "other", table())
    folder = saved(tmp_path / "set", table())
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": name}]
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError) as raised:
        read(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("splits", [["../other"], "train", [3]])
def test_splits_out_of_the_folder_are_never_opened(tmp_path: Path, splits: object) -> None:
    saved(tmp_path / "other", table())
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    with pytest.raises(DataError, match=r"expected what save_to_disk writes"):
        read(tmp_path / "set")


@pytest.mark.parametrize("file", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff" * 5000, None])
def test_a_broken_folder_is_one_line(tmp_path: Path, file: str, damage: bytes | None) -> None:
    folder = saved(tmp_path / "set", table())
    path = folder / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if damage is None else damage)
    try:
        splits, _ = read(folder)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert [sample.captions for sample in splits["all"]] == [("one",), ("two",), ("three",)]


def test_the_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*arguments: object, **named: object) -> None:
        assert not any("trust" in name for name in named)
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", load)
    for source in ("hub:owner/name", "hf://datasets/owner/name@main", "hub:owner/name:config"):
        assert hub.recognises(source)
        with pytest.raises(DataError, match=r"can't be loaded \(no route to host\); no network") as raised:
            read(Path(source) if "//" not in source else source)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)


def test_the_hub_is_asked_for_name_configuration_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(*arguments: object, **named: object) -> Any:
        asked.append((arguments, named))
        return datasets.DatasetDict({"train": table()})

    monkeypatch.setattr(datasets, "load_dataset", load)
    splits = hub.read("hub:owner/name@v1:small", Rejects())
    assert asked == [(("owner/name", "small"), {"revision": "v1"})]
    assert [sample.id for sample in splits["train"]] == ["train/0", "train/1", "train/2"]


def test_other_sources_are_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    for source in (
        str(tmp_path),
        "hf://datasets/owner/name/x.tar",
        "hf://datasets/",
        "hub:",
        "owner/name",
        "x" * 5000,
        "a\0b",
    ):
        assert not hub.recognises(source)
