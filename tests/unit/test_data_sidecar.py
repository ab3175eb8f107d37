"""A folder of images with captions beside them: what is found, what is left out, what is rejected and why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.options import ReadOptions
from captrain.data.readers import detect
from captrain.data.readers.sidecar import LARGEST_TEXT, read
from captrain.errors import DataError
from captrain.limits import TOO_LONG
from captrain.records import Rejects


def write(path: Path, content: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def pair(folder: Path, stem: str, text: bytes = b"a dog", suffix: str = ".jpg") -> None:
    write(folder / f"{stem}{suffix}")
    write(folder / f"{stem}.txt", text)


def reasons(rejects: Rejects) -> dict[str, str]:
    return {line["id"]: line["reason"] for line in rejects.lines}


def captions(folder: Path, **options: str) -> dict[str, tuple[str, ...]]:
    splits = read(str(folder), Rejects(), ReadOptions(**options))
    return {sample.id: sample.captions for samples in splits.values() for sample in samples}


def test_every_line_that_is_not_blank_is_a_caption(tmp_path: Path) -> None:
    pair(tmp_path, "dog", b"\xef\xbb\xbfa dog runs\r\n\n   \n  a brown dog \n")
    (samples,) = read(str(tmp_path), Rejects()).values()
    assert samples[0].captions == ("a dog runs", "a brown dog")
    assert samples[0].source == "dog.jpg"


def test_images_are_sorted_by_path_and_suffixes_may_be_upper_case(tmp_path: Path) -> None:
    for stem in ("b/2", "b/10", "a", "c"):
        pair(tmp_path, stem, suffix=".JPG")
    (tmp_path / "c.txt").rename(tmp_path / "c.TXT")
    (samples,) = read(str(tmp_path), Rejects()).values()
    assert [sample.id for sample in samples] == ["a.JPG", "b/10.JPG", "b/2.JPG", "c.JPG"]
    assert samples[3].captions == ("a dog",)


def test_what_the_system_left_behind_is_not_seen(tmp_path: Path) -> None:
    pair(tmp_path, "dog")
    for stem in ("._dog", ".cache/x", "__MACOSX/dog", "@eaDir/dog", "nested/.hidden/y"):
        pair(tmp_path, stem)
    rejects = Rejects()
    (samples,) = read(str(tmp_path), rejects).values()
    assert [sample.id for sample in samples] == ["dog.jpg"]
    assert not rejects.lines


def test_each_bad_file_is_rejected_once_with_its_reason(tmp_path: Path) -> None:
    pair(tmp_path, "good")
    pair(tmp_path, "latin", "café".encode("latin-1"))
    pair(tmp_path, "blank", b"\n \n")
    pair(tmp_path, "huge", b"x" * (LARGEST_TEXT + 1))
    write(tmp_path / "bare.png")
    write(tmp_path / "layers.PSD")
    write(tmp_path / "README.txt", b"about these pictures")
    rejects = Rejects()
    (samples,) = read(str(tmp_path), rejects).values()
    assert [sample.id for sample in samples] == ["good.jpg"]
    assert reasons(rejects) == {
        "latin.txt": "is not UTF-8 (byte 3)",
        "blank.txt": "holds no caption",
        "huge.txt": TOO_LONG,
        "bare.png": "has no caption beside it",
        "layers.PSD": "is a .PSD file, which is not read; convert it to JPEG",
        "README.txt": "has no image beside it",
    }
    assert len(rejects) == 6
    assert str(tmp_path / "layers.PSD") in [line["where"] for line in rejects.lines]


def test_two_images_may_share_a_caption_file(tmp_path: Path) -> None:
    pair(tmp_path, "dog")
    write(tmp_path / "dog.png")
    (samples,) = read(str(tmp_path), Rejects()).values()
    assert [(sample.id, sample.captions) for sample in samples] == [("dog.jpg", ("a dog",)), ("dog.png", ("a dog",))]


def test_a_text_named_after_a_whole_image_is_its_alone(tmp_path: Path) -> None:
    for image in ("dog.jpg", "dog.png", "dog.webp", "dog.jpg.png"):
        write(tmp_path / image)
    write(tmp_path / "dog.txt", b"some dog")
    write(tmp_path / "dog.jpg.txt", b"this dog")
    write(tmp_path / "dog.png.caption", b"that dog")
    assert captions(tmp_path, caption_extension="txt") == {
        "dog.jpg": ("this dog",),
        "dog.png": ("some dog",),
        "dog.webp": ("some dog",),
    }
    assert captions(tmp_path)["dog.png"] == ("that dog",)


def test_a_txt_goes_before_a_caption_file_and_an_extension_before_both(tmp_path: Path) -> None:
    pair(tmp_path, "a", b"txt")
    write(tmp_path / "a.caption", b"caption")
    write(tmp_path / "a.caption.txt", b"both")
    write(tmp_path / "b.jpg")
    write(tmp_path / "b.caption", b"only")
    assert captions(tmp_path) == {"a.jpg": ("txt",), "b.jpg": ("only",)}
    assert captions(tmp_path, caption_extension="caption") == {"a.jpg": ("caption",), "b.jpg": ("only",)}
    for extension in ("caption.txt", ".caption.txt", ".CAPTION.txt"):
        assert captions(tmp_path, caption_extension=extension) == {"a.jpg": ("both",)}


def test_texts_of_another_extension_are_none_of_its_business(tmp_path: Path) -> None:
    pair(tmp_path, "dog")
    write(tmp_path / "dog.tags", b"dog, grass")
    rejects = Rejects()
    read(str(tmp_path), rejects, ReadOptions(caption_extension="tags"))
    assert not rejects.lines


def test_a_whole_file_may_be_one_caption(tmp_path: Path) -> None:
    pair(tmp_path, "dog", b"\xef\xbb\xbfa dog\r\n  runs \n\non grass\n")
    assert captions(tmp_path, caption_lines="whole") == {"dog.jpg": ("a dog runs on grass",)}


def test_without_captions_a_bad_text_is_as_none(tmp_path: Path) -> None:
    pair(tmp_path, "blank", b"\n")
    pair(tmp_path, "good")
    write(tmp_path / "lost.txt", b"no image")
    rejects = Rejects()
    (samples,) = read(str(tmp_path), rejects, captioned=False).values()
    assert [(sample.id, sample.captions) for sample in samples] == [("blank.jpg", ()), ("good.jpg", ("a dog",))]
    assert not rejects.lines


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(st.sampled_from("ab._ -é/"), min_size=1, max_size=5), max_size=4),
    st.sampled_from([".jpg", ".png", ".txt", ".jpg.txt", ".caption", "", "."]),
    st.binary(max_size=12),
)
def test_any_folder_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], suffix: str, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("photos")
    pair(folder, "good")
    for name in names:
        safe = "/".join(part for part in name.split("/") if part.strip(".")) or "x"
        if not (folder / (safe + suffix)).exists() and not any(above.is_file() for above in (folder / safe).parents):
            write(folder / (safe + suffix), content)
    rejects = Rejects()
    (samples,) = read(str(folder), rejects).values()
    assert [sample.id for sample in samples] == sorted(sample.id for sample in samples)
    assert all(sample.captions for sample in samples)
    assert not {sample.id for sample in samples} & {line["id"] for line in rejects.lines}


def test_folders_called_after_splits_are_splits(tmp_path: Path) -> None:
    for stem in ("train/x/1", "train/2", "val/3", "test/4"):
        pair(tmp_path, stem)
    splits = read(str(tmp_path), Rejects())
    assert {name: [sample.id for sample in samples] for name, samples in splits.items()} == {
        "train": ["train/2.jpg", "train/x/1.jpg"],
        "validation": ["val/3.jpg"],
        "test": ["test/4.jpg"],
    }
    pair(tmp_path, "another/5")
    assert list(read(str(tmp_path), Rejects())) == ["all"]


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
    (samples,) = read(str(photos), rejects).values()
    assert [sample.id for sample in samples] == ["dog.jpg", "same.jpg"]
    assert sorted(reasons(rejects)) == ["circle", "leak.jpg", "leak.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes among files")
def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    pair(tmp_path, "dog")
    write(tmp_path / "cat.jpg")
    os.mkfifo(tmp_path / "cat.txt")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "unrelated.sock")
    rejects = Rejects()
    (samples,) = read(str(tmp_path), rejects).values()
    assert [sample.id for sample in samples] == ["dog.jpg"]
    assert sorted(reasons(rejects)) == ["broken.jpg", "cat.jpg", "cat.txt", "pipe.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="Windows makes symbolic links for administrators only")
def test_a_hugging_face_cache_reads_through_its_links(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--me--dogs/snapshots/abc123"
    blobs = tmp_path / "datasets--me--dogs/blobs"
    write(blobs / "1f", b"")
    write(blobs / "2e", b"a dog")
    snapshot.mkdir(parents=True)
    (snapshot / "dog.jpg").symlink_to("../../blobs/1f")
    (snapshot / "dog.txt").symlink_to("../../blobs/2e")
    (samples,) = read(str(snapshot), Rejects()).values()
    assert samples[0].captions == ("a dog",)


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="file names are always Unicode here")
def test_a_name_that_is_not_unicode_is_rejected(tmp_path: Path) -> None:
    pair(tmp_path, "dog")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb"):
        pass
    rejects = Rejects()
    read(str(tmp_path), rejects)
    assert reasons(rejects) == {"caf\\xe9.jpg": "has a name that is not UTF-8; rename it"}


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="file names are always Unicode here")
def test_a_folder_whose_name_is_not_unicode_is_rejected_once(tmp_path: Path) -> None:
    pair(tmp_path, "dog")
    place = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(place)
    with open(place + b"/1.jpg", "wb"), open(place + b"/1.txt", "wb"):
        pass
    rejects = Rejects()
    read(str(tmp_path), rejects)
    assert reasons(rejects) == {"caf\\xe9": "has a name that is not UTF-8; rename it"}


def test_deep_folders_are_walked(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 300)
    pair(tmp_path, f"{deep}/dog")
    (samples,) = read(str(tmp_path), Rejects()).values()
    assert samples[0].id == f"{deep}/dog.jpg"


def test_nothing_left_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"/: 0 images and no captions; expected a \.txt or \.caption beside each image"
    ):
        read(str(tmp_path), Rejects())
    for number in range(3):
        write(tmp_path / f"{number}.jpg")
    with pytest.raises(
        DataError, match=r"/: 3 images and no captions; expected a \.txt or \.caption beside each image or a metadata"
    ):
        read(str(tmp_path), Rejects())
    write(tmp_path / "0.txt", b"\n")
    with pytest.raises(DataError, match=r"3 images and 1 captions; .*rejected"):
        read(str(tmp_path), Rejects())


def test_it_is_what_any_folder_is_taken_for(tmp_path: Path) -> None:
    pair(tmp_path, "2023_july/dog")
    assert detect(str(tmp_path)) == "sidecar"


def test_a_text_that_has_gone_is_named(tmp_path: Path) -> None:
    pair(tmp_path, "dog")
    (samples,) = read(str(tmp_path), Rejects()).values()
    (tmp_path / "dog.txt").unlink()
    with pytest.raises(DataError, match=r"dog\.txt"):
        samples[0]
