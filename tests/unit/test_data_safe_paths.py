"""How the names in tables lead to pictures: with and without endings, in other spellings, in other folders."""

from __future__ import annotations

import json
import logging
import pickle
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.readers import jsonl, reader
from captrain.data.readers.detection import detect
from captrain.data.safe_paths import Root
from captrain.errors import DataError
from captrain.records import Rejects, Sample

STEMS = st.lists(
    st.sampled_from(["a", "b", "a.b", "22.05", "caf\u00e9", "img 1", "v1.txt", "0001"]),
    min_size=1,
    max_size=4,
    unique=True,
)
ENDINGS = st.sampled_from([".jpg", ".JPG", ".png", ".Jpeg", ".webp"])
FOLDERS = st.sampled_from(["", "images/", "img/", "deep/er/"])


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def read(source: Path) -> tuple[list[Sample], Rejects]:
    rejects = Rejects()
    splits = reader(detect(str(source))).read(str(source), rejects)
    return [sample for samples in splits.values() for sample in samples], rejects


def test_names_without_endings_in_every_kind_of_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image_name,caption\nimg_01,a dog\nsub/img_02,a cat\n")
    rows = [{"image": "img_01", "caption": "a dog"}, {"image": "sub/img_02", "caption": "a cat"}]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    images(tmp_path, "img/img_01.jpg", "img/sub/img_02.PNG", "img/sub/other.png")
    for table in ("t.csv", "t.json", "t.jsonl"):
        samples, rejects = read(tmp_path / table)
        assert [sample.id for sample in samples] == ["img/img_01.jpg", "img/sub/img_02.PNG"]
        assert samples[1].read() == b"img/sub/img_02.PNG"
        assert not rejects


def test_a_name_that_fits_two_pictures_is_rejected_by_both_names(tmp_path: Path) -> None:
    images(tmp_path, "img/1.jpg", "img/1.png", "img/2.jpg")
    (tmp_path / "t.csv").write_text("image,caption\n1,a dog\n2,a cat\n1.PNG,a bird\n")
    samples, rejects = read(tmp_path)
    assert {sample.id: sample.captions for sample in samples} == {"img/2.jpg": ("a cat",), "img/1.png": ("a bird",)}
    assert [line["reason"] for line in rejects.lines] == [
        "may be any of 2 images, 'img/1.jpg' or 'img/1.png'; expected a name of one"
    ]


def test_a_name_with_folders_never_leads_into_another_folder(tmp_path: Path) -> None:
    images(tmp_path, "val/1.jpg", "pictures/train/2.jpg")
    root = Root(tmp_path)
    assert root.find("train/1.jpg", "t:1") is None
    assert root.find("train/2", "t:1") == "pictures/train/2.jpg"


def test_what_is_written_counts_before_what_is_like_it(tmp_path: Path) -> None:
    images(tmp_path, "1", "1.jpg", "2.jpg", "images/2.png", "images/3.jpg", "old/3.png")
    root = Root(tmp_path)
    assert [root.find(name, "t:1") for name in ("1", "2", "3")] == ["1", "2.jpg", "images/3.jpg"]
    assert root.first(["4.jpg", "old/3"], "t:1") == "old/3.png"
    assert root.first(["2.PNG", "old/3.png"], "t:1") == "old/3.png"


def test_another_folder_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images(tmp_path, "img/1.jpg", "img/2.jpg", "3.jpg")
    root = Root(tmp_path)
    with caplog.at_level(logging.INFO, logger="captrain"):
        assert root.find("3", "t.csv:1")
        assert caplog.messages == []
        assert root.find("1", "t.csv:2") and root.find("2", "t.csv:3")
    assert caplog.messages == [f"t.csv:2: '1' is 'img/1.jpg' in {tmp_path}, the one picture of that name"]


def test_links_and_hidden_pictures_are_not_found_by_looking(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    images(tmp_path, "elsewhere/1.jpg")
    images(folder, ".hidden/2.jpg", "__MACOSX/3.jpg", "4.txt", "._5.jpg")
    (folder / "sub").mkdir()
    try:
        (folder / "sub/1.jpg").symlink_to(tmp_path / "elsewhere/1.jpg")
    except OSError:
        pytest.skip("this machine makes no symbolic links")
    root = Root(folder)
    assert [root.find(name, "t:1") for name in ("1", "2", "3", "4", "_5")] == [None] * 5
    with pytest.raises(DataError, match="leaves the folder"):
        root.find("../elsewhere/1", "t:1")


@pytest.mark.parametrize("most", [0, 200_000])
def test_large_tables_too_and_in_other_processes(tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MOST_CHECKED", most)
    images(tmp_path, "img/1.jpg", "img/2.jpg")
    (tmp_path / "t.jsonl").write_text("".join(f'{{"image": "{number}", "text": "x"}}\n' for number in (1, 2, 3)))
    samples, rejects = read(tmp_path)
    assert [sample.id for sample in samples] == ["img/1.jpg", "img/2.jpg"]
    assert [line["id"] for line in rejects.lines] == ["3"]
    again = pickle.loads(pickle.dumps(samples))
    assert [sample.read() for sample in again] == [b"img/1.jpg", b"img/2.jpg"]


@settings(max_examples=60, deadline=None)
@given(
    stems=STEMS,
    endings=st.lists(ENDINGS, min_size=4, max_size=4),
    folder=FOLDERS,
    twin=st.booleans(),
    form=st.booleans(),
)
def test_every_spelling_leads_to_the_one_picture(
    stems: list[str], endings: list[str], folder: str, twin: bool, form: bool
) -> None:
    """Without the ending, or with it in another case, a name leads to the only picture with that stem, else nowhere."""
    with tempfile.TemporaryDirectory() as name:
        root = Root(Path(name))
        files = {stem: f"{folder}{stem}{ending}" for stem, ending in zip(stems, endings, strict=False)}
        images(root.folder, *files.values())
        twins = f"{folder}{stems[0]}.bmp"
        if twin:
            images(root.folder, twins)
        for stem, path in files.items():
            spelled = unicodedata.normalize("NFD", stem) if form else stem
            ending = path.removeprefix(folder + stem)
            for suffix in (ending, ending.lower(), ending.swapcase()):
                assert unicodedata.normalize("NFC", root.find(spelled + suffix, "t:1") or "") == path
            expected = None if twin and stem == stems[0] else path
            assert root.find(spelled, "t:1") == expected
            if expected is None:
                assert path in root.absence(spelled, "t:1") and twins in root.absence(spelled, "t:1")
            assert root.find(f"{stem}.jpg.gif", "t:1") is None
