"""Splits by name, other data sets to measure on, and pictures that are in two splits."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from captrain.data.dataset import SplitNames, load_split, load_splits
from captrain.data.recipe import load_recipe_data, shared_pictures, warn_of_leaks
from captrain.errors import DataError, SettingsError
from captrain.records import Sample
from captrain.settings.schema import DataSettings, Source


def write(folder: Path, **tables: str) -> str:
    """A folder with a table for each split; each letter is a picture, equal letters are equal pictures."""
    folder.mkdir(exist_ok=True)
    for name, letters in tables.items():
        lines = []
        for letter in letters:
            (folder / f"{name}-{letter}.jpg").write_bytes(letter.encode() * 9)
            lines.append(json.dumps({"file_name": f"{name}-{letter}.jpg", "text": letter}) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return str(folder)


def loaded(path: str | None, **settings: object) -> dict[str, str]:
    """The letters of each split."""
    splits = load_recipe_data(DataSettings.model_validate(settings), seed=0, path=path)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: "".join(sample.captions[0] for sample in samples) for name, samples in parts.items()}


@pytest.fixture
def photos(tmp_path: Path) -> str:
    return write(tmp_path / "photos", train="abcd", dev="ef", test="gh")


def test_by_the_usual_names(photos: str) -> None:
    assert loaded(photos) == {"train": "abcd", "validation": "ef", "test": "gh"}


def test_by_name(photos: str) -> None:
    assert loaded(photos, train_split="test", validation_split=["train"]) == {
        "train": "gh", "validation": "abcd", "test": "",
    }  # fmt: skip
    both = loaded(photos, train_split=["train", "dev"])
    assert sorted(both["train"] + both["validation"]) == list("abcdef"), "a share of what is trained on is held out"
    assert both["test"] == "gh"
    assert loaded(photos, test_split=["validation", "test"])["test"] == "efgh"


def test_none_at_all(photos: str) -> None:
    assert loaded(photos, validation_split=[], test_split=[]) == {"train": "abcd", "validation": "", "test": ""}


def test_a_split_is_the_same_for_training_and_by_itself(photos: str) -> None:
    """What is chosen by and tested on is never drawn anew from what was trained on."""
    splits = ("train", "dev", "test")
    for train in (None, ("train",), ("dev",), ("train", "dev")):
        for validation in (None, (), *((name,) for name in splits), ("dev", "test")):
            names = SplitNames(train, validation, None)
            try:
                together = load_splits(photos, validation_share=0.5, seed=3, names=names)
            except DataError:
                continue  # one split for two things
            for part in ("train", "validation", "test"):
                expected = [sample.id for sample in getattr(together, part)]
                if expected:
                    alone, _ = load_split(photos, part, validation_share=0.5, seed=3, names=names)
                    assert [sample.id for sample in alone] == expected, (names, part)
            best, _ = load_split(photos, names=names)
            assert not {sample.id for sample in best} & {sample.id for sample in together.train}


@pytest.mark.parametrize("part", ["train_split", "validation_split", "test_split"])
def test_an_unknown_split_lists_those_that_there_are(photos: str, part: str) -> None:
    with pytest.raises(
        DataError, match=r"photos: no split 'tesst'; it has 'validation', 'test', 'train'\. Did you mean 'test'"
    ):
        loaded(photos, **{part: "tesst"})


def test_one_split_for_two_things_is_refused(photos: str) -> None:
    with pytest.raises(DataError, match="split 'validation' is asked for to train on and to measure on"):
        loaded(photos, train_split="val", validation_split="dev")


def test_other_data_sets_to_measure_on(photos: str, tmp_path: Path) -> None:
    other = write(tmp_path / "other", validation="xy", test="z")
    assert loaded(photos, validation_data=other) == {"train": "abcd", "validation": "xy", "test": "gh"}
    assert loaded(photos, test_data=other) == {"train": "abcd", "validation": "ef", "test": "z"}
    assert loaded(photos, test_data=other, test_split="val")["test"] == "xy"
    assert loaded(photos, train_split="val", validation_data=other, validation_split="val")["train"] == "ef"


def test_another_data_set_has_to_have_one_split_or_the_right_one(photos: str, tmp_path: Path) -> None:
    assert loaded(photos, test_data=write(tmp_path / "one", val="xy"))["test"] == "xy"
    two = write(tmp_path / "two", train="xy", val="z")
    with pytest.raises(DataError, match="no split 'test', it has 'train', 'validation'; say which: --test-split NAME"):
        loaded(photos, test_data=two)


def test_each_source_may_name_its_own(photos: str, tmp_path: Path) -> None:
    other = write(tmp_path / "other", val="xy", test="z")
    sources = [{"path": photos, "test_split": []}, {"path": other, "train_split": [], "validation_split": []}]
    assert loaded(None, sources=sources) == {"train": "abcd", "validation": "ef", "test": "z"}
    with pytest.raises(DataError, match="nothing to train on"):
        loaded(None, sources=sources[1:])


def test_without_data_there_is_one_line() -> None:
    with pytest.raises(SettingsError, match="found no data to train on"):
        loaded(None)


def test_pictures_in_two_splits_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("captrain"), "propagate", True)
    data = DataSettings()
    path = write(tmp_path / "photos", train="abcd", val="bcx", test="xd")
    warn_of_leaks(load_recipe_data(data, 0, path), data)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "2 of 3 validation pictures are training pictures too",
        "1 of 2 test pictures are training pictures too",
        "1 of 2 test pictures are validation pictures too",
    ]


def test_only_pictures_of_equal_size_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = Sample.read
    monkeypatch.setattr(Sample, "read", lambda sample: (read.append(sample.id), original(sample))[1])
    splits = {
        "train": [Sample("a", b"1"), Sample("b", b"333"), Sample("c", b"333")],
        "test": [Sample("d", b"22"), Sample("e", b"333")],
    }
    assert shared_pictures(splits) == {("train", "test"): 1}
    assert read == ["b", "c", "e"]


def test_what_has_no_size_is_compared_by_ids_within_one_source() -> None:
    class Remote:
        def read(self) -> bytes:
            raise AssertionError("nothing is fetched for this")

    splits = {"train": [Sample("a", Remote()), Sample("b", Remote())], "test": [Sample("b", Remote())]}
    assert shared_pictures(splits) == {("train", "test"): 1}
    assert shared_pictures(splits, one_source=False) == {}


def test_a_missing_picture_is_no_leak(tmp_path: Path) -> None:
    gone = tmp_path / "gone.jpg"
    assert shared_pictures({"train": [Sample("a", gone)], "test": [Sample("b", gone)]}) == {}


def test_names_may_be_one_word_or_a_list() -> None:
    assert DataSettings(train_split="a").train_split == ("a",)  # type: ignore[arg-type]
    assert Source(path="x", test_split=["a", "b"]).test_split == ("a", "b")  # type: ignore[arg-type]
