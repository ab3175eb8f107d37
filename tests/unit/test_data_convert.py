"""Converting: nothing half-written, nothing overwritten or deleted by mistake, nothing lost in silence."""

from __future__ import annotations

import errno
import json
import logging
import os
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from captrain.data.convert import PictureChanges, convert
from captrain.errors import DataError, SettingsError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two pictures with captions beside them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("a", "b")):
        Image.new("RGB", (40, 20), (number * 90, 0, 0)).save(folder / f"{name}.jpg")
        (folder / f"{name}.txt").write_text(f"caption {name}\n")
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_pictures_are_copied_linked_or_encoded(photos: Path, tmp_path: Path) -> None:
    for how in ("copy", "link", "encode"):
        done = convert(str(photos), tmp_path / how, "metadata-jsonl", pictures=PictureChanges(how))  # type: ignore[arg-type]
        assert (done.written, done.rejected, done.rejects_file) == ({"all": 2}, 0, None)
        assert files(tmp_path / how) == {"a.jpg", "b.jpg", "metadata.jsonl"}
    assert (tmp_path / "copy/a.jpg").read_bytes() == (photos / "a.jpg").read_bytes()
    assert not (tmp_path / "copy/a.jpg").samefile(photos / "a.jpg")
    assert (tmp_path / "link/a.jpg").samefile(photos / "a.jpg")
    assert (tmp_path / "encode/a.jpg").read_bytes() != (photos / "a.jpg").read_bytes()


def test_links_that_are_impossible_are_copies_and_that_is_said_once(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with caplog.at_level(logging.WARNING, "captrain"):
        convert(str(photos), tmp_path / "out", "sidecar", pictures=PictureChanges("link"))
    assert (tmp_path / "out/b.jpg").read_bytes() == (photos / "b.jpg").read_bytes()
    assert len([each for each in caplog.messages if "Invalid cross-device link" in each]) == 1


def test_a_symbolic_link_becomes_a_file(photos: Path, tmp_path: Path) -> None:
    (photos / "c.jpg").symlink_to("a.jpg")
    (photos / "c.txt").write_text("linked")
    convert(str(photos), tmp_path / "out", "sidecar", pictures=PictureChanges("link"))
    assert not (tmp_path / "out/c.jpg").is_symlink()
    assert (tmp_path / "out/c.jpg").samefile(photos / "a.jpg")


def test_a_size_means_encoding_and_changes_names_to_jpg(photos: Path, tmp_path: Path) -> None:
    Image.new("RGBA", (30, 10)).save(photos / "a.png")
    done = convert(str(photos), tmp_path / "out", "metadata-jsonl", pictures=PictureChanges(max_side=20))
    lines = [json.loads(line) for line in (tmp_path / "out/metadata.jsonl").read_text().splitlines()]
    assert done.written == {"all": 3}
    assert [line["file_name"] for line in lines] == ["a.jpg", "a-2.jpg", "b.jpg"]
    assert [Image.open(tmp_path / "out" / line["file_name"]).size for line in lines] == [(20, 10), (20, 7), (20, 10)]


def test_what_is_unreadable_or_has_no_caption_is_listed(photos: Path, tmp_path: Path) -> None:
    (photos / "b.jpg").write_bytes(b"no picture")
    (photos / "c.jpg").write_bytes(b"x")
    done = convert(str(photos), tmp_path / "out", "sidecar", pictures=PictureChanges("encode"))
    listed = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert (done.written, done.rejected, done.rejects_file) == ({"all": 1}, 2, tmp_path / "out/rejected.jsonl")
    assert [(line["id"], line["reason"][:8]) for line in listed] == [("c.jpg", "has no c"), ("b.jpg", "is not a")]
    assert files(tmp_path / "out") == {"a.jpg", "a.txt", "rejected.jsonl"}


def test_nothing_left_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (photos / name).write_bytes(b"no picture")
    with pytest.raises(DataError, match="nothing to write"):
        convert(str(photos), tmp_path / "out", "coco")
    assert os.listdir(tmp_path) == ["photos"]


def test_a_failure_on_the_way_leaves_the_old_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(str(photos), tmp_path / "out", "sidecar")
    before = files(tmp_path / "out")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("captrain.data.writers.tables.JsonLinesFile.close", fail)
    with pytest.raises(OSError, match="No space"):
        convert(str(photos), tmp_path / "out", "metadata-jsonl", overwrite=True)
    assert files(tmp_path / "out") == before
    assert sorted(os.listdir(tmp_path)) == ["out", "photos"]


def test_a_folder_that_is_there_is_replaced_only_when_told(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    convert(str(photos), tmp_path / "out", "sidecar")  # an empty one is as good as none
    with pytest.raises(DataError, match=r"is there already; .* --overwrite"):
        convert(str(photos), tmp_path / "out", "csv")
    convert(str(photos), tmp_path / "out", "csv", overwrite=True)
    assert files(tmp_path / "out") == {"a.jpg", "b.jpg", "metadata.csv"}
    assert sorted(os.listdir(tmp_path)) == ["out", "photos"]


@pytest.mark.parametrize("target", [".", "..", "inside", "../photos"])
def test_the_source_is_never_replaced_nor_written_into(photos: Path, target: str) -> None:
    before = files(photos.parent)
    with pytest.raises(DataError, match="choose a"):
        convert(str(photos), photos / target, "sidecar", overwrite=True)
    assert files(photos.parent) == before


def test_images_that_a_table_names_are_never_replaced(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text('{"file_name": "photos/a.jpg", "text": "a dog"}\n')
    with pytest.raises(DataError, match=r"holds .*a\.jpg, which is to be read"):
        convert(str(table), photos, "sidecar", overwrite=True)
    assert files(photos) == {"a.jpg", "a.txt", "b.jpg", "b.txt"}


def test_the_working_folder_is_never_replaced(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work" / "here"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    with pytest.raises(DataError, match="working folder"):
        convert(str(photos), tmp_path / "work", "sidecar", overwrite=True)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"to": "sidecar", "pictures": PictureChanges("link", max_side=10)}, "those are for --images encode"),
        ({"to": "parquet", "pictures": PictureChanges("link")}, "holds the images itself"),
        ({"to": "kohja"}, "Did you mean 'kohya'"),
    ],
)
def test_choices_that_contradict_each_other(photos: Path, tmp_path: Path, choices: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        convert(str(photos), tmp_path / "out", **choices)


def test_repeats_are_kept_by_kohya_and_said_to_be_lost_elsewhere(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos.rename(tmp_path / "5_dogs")
    (tmp_path / "set").mkdir()
    (tmp_path / "5_dogs").rename(tmp_path / "set" / "5_dogs")
    convert(str(tmp_path / "set"), tmp_path / "kohya", "kohya")
    assert files(tmp_path / "kohya") == {f"5_dogs/{name}" for name in ("a.jpg", "a.txt", "b.jpg", "b.txt")}
    with caplog.at_level(logging.WARNING, "captrain"):
        convert(str(tmp_path / "kohya"), tmp_path / "csv", "csv")
    assert caplog.messages[-1:] == [f"{tmp_path / 'csv'}: repeats of 2 images are not kept; only kohya holds them"]


def test_real_pictures_through_every_form(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    source = tmp_path / "source"
    source.mkdir()
    lines = (shared_data / "data/coco-mini/captions.jsonl").read_text(encoding="utf-8").splitlines()[:12]
    for line in lines:
        name = json.loads(line)["file_name"]
        (source / name).write_bytes((shared_data / "data/coco-mini/images" / name).read_bytes())
    (source / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    place = source
    for to in ("coco", "csv", "sidecar", "metadata-jsonl"):
        done = convert(str(place), tmp_path / to, to)
        assert done.written == {"train": 12}
        place = tmp_path / to
    expected = {Path(json.loads(line)["file_name"]).name: json.loads(line)["captions"] for line in lines}
    found = map(json.loads, (place / "train.jsonl").read_text(encoding="utf-8").splitlines())
    assert {Path(line["file_name"]).name: line["captions"] for line in found} == expected
    first = next(iter(expected))
    assert next(place.rglob(first)).read_bytes() == next(source.rglob(first)).read_bytes()


def test_a_real_tar_gives_names_by_content(shared_data: Path, tmp_path: Path) -> None:
    done = convert(str(shared_data / "data/cc12m-32/00000.tar"), tmp_path / "out", "sidecar")
    assert (done.written, done.rejected) == ({"all": 32}, 1), "there is a tar in the tar, which is no picture"
    picture = Image.open(BytesIO((tmp_path / "out/000000001.jpg").read_bytes()))
    assert picture.format == "JPEG"
    assert (tmp_path / "out/000000001.txt").read_text(encoding="utf-8").strip()


def test_a_full_disk_while_linking_is_no_fault_of_the_picture(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the conversion, and no picture is left out of it."""

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space left") as found:
        convert(str(photos), tmp_path / "out", "sidecar", pictures=PictureChanges("link"))
    assert photos not in Path(found.value.filename).parents
    assert not (tmp_path / "out").exists()
