"""A folder of images with captions beside them: what is found, what is left out, what is rejected and why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from captrain.data.readers.sidecar import LARGEST_TEXT, read
from captrain.errors import DataError
from captrain.records import Rejects


def write(path: Path, content: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def pair(folder: Path, stem: str, text: bytes = b"a dog", suffix: str = ".jpg") -> None:
    write(folder / f"{stem}{suffix}")
    write(folder / f"{stem}.txt", text)


def reasons(rejects: Rejects) -> dict[str, str]:
    return {line["id"]: line["reason"] for line in rejects.lines}


def test_every_line_that_is_not_blank_is_a_caption(tmp_path: Path) -> None:
    pair(tmp_path, "dog", b"\xef\xbb\xbfa dog runs\r\n\n   \n  a brown dog \n")
    (samples,) = read(tmp_path, Rejects()).values()
    assert samples[0].captions == ("a dog runs", "a brown dog")
    assert samples[0].source == "dog.jpg"


def test_images_are_sorted_by_path_and_suffixes_may_be_upper_case(tmp_path: Path) -> None:
    for stem in ("b/2", "b/10", "a", "c"):
        pair(tmp_path, stem, suffix=".JPG")
    (tmp_path / "c.txt").rename(tmp_path / "c.TXT")
    (samples,) = read(tmp_path, Rejects()).values()
    assert [sample.id for sample in samples] == ["a.JPG", "b/10.JPG", "b/2.JPG", "c.JPG"]
    assert samples[3].captions == ("a dog",)


def test_what_the_system_left_behind_is_not_seen(tmp_path: Path) -> None:
    pair(tmp_path, "dog")
    for stem in ("._dog", ".cache/x", "__MACOSX/dog", "@eaDir/dog", "nested/.hidden/y"):
        pair(tmp_path, stem)
    rejects = Rejects()
    (samples,) = read(tmp_path, rejects).values()
    assert [sample.id for sample in samples] == ["dog.jpg"]
    assert not rejects.lines


def test_each_bad_file_is_rejected_once_with_its_reason(tmp_path: Path) -> None:
    pair(tmp_path, "good")
    pair(tmp_path, "latin", "café".encode("latin-1"))
    pair(tmp_path, "blank", b"\n \n")
    pair(tmp_path, "huge", b"x" * (LARGEST_TEXT + 1))
    write(tmp_path / "bare.png")
    write(tmp_path / "phone.HEIC")
    write(tmp_path / "README.txt", b"about these pictures")
    rejects = Rejects()
    (samples,) = read(tmp_path, rejects).values()
    assert [sample.id for sample in samples] == ["good.jpg"]
    assert reasons(rejects) == {
        "latin.txt": "is not UTF-8 (byte 3)",
        "blank.txt": "holds no caption",
        "huge.txt": f"is too large for captions ({LARGEST_TEXT + 1} bytes, over {LARGEST_TEXT})",
        "bare.png": "has no caption beside it",
        "phone.HEIC": "is a .HEIC file, which is not read; convert it to JPEG",
        "README.txt": "has no image beside it",
    }
    assert len(rejects) == 6
    assert rejects.lines[0]["where"] == str(tmp_path / "phone.HEIC")


def test_two_images_may_share_a_caption_file(tmp_path: Path) -> None:
    pair(tmp_path, "dog")
    write(tmp_path / "dog.png")
    (samples,) = read(tmp_path, Rejects()).values()
    assert [(sample.id, sample.captions) for sample in samples] == [("dog.jpg", ("a dog",)), ("dog.png", ("a dog",))]


def test_folders_called_after_splits_are_splits(tmp_path: Path) -> None:
    for stem in ("train/x/1", "train/2", "val/3", "test/4"):
        pair(tmp_path, stem)
    splits = read(tmp_path, Rejects())
    assert {name: [sample.id for sample in samples] for name, samples in splits.items()} == {
        "train": ["train/2.jpg", "train/x/1.jpg"],
        "validation": ["val/3.jpg"],
        "test": ["test/4.jpg"],
    }
    pair(tmp_path, "another/5")
    assert list(read(tmp_path, Rejects())) == ["all"]


@pytest.mark.skipif(os.name == "nt", reason="Windows makes symbolic links for administrators only")
def test_links_are_followed_inside_and_listed_where_they_leave(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    pair(photos, "dog")
    pair(tmp_path, "private", b"a secret")
    (photos / "same.jpg").symlink_to(photos / "dog.jpg")
    (photos / "same.txt").symlink_to(photos / "dog.txt")
    write(photos / "leak.jpg")
    (photos / "leak.txt").symlink_to(tmp_path / "private.txt")
    (photos / "circle").symlink_to(photos)
    rejects = Rejects()
    (samples,) = read(photos, rejects).values()
    assert [sample.id for sample in samples] == ["dog.jpg", "same.jpg"]
    assert sorted(reasons(rejects)) == ["circle", "leak.jpg", "leak.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows makes symbolic links for administrators only")
def test_a_hugging_face_cache_reads_through_its_links(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--me--dogs/snapshots/abc123"
    blobs = tmp_path / "datasets--me--dogs/blobs"
    write(blobs / "1f", b"")
    write(blobs / "2e", b"a dog")
    snapshot.mkdir(parents=True)
    (snapshot / "dog.jpg").symlink_to("../../blobs/1f")
    (snapshot / "dog.txt").symlink_to("../../blobs/2e")
    (samples,) = read(snapshot, Rejects()).values()
    assert samples[0].captions == ("a dog",)


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="file names are always Unicode here")
def test_a_name_that_is_not_unicode_is_rejected(tmp_path: Path) -> None:
    pair(tmp_path, "dog")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb"):
        pass
    rejects = Rejects()
    read(tmp_path, rejects)
    assert reasons(rejects) == {"caf\\xe9.jpg": "has a name that is not UTF-8; rename it"}


def test_deep_folders_are_walked(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 300)
    pair(tmp_path, f"{deep}/dog")
    (samples,) = read(tmp_path, Rejects()).values()
    assert samples[0].id == f"{deep}/dog.jpg"


def test_nothing_left_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/: 0 images and no captions; expected a \.txt beside each image"):
        read(tmp_path, Rejects())
    for number in range(3):
        write(tmp_path / f"{number}.jpg")
    with pytest.raises(
        DataError, match=r"/: 3 images and no captions; expected a \.txt beside each image or a metadata"
    ):
        read(tmp_path, Rejects())
    write(tmp_path / "0.txt", b"\n")
    with pytest.raises(DataError, match=r"3 images and 1 captions; .*rejected"):
        read(tmp_path, Rejects())


def test_a_text_that_has_gone_is_named(tmp_path: Path) -> None:
    pair(tmp_path, "dog")
    (samples,) = read(tmp_path, Rejects()).values()
    (tmp_path / "dog.txt").unlink()
    with pytest.raises(DataError, match=r"dog\.txt"):
        samples[0]
