"""What every reader promises, run over all of them. A new format joins by one file in forms/, which writes it."""

from __future__ import annotations

import importlib.util
import pickle
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from captrain.data.dataset import load_splits
from captrain.data.readers import READERS, reader
from captrain.data.readers.detection import detect
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


def form(name: str) -> ModuleType:
    """How a format is written; PICTURES is False in one that holds features of pictures and not the pictures."""
    place = Path(__file__).parent / "forms" / f"{name}.py"
    assert place.is_file(), f"add {place}, with write(folder, content, picture), so that the contract covers '{name}'"
    spec = importlib.util.spec_from_file_location(f"forms_{name}", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=sorted(READERS))
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def write(format: str) -> Callable[[Path, Content], str]:
    module = form(format)

    def write_content(folder: Path, content: Content) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        return str(module.write(folder, content, picture()))

    return write_content


@pytest.fixture
def content(format: str) -> Content:
    most = getattr(form(format), "MOST_CAPTIONS", None)
    return {image: captions[:most] for image, captions in CONTENT.items()}


@pytest.fixture
def source(write: Callable[[Path, Content], str], content: Content, tmp_path: Path) -> str:
    return write(tmp_path / "photos", content)


def read_all(format: str, source: str, **options: bool) -> tuple[list[Sample], Rejects]:
    rejects = Rejects()
    splits = reader(format).read(source, rejects, **options)
    return [sample for samples in splits.values() for sample in samples], rejects


def test_captions_and_pictures_come_back(format: str, source: str, content: Content) -> None:
    samples, rejects = read_all(format, source)
    assert {stem(sample.id): sample.captions for sample in samples} == {stem(id): c for id, c in content.items()}
    if getattr(form(format), "PICTURES", True):
        assert all(sample.read() == picture() for sample in samples)
    assert all(sample.source for sample in samples)
    assert len({sample.id for sample in samples}) == len(samples)
    assert len(rejects) == 0


def stem(id: str) -> str:
    """Ids are image paths, or keys without an extension where the format has no more."""
    return id.removesuffix(".jpg")


def test_the_format_is_detected(format: str, source: str) -> None:
    assert detect(source) == format


def test_order_is_stable_and_places_do_not_matter(format: str, source: str, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "photos", tmp_path / "elsewhere/photos")
    moved = str(tmp_path / "elsewhere" / Path(source).relative_to(tmp_path))
    here, there = (read_all(format, place)[0] for place in (source, moved))
    assert [sample.id for sample in here] == [sample.id for sample in read_all(format, source)[0]]
    assert [sample.id for sample in here] == [sample.id for sample in there]


def test_samples_are_a_lazy_sequence_that_travels_to_workers(format: str, source: str) -> None:
    (samples,) = reader(format).read(source, Rejects()).values()
    assert samples[-1] == samples[len(samples) - 1]
    assert list(samples[1:]) == list(samples)[1:]
    assert list(pickle.loads(pickle.dumps(samples))) == list(samples)
    with pytest.raises(IndexError):
        samples[len(samples)]
    with pytest.raises(IndexError):
        samples[-len(samples) - 1]


def test_an_image_without_caption_is_rejected_once(
    format: str, write: Callable[[Path, Content], str], content: Content, tmp_path: Path
) -> None:
    source = write(tmp_path / "photos", {**content, "bare.jpg": ()})
    samples, rejects = read_all(format, source)
    assert len(samples) == len(content)
    assert len(rejects) == 1
    assert stem(rejects.lines[0]["id"]) in ("bare", "photos/bare")
    samples, rejects = read_all(format, source, captioned=False)
    assert {stem(sample.id): sample.captions for sample in samples} == {
        stem(id): captions for id, captions in {**content, "bare.jpg": ()}.items()
    }
    assert len(rejects) == 0


def test_a_caption_without_image_is_rejected_once(format: str, source: str, content: Content, tmp_path: Path) -> None:
    lost = tmp_path / "photos/nested/deep/cat.jpg"
    if not lost.is_file():
        pytest.skip("this form holds its images inside, so that none can go missing")
    lost.unlink()
    samples, rejects = read_all(format, source)
    assert len(samples) == len(content) - 1
    assert len(rejects) == 1
    assert "nested/deep/cat" in rejects.lines[0]["id"]


def test_nothing_left_is_one_clear_line(format: str, write: Callable[[Path, Content], str], tmp_path: Path) -> None:
    source = write(tmp_path / "photos", {"bare.jpg": ()})
    with pytest.raises(DataError, match=r"expected .*") as raised:
        read_all(format, source)
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_a_link_that_leaves_the_folder_is_never_read(format: str, source: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"not yours")
    target = tmp_path / "photos/a dog.jpg"
    if not target.is_file():
        pytest.skip("this form holds its images inside, so that none can be a link")
    target.unlink()
    try:
        target.symlink_to(secret)
    except OSError:
        pytest.skip("this machine makes no symbolic links")
    try:
        samples, rejects = read_all(format, source)
    except DataError as error:
        assert "leaves the folder" in str(error)
    else:
        assert "a dog.jpg" not in [sample.id for sample in samples]
        assert "a dog.jpg" in [line["id"] for line in rejects.lines]


def test_every_format_splits_alike(format: str, source: str) -> None:
    splits = load_splits(source, format=format)
    assert (len(splits.train), len(splits.validation)) == (2, 1)
