"""What every reader promises, run over all of them. A new format joins by one `write_...` function below."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from captrain.data.dataset import load_splits
from captrain.data.readers import READERS, detect, reader
from captrain.errors import DataError
from captrain.records import Rejects, Sample

Content = dict[str, tuple[str, ...]]  # image → captions

CONTENT: Content = {
    "a dog.jpg": ("a dog runs", "a brown dog on grass"),
    "nested/deep/cat.jpg": ("a cat sleeps",),
    "naïve 猫.jpg": ("ein Kätzchen", "猫が寝ている"),
}


def picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(file, "JPEG")
    return file.getvalue()


def write_images(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture())


def write_sidecar(folder: Path, content: Content) -> None:
    write_images(folder, list(content))
    for name, captions in content.items():
        (folder / name).with_suffix(".txt").write_text("\n".join(captions) + "\n", encoding="utf-8")


def write_jsonl(folder: Path, content: Content) -> None:
    write_images(folder, list(content))
    rows = [{"file_name": name, "captions": list(captions)} for name, captions in content.items()]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")


WRITERS: dict[str, Callable[[Path, Content], None]] = {"sidecar": write_sidecar, "jsonl": write_jsonl}


@pytest.fixture(params=sorted(READERS))
def format(request: pytest.FixtureRequest) -> str:
    assert request.param in WRITERS, f"add write_{request.param} to this file, so that the contract covers it"
    return str(request.param)


@pytest.fixture
def folder(format: str, tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    place.mkdir()
    WRITERS[format](place, CONTENT)
    return place


def read_all(format: str, folder: Path, **options: bool) -> tuple[list[Sample], Rejects]:
    rejects = Rejects()
    splits = reader(format)(folder, rejects, **options)
    return [sample for samples in splits.values() for sample in samples], rejects


def test_ids_captions_and_pictures_come_back(format: str, folder: Path) -> None:
    samples, rejects = read_all(format, folder)
    assert {sample.id: sample.captions for sample in samples} == CONTENT
    assert all(sample.read() == picture() for sample in samples)
    assert all(sample.source for sample in samples)
    assert len(rejects) == 0


def test_the_format_is_detected(format: str, folder: Path) -> None:
    assert detect(folder) == format


def test_order_is_stable_and_places_do_not_matter(format: str, folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    here, there = (read_all(format, place)[0] for place in (folder, moved))
    assert [sample.id for sample in here] == [sample.id for sample in read_all(format, folder)[0]]
    assert [sample.id for sample in here] == [sample.id for sample in there]


def test_samples_are_a_lazy_sequence_that_travels_to_workers(format: str, folder: Path) -> None:
    (samples,) = reader(format)(folder, Rejects()).values()
    assert samples[-1] == samples[len(samples) - 1]
    assert list(samples[1:]) == list(samples)[1:]
    assert list(pickle.loads(pickle.dumps(samples))) == list(samples)
    with pytest.raises(IndexError):
        samples[len(samples)]
    with pytest.raises(IndexError):
        samples[-len(samples) - 1]


def test_an_image_without_caption_is_rejected_once(format: str, tmp_path: Path) -> None:
    WRITERS[format](tmp_path, {**CONTENT, "bare.jpg": ()})
    samples, rejects = read_all(format, tmp_path)
    assert len(samples) == len(CONTENT)
    assert len(rejects) == 1
    assert rejects.lines[0]["id"].startswith("bare.")
    samples, rejects = read_all(format, tmp_path, captioned=False)
    assert {sample.id: sample.captions for sample in samples} == {**CONTENT, "bare.jpg": ()}
    assert len(rejects) == 0


def test_a_caption_without_image_is_rejected_once(format: str, folder: Path) -> None:
    (folder / "nested/deep/cat.jpg").unlink()
    samples, rejects = read_all(format, folder)
    assert len(samples) == len(CONTENT) - 1
    assert len(rejects) == 1
    assert "nested/deep/cat" in rejects.lines[0]["id"]


def test_nothing_left_is_one_clear_line(format: str, tmp_path: Path) -> None:
    WRITERS[format](tmp_path, {"bare.jpg": ()})
    with pytest.raises(DataError, match=r"expected .*") as raised:
        read_all(format, tmp_path)
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_a_link_that_leaves_the_folder_is_never_read(format: str, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"not yours")
    target = folder / "a dog.jpg"
    target.unlink()
    try:
        target.symlink_to(secret)
    except OSError:
        pytest.skip("this machine makes no symbolic links")
    try:
        samples, rejects = read_all(format, folder)
    except DataError as error:
        assert "leaves the folder" in str(error)
    else:
        assert "a dog.jpg" not in [sample.id for sample in samples]
        assert "a dog.jpg" in [line["id"] for line in rejects.lines]


def test_every_format_splits_alike(format: str, folder: Path) -> None:
    splits = load_splits(str(folder), format=format)
    assert (len(splits.train), len(splits.validation)) == (2, 1)
    assert splits.validation[0].id == "nested/deep/cat.jpg"
