"""Which caption file belongs to a picture: the same answer for what reads, checks and captions."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.caption_file_names import TEXT_SUFFIXES, CaptionFolder, match
from captrain.data.check.check import checked_splits
from captrain.data.dataset import list_images
from captrain.data.read_options import ReadOptions
from captrain.data.readers import kohya
from captrain.data.readers.sidecar import read
from captrain.data.safe_paths import Root
from captrain.errors import DataError
from captrain.inference.sidecar_captions import Beside
from captrain.records import Rejects, Sample

STEMS = ("a", "b", "é", "e\u0301", "a.jpg", "A")
IMAGES = (".jpg", ".JPG", ".png")
TEXTS = (".txt", ".TXT", ".caption", ".Caption", ".jpg.txt", ".JPG.caption", ".md")
CONTENTS = (
    b"a dog\n",
    b"",
    b"\xef\xbb\xbf \n",
    b"two\nlines\n",
    b"\xff\xfed\x00o\x00g\x00",
    b"caf\xe9\n",
    b"d\0o\0g\0\n\0",
)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


files_of_a_folder = st.tuples(
    st.sets(st.builds(str.__add__, st.sampled_from(STEMS), st.sampled_from(IMAGES)), min_size=1, max_size=4),
    st.dictionaries(
        st.builds(str.__add__, st.sampled_from(STEMS), st.sampled_from(TEXTS)), st.sampled_from(CONTENTS), max_size=5
    ),
)


@settings(max_examples=150, deadline=None)
@given(files_of_a_folder)
def test_reader_check_and_caption_agree(found: tuple[set[str], dict[str, bytes]]) -> None:
    images, texts = found
    with tempfile.TemporaryDirectory() as place:
        folder = write(Path(place), {image: b"" for image in images} | texts)
        assert {*folder.iterdir()} == {folder / name for name in images | {*texts}}
        rejects = Rejects()
        try:
            splits = read(str(folder), rejects)
        except DataError:
            splits = {}
        captioned = {sample.id for samples in splits.values() for sample in samples if sample.captions}
        (all_images,) = read(str(folder), Rejects(), captioned=False).values()
        assert {sample.id for sample in all_images} == images
        assert {sample.id for sample in all_images if sample.captions} == captioned

        target, left = Beside(".txt", "skip", ReadOptions()), Rejects()
        wanted = {sample.id for sample in all_images if target.wants(sample, left)}
        assert not wanted & captioned, "what has a caption is not captioned again"
        assert wanted | captioned | {line["id"] for line in left.lines} == images
        if splits:
            checked = checked_splits(splits, rejects)
            assert checked.images == len(captioned)
            assert checked.findings.counts().get("shared-text", 0) == len(shared(folder, images, texts))


def shared(folder: Path, images: set[str], texts: dict[str, bytes]) -> list[str]:
    captions = CaptionFolder(folder, sorted(images), sorted(texts), TEXT_SUFFIXES)
    for image in images:
        captions.choose(image)
    return [name for name, _ in captions.shared()]


@settings(max_examples=100, deadline=None)
@given(
    stem=st.text(st.sampled_from("aéü猫ガñ. "), min_size=1, max_size=6).filter(lambda stem: stem.strip(". ") == stem),
    image=st.sampled_from((".jpg", ".JPEG", ".Png")),
    text=st.sampled_from((".txt", ".TXT", ".Caption", ".cApTiOn")),
    forms=st.tuples(*[st.sampled_from(("NFC", "NFD"))] * 2),
    whole=st.booleans(),
)
def test_any_two_spellings_of_a_name_match(
    stem: str, image: str, text: str, forms: tuple[str, str], whole: bool
) -> None:
    picture = unicodedata.normalize(forms[0], stem) + image
    beside = unicodedata.normalize(forms[1], stem) + (image.swapcase() if whole else "") + text
    with tempfile.TemporaryDirectory() as place:
        folder = write(Path(place), {picture: b"", beside: b"a dog\n"})
        (samples,) = read(str(folder), Rejects()).values()
        assert [(sample.id, sample.captions) for sample in samples] == [(picture, ("a dog",))]
        assert not Beside(".txt", "skip", ReadOptions()).wants(Sample(picture, folder / picture), Rejects())


@settings(max_examples=100, deadline=None)
@given(
    name=st.text(st.sampled_from("aéü猫ガñ"), min_size=1, max_size=4),
    endings=st.tuples(*[st.sampled_from((".jpg", ".JPG"))] * 2),
    forms=st.tuples(*[st.sampled_from(("NFC", "NFD"))] * 4),
)
def test_any_two_spellings_of_a_name_match_in_tables_and_lists_too(
    name: str, endings: tuple[str, str], forms: tuple[str, ...]
) -> None:
    spelled = [unicodedata.normalize(form, name) for form in forms]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, spelled[0])
        folder.mkdir()
        there = f"{spelled[0]}/{spelled[1]}{endings[0]}"
        write(folder, {spelled[1] + endings[0]: b""})
        said = f"{spelled[2]}/{spelled[3]}{endings[1]}"
        assert Root(Path(place)).find(said, "table:1") == there
        Path(place, "list.txt").write_text(f"{said}\n", encoding="utf-8")
        assert [sample.image for sample in list_images([f"{place}/list.txt"])] == [Path(place, there)]
        Path(place, "meta_cap.json").write_text(json.dumps({said: {"caption": "a dog"}}))
        (samples,) = kohya.read(place, Rejects()).values()
        assert [sample.id for sample in samples] == [there]


def test_a_name_as_it_is_spelled_goes_before_its_other_forms() -> None:
    found, strays = match(["é.jpg", "e\u0301.jpg"], ["é.txt"], TEXT_SUFFIXES)
    assert (found, strays) == ({"é.jpg": ["é.txt"]}, [])
    found, _ = match(["é.jpg"], ["e\u0301.txt", "é.caption"], TEXT_SUFFIXES)
    assert found == {"é.jpg": ["é.caption", "e\u0301.txt"]}


def test_of_two_files_the_first_that_is_not_empty_counts(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": b"", "a.txt": b" \n", "a.caption": b"a dog\n"})
    rejects = Rejects()
    (samples,) = read(str(tmp_path), rejects).values()
    assert samples[0].captions == ("a dog",)
    assert not rejects.lines
    assert not rejects.remarks


def test_two_files_of_a_picture_and_two_pictures_of_a_file_are_remarked_on(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": b"", "a.txt": b"a dog\n", "a.caption": b"a hound\n"})
    write(tmp_path, {"b.jpg": b"", "b.png": b"", "b.txt": b"a cat\n", "c.jpg": b"", "c.png": b""})
    write(tmp_path, {"c.jpg.txt": b"a cow\n", "c.txt": b"a calf\n"})
    rejects = Rejects()
    read(str(tmp_path), rejects)
    assert [(line["problem"], line["id"], line["reason"]) for line in rejects.remarks] == [
        ("shared-text", "b.txt", "is the caption file of 2 pictures (b.jpg, b.png)"),
        ("two-texts", "a.jpg", "has a second caption file, a.caption, which is not read"),
    ]


def test_a_file_that_cannot_be_read_is_rejected_and_hides_no_other(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": b"", "a.txt": b"caf\xe9\n", "a.caption": b"a dog\n", "b.jpg": b"", "b.txt": b"a cat"})
    rejects = Rejects()
    (samples,) = read(str(tmp_path), rejects).values()
    assert [sample.id for sample in samples] == ["b.jpg"]
    assert [(line["id"], line["reason"]) for line in rejects.lines] == [("a.txt", "is not UTF-8 (byte 3)")]


@pytest.mark.parametrize(
    ("image", "images", "name"),
    [("a.png", ["a.jpg", "a.png"], "a.txt"), ("a.JPG.png", ["a.jpg", "a.JPG.png"], "a.JPG.png.txt")],
)
def test_a_new_file_is_of_no_other_image(image: str, images: list[str], name: str) -> None:
    assert CaptionFolder(Path(), images, [], TEXT_SUFFIXES).new_name(image, ".txt") == name
    found, _ = match(images, [name], TEXT_SUFFIXES)
    assert name in found[image]


PARAGRAPHS = {
    "blank.txt": b"A dog runs.\n\nIt is brown.\n",
    "long.txt": ("A dog runs over a very green meadow in the early morning. " * 3 + "\nIt is brown.\n").encode(),
    "wrapped.txt": b"A dog runs over\nthe grass.\n",
    "two.txt": b"a dog\na brown dog\n",
    "one.txt": b"a dog\n",
    "other.txt": b"a cat. it sleeps.\n",
    "more.txt": b"a cow\n", "most.txt": b"a calf\n", "last.txt": b"a hen\n",
}  # fmt: skip


def test_paragraphs_among_one_liners_are_remarked_on(tmp_path: Path) -> None:
    write(tmp_path, PARAGRAPHS | {name.replace("txt", "jpg"): b"" for name in PARAGRAPHS})
    rejects = Rejects()
    read(str(tmp_path), rejects)
    assert {line["id"] for line in rejects.remarks} == {"blank.txt", "long.txt", "wrapped.txt"}
    assert all("--caption-lines whole" in line["reason"] for line in rejects.remarks)
    whole = Rejects()
    read(str(tmp_path), whole, ReadOptions(caption_lines="whole"))
    assert not whole.remarks
