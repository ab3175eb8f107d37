"""Links in the folders of data sets: refused with one clear line, or followed where a person says so; each picture once."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captrain.data.dataset import read_splits
from captrain.data.options import ReadOptions
from captrain.disk.reading import fault_of, open_file, read_file
from captrain.disk.walking import Folders
from captrain.errors import DataError
from captrain.inference.clip_score import find_pictures
from captrain.inference.evaluation_data import Run
from captrain.metrics.inputs import Given, predictions_in
from captrain.records import Rejects
from captrain.testing import tiny_photos

FOLLOW = ReadOptions(follow_links=True)

Form = Callable[[Path], object]


def picture(path: Path, caption: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (len(path.name), 0, 0)).save(path)
    if caption:
        path.with_suffix(".txt").write_text(caption + "\n")
    return path


def found(source: Path, options: ReadOptions = FOLLOW) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """The captions of each id, and the reasons of what was rejected."""
    rejects = Rejects()
    splits = read_splits(str(source), rejects, options=options)
    samples = {sample.id: sample.captions for split in splits.values() for sample in split}
    for split in splits.values():
        assert all(sample.read() for sample in split)
    return samples, {line["id"]: line["reason"] for line in rejects.lines}


FORMS: dict[str, Form] = {
    "metadata.jsonl": lambda file: file.write_text('{"file_name": "1.png", "text": "a dog"}\n'),
    "metadata.csv": lambda file: file.write_text("file_name,text\n1.png,a dog\n"),
    "captions.json": lambda file: file.write_text('{"1.png": "a dog"}'),
    "rows.json": lambda file: file.write_text('[{"image": "1.png", "caption": "a dog"}]'),
    "meta_cap.json": lambda file: file.write_text('{"1": {"caption": "a dog"}}'),
    "list.txt": lambda file: file.write_text("1.png\ta dog\n"),
    "grouped.json": lambda file: file.write_text('{"train": [{"image_path": "1.png", "report": "a dog"}]}'),
    "captions.txt": lambda file: file.write_text("image,caption\n1.png,a dog\n"),
    "train2017.json": lambda file: file.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "1.png"}],
                "annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}],
            }
        )
    ),
    "karpathy.json": lambda file: file.write_text(
        json.dumps({"images": [{"filename": "1.png", "split": "train", "sentences": [{"raw": "a dog"}]}]})
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_pictures_on_another_disk_are_read_by_every_form(name: str, tmp_path: Path) -> None:
    picture(tmp_path / "disk" / "1.png")
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(tmp_path / "disk")
    FORMS[name](data / name)
    with pytest.raises(DataError, match=r"link that leaves the folder.*--follow-links|nothing to use|not there"):
        found(data / name, ReadOptions())
    samples, rejected = found(data / name)
    assert samples == {"images/1.png": ("a dog",)}
    assert not rejected


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "train2017.json", "karpathy.json"])
def test_a_table_that_is_a_link_is_read_where_a_person_names_it(name: str, tmp_path: Path) -> None:
    FORMS[name](tmp_path / name)
    data = tmp_path / "data"
    picture(data / "1.png")
    (data / name).symlink_to(tmp_path / name)
    with pytest.raises(DataError, match="--follow-links"):
        found(data, ReadOptions())
    assert found(data)[0] == found(data / name, ReadOptions())[0] == {"1.png": ("a dog",)}


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("meta_cap.json", "kohya"),
        ("dataset.toml", "kohya-toml"),
        ("metadata.jsonl", "jsonl"),
        ("captions.txt", "flickr"),
        ("annotations/train2017.json", "coco"),
        ("karpathy.json", "karpathy"),
        ("train.parquet", "parquet"),
    ],
)
def test_what_a_form_finds_in_a_folder_is_read_through_no_link(
    name: str, form: str, given: bool, tmp_path: Path
) -> None:
    """Whether the form is found by looking or given: the file may be a link, or lie in a folder that is one."""
    data = tmp_path / "data"
    picture(data / "1.png", "a dog" if form == "kohya-toml" else "")
    disk = tmp_path / "disk"
    (disk / name).parent.mkdir(parents=True)
    if name == "dataset.toml":
        (data / "pictures").mkdir()
        for file in (*data.glob("1.*"),):
            file.rename(data / "pictures" / file.name)
        (disk / name).write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "pictures"\n')
    elif form == "parquet":
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(arrow.table({"file_name": ["1.png"], "text": ["a dog"]}), disk / name)
    else:
        FORMS[Path(name).name](disk / name)
    top = Path(name).parts[0]
    (data / top).symlink_to(disk / top)
    wanted = form if given else None
    if name != "dataset.toml" or given:  # a folder with pictures below is one of pictures
        with pytest.raises(DataError, match="is a link that leaves the folder; --follow-links"):
            read_splits(str(data), Rejects(), format=wanted)
    followed = read_splits(str(data), Rejects(), format=form, options=FOLLOW)
    assert sum(map(len, followed.values())) == 1


def test_parquet_and_image_root_behind_links(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    picture(tmp_path / "disk" / "1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "root").mkdir()
    for place in ("data", "root"):
        (tmp_path / place / "images").symlink_to(tmp_path / "disk")
    table = tmp_path / "data" / "train.parquet"
    parquet.write_table(arrow.table({"file_name": ["1.png"], "text": ["a dog"]}), table)
    rows = tmp_path / "rows.csv"
    rows.write_text("file_name,text\n1.png,a dog\n")
    for source, options in (
        (table, FOLLOW),
        (rows, ReadOptions(image_root=tmp_path / "root", follow_links=True)),
    ):
        assert found(source, options)[0] == {"images/1.png": ("a dog",)}
        with pytest.raises(DataError, match="--follow-links"):
            found(source, ReadOptions(image_root=options.image_root))


def test_folder_of_links_is_told_and_followed(tmp_path: Path) -> None:
    picture(tmp_path / "disk" / "deep" / "1.png", "far")
    picture(tmp_path / "alone.png")
    data = tmp_path / "data"
    picture(data / "2.png", "near")
    picture(data / "3.png")
    (data / "3.txt").symlink_to(tmp_path / "disk" / "deep" / "1.txt")
    (data / "far").symlink_to(tmp_path / "disk")
    (data / "alone.png").symlink_to(tmp_path / "alone.png")
    (data / "alone.txt").write_text("alone\n")
    (data / "again.png").symlink_to("2.png")
    (data / "again.txt").symlink_to("2.txt")
    samples, rejected = found(data, ReadOptions())
    assert samples == {"2.png": ("near",), "again.png": ("near",)}
    for name in ("far", "alone.png", "3.txt"):
        assert rejected[name].endswith(("--follow-links reads it", "--follow-links reads what it leads to"))
    samples, rejected = found(data)
    assert samples == {
        **{"2.png": ("near",), "again.png": ("near",), "3.png": ("far",)},
        **{"alone.png": ("alone",), "far/deep/1.png": ("far",)},
    }
    assert not rejected


def test_broken_links_and_loops_are_called_so(tmp_path: Path) -> None:
    picture(tmp_path / "1.png", "a dog")
    (tmp_path / "gone.png").symlink_to("/nowhere/at/all.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "folder").symlink_to("no-folder")
    for options in (ReadOptions(), FOLLOW):
        samples, rejected = found(tmp_path, options)
        assert list(samples) == ["1.png"]
        assert rejected == {
            "gone.png": "is a broken link to /nowhere/at/all.png; put the file itself there",
            "loop.png": "is a link that leads back to itself; put the file itself there",
            "folder": "is a broken link to no-folder; put the file itself there",
        }
    rows = [json.dumps({"file_name": name, "text": "x"}) for name in ("1.png", "gone.png", "loop.png")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    for options in (ReadOptions(), FOLLOW):
        samples, rejected = found(tmp_path, options)
        assert list(samples) == ["1.png"]
        assert "broken link" in rejected["gone.png"]
        assert "leads back to itself" in rejected["loop.png"]


def test_kohya_folders_shards_and_unlisted_pictures_behind_links(tmp_path: Path) -> None:
    picture(tmp_path / "disk" / "1.png", "a dog")
    kohya = tmp_path / "kohya"
    kohya.mkdir()
    (kohya / "10_dogs").symlink_to(tmp_path / "disk")
    rejects = Rejects()
    (sample,) = read_splits(str(kohya), rejects, options=FOLLOW)["all"]
    assert (sample.id, sample.repeats) == ("10_dogs/1.png", 10)

    shards = tmp_path / "tars"
    shards.mkdir()
    subprocess.run(["tar", "cf", str(shards / "0.tar"), "-C", str(tmp_path / "disk"), "1.png", "1.txt"], check=True)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "1.tar").symlink_to(shards / "0.tar")
    (linked / "more").symlink_to(shards)
    with pytest.raises(DataError, match="--follow-links"):
        found(linked, ReadOptions())
    assert list(found(linked)[0]) == ["1/1.png", "more/0/1.png"]

    table = tmp_path / "table"
    picture(table / "2.png")
    (table / "more").symlink_to(tmp_path / "disk")
    (table / "metadata.csv").write_text("file_name,text\n2.png,a cat\n")
    rejects = Rejects()
    read_splits(str(table), rejects, options=FOLLOW)
    assert [line["reason"] for line in rejects.remarks] == ["holds 1 picture that no table lists: more/1.png"]


def test_scores_of_pictures_and_texts_behind_links(tmp_path: Path) -> None:
    picture(tmp_path / "disk" / "1.png", "a dog")
    for name in ("folder", "file"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder" / "far").symlink_to(tmp_path / "disk")
    (tmp_path / "file" / "1.png").symlink_to(tmp_path / "disk" / "1.png")
    (tmp_path / "file" / "1.txt").symlink_to(tmp_path / "disk" / "1.txt")
    for place, id in (("folder", "far/1"), ("file", "1")):
        with pytest.raises(DataError, match=r"--follow-links|no picture here"):
            find_pictures(tmp_path / place, [id])
        assert [sample.id for sample in find_pictures(tmp_path / place, [id], follow_links=True)] == [id]
        with pytest.raises(DataError, match="--follow-links"):
            predictions_in(tmp_path / place)
        assert predictions_in(tmp_path / place, Given(follow_links=True)).usual == {id: "a dog"}


NAMES = st.sampled_from(["a", "b", "c", ".hidden"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(NAMES, NAMES), max_size=6),
    st.lists(st.tuples(st.integers(0, 20), NAMES, st.integers(0, 20)), max_size=6),
)
def test_a_walk_ends_and_meets_every_folder_once(
    folders: list[tuple[str, str]], links: list[tuple[int, str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        made = [top / "data", top / "outside", top]
        for place_number, (one, other) in enumerate(folders):
            made.append(made[place_number % 2] / one / other)
        for folder in made[:-1] if len(made) < 4 else made:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "1.png").touch()
        for source, name, target in links:
            link = made[source % len(made)] / f"link-{name}"
            if not os.path.lexists(link):
                link.symlink_to(made[target % len(made)])
        for follow in (False, True):
            walk, left, met = Folders(top / "data", lambda path: True, follow=follow), [""], []
            while left:
                prefix = left.pop()
                met.append(os.path.realpath(top / "data" / prefix))
                left += [
                    f"{prefix}{entry.name}/" for entry in walk.entries(prefix) if entry.is_folder and not entry.fault
                ]
            assert len(set(met)) == len(met) <= 20


def test_order_of_creation_changes_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "disk" / "1.png", "a dog")
    for place, names in (("one", ("z", "a")), ("other", ("a", "z"))):
        (tmp_path / place).mkdir()
        for name in names:
            (tmp_path / place / name).symlink_to(tmp_path / "disk")
        samples, rejected = found(tmp_path / place)
        assert list(samples) == ["a/1.png"]
        assert rejected == {"z": "is a link to a folder that is read already"}


def test_a_hub_cache_needs_no_flag(tmp_path: Path) -> None:
    blobs = tmp_path / "hub" / "blobs"
    snapshot = tmp_path / "hub" / "snapshots" / "0123"
    picture(blobs / "abc.png")
    snapshot.mkdir(parents=True)
    (snapshot / "1.png").symlink_to("../../blobs/abc.png")
    (snapshot / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "a dog"}\n')
    assert found(snapshot, ReadOptions())[0] == {"1.png": ("a dog",)}


def test_settings_of_a_run_do_not_switch_it_on(tmp_path: Path) -> None:
    tiny_photos(tmp_path / "photos", count=2)
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "model" / "config.json").write_text("{}")
    content = {"requested": {"source": str(tmp_path / "photos")}, "settings": {"data": {"follow_links": True}}}
    (run / "settings.yaml").write_text(yaml.safe_dump(content))
    known = Run.of(str(run))
    assert known is not None
    assert not known.settings.data.follow_links


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, kind in ((pipe, "a pipe"), (Path("/dev/zero"), "a device")):
        with pytest.raises(OSError, match=kind):
            open_file(path)
        with pytest.raises(OSError, match=kind):
            read_file(path)
        assert fault_of(path) == f"is {kind}, not a file; put the file itself there"
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)
    if Path("/proc/self/status").exists():
        with pytest.raises(OSError, match="a view of the system"):
            open_file("/proc/self/status")


def test_a_pipe_that_takes_a_file_s_place_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    file.write_bytes(b"x")
    state = os.stat(file)
    monkeypatch.setattr("captrain.disk.reading.os.stat", lambda path: state)
    with pytest.raises(OSError, match="a pipe"):
        open_file(pipe)
