"""From a path to splits: what is named is used, what is not is drawn by image, captioning takes what it is given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captrain.data.dataset import hold_out, list_images, load_split, load_splits, unique_names
from captrain.data.images import ImageSpec, prepare
from captrain.data.samples import JoinedSamples, key_of
from captrain.errors import DataError
from captrain.records import Rejects, Sample


def folder_of(path: Path, count: int, captioned: bool = True) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (path / f"{number:03d}.jpg").write_bytes(b"jpeg")
        if captioned:
            (path / f"{number:03d}.txt").write_text(f"number {number}", encoding="utf-8")
    return path


def table_of(folder: Path, name: str, images: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        (folder / image).write_bytes(b"jpeg")
    lines = [json.dumps({"file_name": image, "text": "x"}) + "\n" for image in images]
    (folder / name).write_text("".join(lines), encoding="utf-8")
    return folder / name


def named(*names: str) -> list[Sample]:
    return [Sample(name, b"") for name in names]


def test_a_share_of_the_images_is_held_out(tmp_path: Path) -> None:
    splits = load_splits(str(folder_of(tmp_path, 30)), validation_share=0.2)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (24, 6, 0)
    train, validation = ([sample.id for sample in part] for part in (splits.train, splits.validation))
    assert not set(train) & set(validation)
    assert train == sorted(train)
    assert validation == sorted(validation)


def test_the_draw_is_the_same_everywhere_and_another_seed_draws_others() -> None:
    samples = named(*(f"{number}.jpg" for number in range(10)))
    drawn = {seed: [sample.id for sample in hold_out(samples, 0.3, seed)[1]] for seed in (0, 1)}
    assert drawn == {0: ["0.jpg", "7.jpg", "9.jpg"], 1: ["2.jpg", "4.jpg", "8.jpg"]}


@pytest.mark.parametrize(
    ("count", "share", "held"), [(1, 0.5, 0), (2, 0.01, 1), (2, 1.0, 1), (10, 0.0, 0), (10, 0.25, 2)]
)
def test_sizes_at_the_edges(count: int, share: float, held: int) -> None:
    train, validation = hold_out(named(*map(str, range(count))), share, 0)
    assert (len(train), len(validation)) == (count - held, held)


def test_more_captions_change_no_split_and_more_images_change_it_little(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 40)
    before = {sample.id for sample in load_splits(str(folder)).validation}
    (folder / "005.txt").write_text("one\ntwo\nthree", encoding="utf-8")
    assert {sample.id for sample in load_splits(str(folder)).validation} == before
    (folder / "new.jpg").write_bytes(b"jpeg")
    (folder / "new.txt").write_text("new", encoding="utf-8")
    assert len({sample.id for sample in load_splits(str(folder)).validation} & before) >= len(before) - 1


def test_the_draw_is_fair_over_many_seeds() -> None:
    samples = named(*(f"{number}.jpg" for number in range(20)))
    counts = np.zeros(20)
    for seed in range(400):
        for sample in hold_out(samples, 0.25, seed)[1]:
            counts[int(sample.id[:-4])] += 1
    assert counts.min() > 60  # 100 expected, standard deviation 8.7
    assert counts.max() < 140


def test_named_splits_are_used_as_they_are(tmp_path: Path) -> None:
    table_of(tmp_path, "train.jsonl", ["a.jpg", "b.jpg"])
    table_of(tmp_path, "dev.jsonl", ["c.jpg"])
    splits = load_splits(str(tmp_path), validation_share=0.5)
    assert [[sample.id for sample in part] for part in (splits.train, splits.validation, splits.test)] == [
        ["a.jpg", "b.jpg"],
        ["c.jpg"],
        [],
    ]
    (tmp_path / "dev.jsonl").unlink()
    splits = load_splits(str(tmp_path), validation_share=0.5)
    assert (len(splits.train), len(splits.validation)) == (1, 1)


def test_without_a_training_split_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    table_of(tmp_path, "test.jsonl", ["a.jpg"])
    with pytest.raises(DataError, match="nothing to train on, it has only 'test'"):
        load_splits(str(tmp_path))


def test_evaluation_takes_the_named_split_or_the_best_there_is(tmp_path: Path) -> None:
    table_of(tmp_path, "train.jsonl", ["a.jpg", "b.jpg"])
    with pytest.raises(DataError, match="it has only 'train'; name it: --split train"):
        load_split(str(tmp_path))
    table_of(tmp_path, "dev.jsonl", ["c.jpg"])
    assert load_split(str(tmp_path))[0][0].id == "c.jpg"
    table_of(tmp_path, "test.jsonl", ["d.jpg"])
    assert load_split(str(tmp_path))[0][0].id == "d.jpg"
    assert load_split(str(tmp_path), "val")[0][0].id == "c.jpg"
    with pytest.raises(
        DataError, match=r"no split 'tests'; it has 'validation', 'test', 'train'\. Did you mean 'test'"
    ):
        load_split(str(tmp_path), "tests")


def test_evaluation_can_ask_for_what_training_held_out(tmp_path: Path) -> None:
    folder = str(folder_of(tmp_path, 10))
    splits = load_splits(folder, validation_share=0.3, seed=4)
    for name, expected in (("validation", splits.validation), ("train", splits.train)):
        found, _ = load_split(folder, name, validation_share=0.3, seed=4)
        assert list(found) == list(expected)
    assert len(load_split(folder)[0]) == 10


def test_a_missing_place_is_named_with_the_nearest_there_is(tmp_path: Path) -> None:
    folder_of(tmp_path / "photos", 1)
    for path, message in (
        (tmp_path / "photo", "photo: not found. Did you mean 'photos'?"),
        (tmp_path / "no/where", "does not exist either"),
        (tmp_path / ("x" * 400), "can't be opened"),
    ):
        with pytest.raises(DataError) as raised:
            load_splits(str(path))
        assert message in str(raised.value)
    with pytest.raises(DataError, match=r"not a data set; expected a folder"):
        load_splits(str(tmp_path / "photos/000.jpg"))
    with pytest.raises(DataError, match=r"'sidecars' is unknown.*Did you mean 'sidecar'"):
        load_splits(str(tmp_path / "photos"), format="sidecars")


def test_pictures_to_caption_come_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "bare/deep", 2, captioned=False)
    folder_of(tmp_path / "some", 1)
    table_of(tmp_path / "table", "metadata.jsonl", ["t.jpg"])
    (tmp_path / "list.txt").write_text("# mine\nsome/000.jpg\n\nbare/deep/001.jpg\nsome/000.jpg\n", encoding="utf-8")
    assert [sample.id for sample in list_images(["bare"])] == ["deep/000.jpg", "deep/001.jpg"]
    assert [sample.id for sample in list_images(["bare/deep/000.jpg"])] == ["000.jpg"]
    assert [sample.id for sample in list_images(["list.txt"])] == ["some/000.jpg", "bare/deep/001.jpg"]
    mixed = list_images(["some", "table", "bare/deep/000.jpg", "bare", "some/"])
    assert [(sample.id, sample.captions) for sample in mixed] == [
        ("some/000.jpg", ("number 0",)),
        ("table/t.jpg", ("x",)),
        ("bare/deep/000.jpg", ()),
        ("bare/deep/001.jpg", ()),
    ]
    assert all(sample.read() == b"jpeg" for sample in mixed)
    assert len(list_images([])) == 0


def test_a_list_names_its_missing_pictures(tmp_path: Path) -> None:
    folder_of(tmp_path, 1, captioned=False)
    (tmp_path / "some.lst").write_text("000.jpg\ngone.jpg\n", encoding="utf-8")
    rejects = Rejects()
    assert len(list_images([str(tmp_path / "some.lst")], rejects)) == 1
    assert rejects.lines[0]["where"].endswith("some.lst:2")
    with pytest.raises(DataError, match=r"1 rejected: .*names an image that is not there"):
        list_images([str(tmp_path / "some.lst")])
    (tmp_path / "some.lst").write_bytes(b"caf\xe9.jpg")
    with pytest.raises(DataError, match="not UTF-8"):
        list_images([str(tmp_path / "some.lst")])
    with pytest.raises(DataError, match="Did you mean"):
        list_images([str(tmp_path / "00.jpg")])


def test_sequences_joined_are_indexed_as_one() -> None:
    joined = JoinedSamples([named("a"), [], named("b", "c")])
    assert [joined[index].id for index in range(len(joined))] == ["a", "b", "c"]
    assert joined[-1].id == "c"
    assert [sample.id for sample in joined[::-1]] == ["c", "b", "a"]
    assert joined.keys().tolist() == [key_of(name) for name in "abc"]


def test_flickr8k_is_read_as_it_lies(shared_data: Path) -> None:
    splits = load_splits(str(shared_data / "data/flickr8k"))
    assert (len(splits.train), len(splits.validation), len(splits.rejects)) == (6000, 1000, 0)
    assert all(len(splits.train[index].captions) == 5 for index in range(0, 6000, 500))
    pixels = prepare(splits.train[0].read(), ImageSpec(224, 224, (0.5,) * 3, (0.5,) * 3))
    assert pixels.shape == (224, 224, 3)


def test_coco_mini_is_read_as_it_lies(shared_data: Path) -> None:
    splits = load_splits(str(shared_data / "data/coco-mini"))
    assert (len(splits.train), len(splits.validation), len(splits.rejects)) == (215, 24, 0)
    assert len(list_images([str(shared_data / "data/coco-mini/images")])) == 239


@given(st.lists(st.sampled_from(["photos", "a/photos", "photos-2", "photos-3", "photos-2-2", "b/photos-2/", "coco"])))
def test_every_data_set_has_a_name_of_its_own(paths: list[str]) -> None:
    names = unique_names(paths)
    assert len(set(names)) == len(paths)
    for name, path in zip(names, paths, strict=True):
        assert name.startswith(path.rstrip("/").rpartition("/")[2])
        assert "/" not in name, "the first slash of an id ends the name"
