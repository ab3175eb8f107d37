"""Absolute paths in tables: of another machine, by their last parts; of this machine, and what they never lead to."""

from __future__ import annotations

import json
import logging
import os
import pickle
import tempfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captrain.data.options import ReadOptions
from captrain.data.places import Root
from captrain.data.readers import detect, reader
from captrain.errors import DataError
from captrain.records import Rejects, Sample

HOME = "/home/ubuntu/project"


def picture(colour: int = 0) -> bytes:
    file = BytesIO()
    Image.new("L", (2, 2), colour).save(file, "PNG")
    return file.getvalue()


def images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))


def read(source: Path, root: Path | None = None) -> tuple[list[Sample], Rejects]:
    rejects = Rejects()
    splits = reader(detect(str(source))).read(str(source), rejects, ReadOptions(image_root=root))
    return [sample for samples in splits.values() for sample in samples], rejects


def table(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"text": name, "image": name} for name in names]))
    return path


@pytest.mark.parametrize("home", [HOME, "C:\\Users\\me\\data", "~/data", "//nas/share", "file:///mnt/data"])
@pytest.mark.parametrize("place", ["", "images/", "deep/set/"])
def test_paths_of_another_machine_by_their_last_parts(
    tmp_path: Path, home: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    images(tmp_path, f"{place}cats/1.png", f"{place}dogs/1.png", "cats/other/1.png")
    names = [f"{home}/cats/1.png", f"{home}/dogs/1", f"{home}/dogs/2.png"]
    if "\\" in home:
        names = [name.replace("/", "\\") for name in names]
    with caplog.at_level(logging.INFO, logger="captrain"):
        samples, rejects = read(table(tmp_path / "t.json", *names))
    assert [sample.id for sample in samples] == [f"{place}cats/1.png", f"{place}dogs/1.png"]
    assert [(line["id"], line["reason"]) for line in rejects.lines] == [(names[2], "names an image that is not there")]
    assert len(caplog.messages) == 1
    assert "paths that begin with" in caplog.messages[0] and str(tmp_path) in caplog.messages[0]


def test_below_an_image_root_too(tmp_path: Path) -> None:
    images(tmp_path, "elsewhere/data/1.png", "set/1.png")
    samples, _ = read(table(tmp_path / "set/t.json", f"{HOME}/data/1.png"), tmp_path / "elsewhere")
    assert [sample.image for sample in samples] == [tmp_path / "elsewhere/data/1.png"]


def test_the_longest_end_that_leads_to_a_picture_counts(tmp_path: Path) -> None:
    images(tmp_path, "1.png", "data/1.png", "old/data/1.png")
    assert Root(tmp_path).find(f"{HOME}/data/1.png", "t:1") == "data/1.png"
    assert Root(tmp_path).find(f"{HOME}/old/data/1.png", "t:1") == "old/data/1.png"
    assert Root(tmp_path).find(f"{HOME}/other/1.png", "t:1") == "1.png"


def test_what_was_cut_off_holds_for_all_paths(tmp_path: Path) -> None:
    images(tmp_path, "train/1.png", "2.png")
    root = Root(tmp_path)
    assert root.find(f"{HOME}/train/1.png", "t:1") == "train/1.png"
    assert root.find(f"{HOME}/train/2.png", "t:2") is None
    root = Root(tmp_path)
    assert root.find(f"{HOME}/train/2.png", "t:1") == "2.png"
    with pytest.raises(DataError, match=r"t:2: .*train/1\.png' fits .* expected one place"):
        root.find(f"{HOME}/train/1.png", "t:2")


def test_no_picture_of_another_folder_or_split(tmp_path: Path) -> None:
    images(tmp_path, "train/1.png")
    assert Root(tmp_path).find(f"{HOME}/val/1.png", "t:1") is None
    assert Root(tmp_path).find(f"{HOME}/all/train/1.png", "t:1") == "train/1.png"
    images(tmp_path, "cats/3.png")
    assert Root(tmp_path).find(f"{HOME}/dogs/3.png", "t:1") is None


def test_two_that_fit_are_refused_by_both_names(tmp_path: Path) -> None:
    images(tmp_path, "a/data/1.png", "b/data/1.png", "a/2.png", "b/2.png", "a/3.png")
    samples, rejects = read(
        table(tmp_path / "t.json", f"{HOME}/data/1.png", f"{HOME}/2.png", "/x/a/3.png", f"{HOME}/9.png")
    )
    assert [sample.id for sample in samples] == ["a/3.png"]
    assert [line["reason"].split(";")[0] for line in rejects.lines] == [
        "may be any of 2 images, 'a/data/1.png' or 'b/data/1.png'",
        "may be any of 2 images, 'a/2.png' or 'b/2.png'",
        "names an image that is not there",
    ]


def test_paths_of_this_machine_are_read_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images(tmp_path, "data/validation/3808.png", "other/validation/6208.png", "set/validation/3808.png")
    names = [str(tmp_path / "data/validation/3808.png"), str(tmp_path / "other/validation/6208.png")]
    caplog.set_level(logging.INFO, logger="captrain")
    samples, rejects = read(table(tmp_path / "set/t.json", *names))
    assert [str(sample.image) for sample in samples] == names
    assert all(sample.read() for sample in samples) and not rejects
    assert not any(Path(sample.id).is_absolute() for sample in samples)
    assert [
        str(tmp_path / place / "validation") in line
        for place, line in zip(("data", "other"), caplog.messages, strict=True)
    ]
    assert [str(sample.image) for sample in pickle.loads(pickle.dumps(samples))] == names
    Path(names[0]).write_text("secret")
    with pytest.raises(OSError, match="no picture any more"):
        samples[0].read()


def test_an_image_root_confines(tmp_path: Path) -> None:
    images(tmp_path, "data/1.png", "set/2.png", "root/3.png", "root/data/4.png")
    with pytest.raises(DataError, match="leaves the folder") as raised:
        read(table(tmp_path / "set/t.json", str(tmp_path / "data/1.png")), tmp_path / "root")
    assert "--image-root" not in str(raised.value)
    images(tmp_path, "other/pictures/1.png")  # another picture of that name, in the only folder
    with pytest.raises(DataError, match="leaves the folder"):
        read(table(tmp_path / "set/t.json", str(tmp_path / "data/1.png")), tmp_path / "other")
    below = table(tmp_path / "set/t.json", str(tmp_path / "root/3.png"), str(tmp_path / "data/4.png"))
    samples, _ = read(below, tmp_path / "root")
    assert [sample.id for sample in samples] == ["3.png", "data/4.png"]


def test_no_path_leads_to_a_secret(tmp_path: Path) -> None:
    """Not by its name, not by a link that is called a picture, not by what is in it, not out of a hub's cache."""
    secret = tmp_path / "home/id_rsa"
    images(tmp_path, "set/1.png", "home/private.png")
    secret.write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    (tmp_path / "home/key.png").write_bytes(secret.read_bytes())
    paths = [secret, tmp_path / "home/key.png", tmp_path / "home", Path("/dev/zero"), Path("/proc/self/environ")]
    if os.name != "nt":
        (tmp_path / "home/link.png").symlink_to(secret)
        os.mkfifo(tmp_path / "home/pipe.png")
        paths += [tmp_path / "home/link.png", tmp_path / "home/pipe.png"]
    root = Root(tmp_path / "set")
    for path in paths:
        for name in (str(path), f"file://{path}", f"../home/{path.name}"):
            try:
                assert root.find(name, "t:1") is None
            except DataError as error:
                assert "leaves the folder" in str(error)
    cached = tmp_path / "hub/snapshots/abc"
    images(cached, "1.png")
    (tmp_path / "hub/blobs").mkdir()
    with pytest.raises(DataError, match="leaves the folder"):
        Root(cached).find(str(tmp_path / "home/private.png"), "t:1")


PARTS = st.lists(st.sampled_from(["a", "b", "train", "x.y", "images"]), max_size=3)


@settings(max_examples=100, deadline=None)
@given(picture=PARTS, others=st.lists(PARTS, max_size=3), above=PARTS, bare=st.booleans())
def test_a_moved_folder_gives_the_same_pictures(
    picture: list[str], others: list[list[str]], above: list[str], bare: bool
) -> None:
    """Whatever lies beside it: a path that was absolute below the old folder leads to its picture in the new one."""
    with tempfile.TemporaryDirectory() as name:
        root = Root(Path(name))
        inside = "/".join([*picture, "1.png"])
        images(
            root.folder, inside, *("/".join([*other, f"{number}.png"]) for number, other in enumerate(others, start=2))
        )
        old = "/".join(["/nowhere", *above, inside])
        assert root.find(old.removesuffix(".png") if bare else old, "t:1") == inside
        assert root.find(old.replace("1.png", "0.png"), "t:2") is None
