"""What is written in a form comes back from its reader: names, captions, pictures, splits, repeats."""

from __future__ import annotations

import csv
import json
import os
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from captrain.data.readers import READERS, detect, reader
from captrain.data.writers import WRITERS, Item, Losses, Target, writer
from captrain.data.writers.names import safe_name
from captrain.data.writers.pictures import Picture, encode
from captrain.records import Rejects, Sample
from captrain.tabular.cells import sifted
from captrain.testing import tiny_photos

READ_BY = {name: name for name in WRITERS} | {"metadata-jsonl": "jsonl"}

FORMS = sorted(WRITERS)


def picture(shade: int = 0, kind: str = "JPEG") -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 6), (200, shade * 40 % 256, 0)).save(file, kind)
    return file.getvalue()


def written(form: str, folder: Path, items: list[Item], *, shard_size: int = 1000) -> Losses:
    losses = Losses()
    splits = list(dict.fromkeys(item.split for item in items))
    out = writer(form)(Target(folder, splits, losses, shard_size=shard_size))
    for item in items:
        out.put(item)
    out.close()
    return losses


def read(form: str, folder: Path) -> tuple[dict[str, list[Sample]], Rejects]:
    rejects = Rejects()
    name = READ_BY[form]
    splits = reader(name).read(str(folder), rejects)
    return {split: list(samples) for split, samples in splits.items()}, rejects


def item(name: str, *captions: str, split: str = "all", data: bytes | None = None, repeats: int = 1) -> Item:
    return Item(name, split, captions or ("a dog",), Picture(data or picture(), ".jpg"), repeats)


def test_every_form_that_is_written_is_read() -> None:
    assert set(READ_BY.values()) <= set(READERS)


@pytest.mark.parametrize("form", FORMS)
def test_names_captions_and_pictures_come_back(form: str, tmp_path: Path) -> None:
    captions = ("a dog runs", 'ein Hund 猫, "quoted"; it\'s')
    items = [item("b/c d.jpg", *captions, data=picture(1)), item("a.png", "one", data=picture(2, "PNG"))]
    written(form, tmp_path, items)
    assert detect(str(tmp_path)) == READ_BY[form]
    splits, rejects = read(form, tmp_path)
    assert not rejects
    found = {os.path.splitext(sample.id)[0].split("/")[-1]: sample for sample in splits["all"]}
    assert found["c d"].captions == (captions[:1] if form == "kohya" else captions)
    assert found["a"].captions == ("one",)
    assert (found["c d"].read(), found["a"].read()) == (picture(1), picture(2, "PNG"))
    if form in ("metadata-jsonl", "sidecar", "coco", "csv"):
        assert {sample.id for sample in splits["all"]} == {"b/c d.jpg", "a.png"}


@pytest.mark.parametrize("form", sorted(set(WRITERS) - {"kohya"}))
def test_splits_come_back(form: str, tmp_path: Path) -> None:
    names = ("train", "validation", "test")
    written(form, tmp_path, [item(f"{n}.jpg", f"caption {n}", split=split) for n, split in enumerate(names)])
    splits, rejects = read(form, tmp_path)
    assert not rejects
    assert {split: [sample.captions for sample in samples] for split, samples in splits.items()} == {
        split: [(f"caption {n}",)] for n, split in enumerate(names)
    }


def test_kohya_keeps_repeats_and_one_caption_and_splits_apart(tmp_path: Path) -> None:
    items = [
        item("10_dogs/1.jpg", "a", "b", "c", split="train", repeats=10),
        item("cats/2.jpg", "d", split="train", repeats=3),
        item("3.jpg", "e", split="validation"),
    ]
    losses = written("kohya", tmp_path, items)
    splits, _ = read("kohya", tmp_path / "train")
    assert {(sample.id, sample.captions, sample.repeats) for sample in splits["all"]} == {
        ("10_dogs/1.jpg", ("a",), 10),
        ("3_cats/2.jpg", ("d",), 3),
    }
    assert (tmp_path / "validation/1_images/3.txt").read_text() == "e\n"
    assert losses.lines() == [
        "each split is a folder and a data set of its own",
        "one caption an image: 2 more captions of 1 images are left out",
    ]


def test_images_that_would_share_a_text_file_do_not(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "a.jpg.png", "b.PNG", "B.jpg"]
    items = [item(name, f"caption of {name}") for name in names]
    losses = written("sidecar", tmp_path / "sidecar", items)
    splits, rejects = read("sidecar", tmp_path / "sidecar")
    assert {sample.id: sample.captions for sample in splits["all"]} == {name: (f"caption of {name}",) for name in names}
    assert not rejects and not losses.lines()
    assert (tmp_path / "sidecar/a.png.txt").read_text() == "caption of a.png\n"
    losses = written("kohya", tmp_path / "kohya", items)
    splits, rejects = read("kohya", tmp_path / "kohya")
    assert sorted(sample.captions[0] for sample in splits["all"]) == sorted(f"caption of {name}" for name in names)
    assert losses.lines() == ["2 images got other names, because theirs are taken or not fit for files"]


def test_line_breaks_in_texts_are_said(tmp_path: Path) -> None:
    losses = written("sidecar", tmp_path, [item("a.jpg", "one\n two", "three"), item("b.jpg", "\ufeffmark")])
    splits, _ = read("sidecar", tmp_path)
    assert [sample.captions for sample in splits["all"]] == [("one two", "three"), ("\ufeffmark",)]
    assert losses.lines() == ["captions with line breaks, in 1 images: written on one line, 1 in all"]


def test_jsonl_has_captions_only_where_some_image_has_several(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    written("metadata-jsonl", tmp_path / "one", [item("a.jpg", "x")])
    written("metadata-jsonl", tmp_path / "two", [item("a.jpg", "x"), item("b.jpg", "y", "z")])
    lines = [(tmp_path / folder / "metadata.jsonl").read_text().splitlines() for folder in ("one", "two")]
    assert [list(map(json.loads, table)) for table in lines] == [
        [{"file_name": "a.jpg", "text": "x"}],
        [
            {"file_name": "a.jpg", "text": "x", "captions": ["x"]},
            {"file_name": "b.jpg", "text": "y", "captions": ["y", "z"]},
        ],
    ]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["a.jpg", "b.jpg", "metadata.jsonl"]


def test_coco_has_what_coco_has(tmp_path: Path) -> None:
    written("coco", tmp_path, [item("a.jpg", "x", "y", split="train"), item("b.jpg", "z", split="validation")])
    train, val = (json.loads((tmp_path / f"captions_{name}.json").read_text()) for name in ("train", "val"))
    assert train["images"] == [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 6}]
    assert [(each["id"], each["image_id"], each["caption"]) for each in train["annotations"]] == [
        (1, 1, "x"),
        (2, 1, "y"),
    ]
    assert val["annotations"] == [{"id": 3, "image_id": 2, "caption": "z"}]
    assert set(train) == {"info", "images", "annotations"}


def test_tars_are_deterministic_plain_and_cut_into_shards(tmp_path: Path) -> None:
    items = [item(f"{n}.v1.jpg", f"first {n}", "second", split="train") for n in range(5)]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        losses = written("webdataset", tmp_path / folder, items, shard_size=2)
    assert losses.lines() == ["5 images got other names: keys of a tar's samples are short and have no dots"]
    shards = sorted((tmp_path / "one").iterdir())
    assert [shard.name for shard in shards] == [f"train-0000{n}.tar" for n in range(3)]
    assert all(shard.read_bytes() == (tmp_path / "two" / shard.name).read_bytes() for shard in shards)
    with tarfile.open(shards[0]) as tar:
        members = tar.getmembers()
        assert [member.name for member in members][:3] == ["0_v1.jpg", "0_v1.json", "0_v1.txt"]
        assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}
        assert tar.extractfile("1_v1.txt").read() == b"first 1"  # type: ignore[union-attr]


def test_other_libraries_read_tars_and_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets, webdataset = pytest.importorskip("datasets"), pytest.importorskip("webdataset")
    for form in ("webdataset", "parquet"):
        (tmp_path / form).mkdir()
        items = [item(f"x/{n}.jpg", f"first {n}", "second", split="train", data=picture(n)) for n in range(5)]
        written(form, tmp_path / form, items, shard_size=3)
    tars = sorted(map(str, (tmp_path / "webdataset").iterdir()))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("pil"))
    assert [(each["__key__"], each["txt"], each["jpg"].size) for each in samples][3] == ("x/3", "first 3", (8, 6))
    assert samples[4]["json"] == {"captions": ["first 4", "second"]}
    loaded = datasets.load_dataset("parquet", data_dir=str(tmp_path / "parquet"), cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded["train"].features["image"], datasets.Image)
    assert loaded["train"][4]["captions"] == ["first 4", "second"]
    assert (loaded["train"].num_rows, loaded["train"][0]["image"].size) == (5, (8, 6))


ODD_IDS = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="ab./\\ ..:*~-_\u00e9e\u0301\x00\n'\"", max_size=30),
    st.sampled_from(["../../etc/passwd", "/etc/passwd", "C:\\x.jpg", "..", "", "con.jpg", "__meta__/a", "a" * 400]),
).flatmap(lambda stem: st.sampled_from([stem, stem + ".jpg", stem + ".PNG"]))
TEXTS = st.text(max_size=40).filter(lambda text: sifted([text]) == ((text.strip(),), ()))  # no numbers, no lists
CAPTIONS = st.lists(TEXTS, min_size=1, max_size=4)


def as_read(caption: str, form: str) -> str:
    """What a form makes of a caption: readers strip; texts hold a line."""
    caption = caption.encode("utf-8", "replace").decode().strip()
    if form in ("sidecar", "kohya"):
        caption = " ".join(part.strip() for part in caption.splitlines() if part.strip())
    return caption


@pytest.mark.parametrize("form", FORMS)
@given(content=st.lists(st.tuples(ODD_IDS, CAPTIONS), min_size=1, max_size=6, unique_by=lambda pair: pair[0]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_odd_names_and_captions_come_back_and_nothing_leaves_the_folder(form: str, content: list) -> None:
    with tempfile.TemporaryDirectory() as place:
        above, folder = Path(place), Path(place) / "inner" / "out"
        folder.mkdir(parents=True)
        cleaned = [(name, [text.encode("utf-8", "replace").decode() for text in texts]) for name, texts in content]
        written(form, folder, [item(name, *texts, data=picture(n)) for n, (name, texts) in enumerate(cleaned)])
        assert all(path.is_relative_to(folder) for path in above.rglob("*") if path.is_file())
        splits, rejects = read(form, folder)
        assert not rejects, rejects.lines
        found = {sample.read(): sample.captions for samples in splits.values() for sample in samples}
        for n, (_, texts) in enumerate(cleaned):
            expected = tuple(as_read(text, form) for text in texts)
            assert found[picture(n)] == (expected[:1] if form == "kohya" else expected)


@given(name=ODD_IDS)
@settings(max_examples=300, deadline=None)
def test_safe_names_are_safe_and_stay_themselves(name: str) -> None:
    found = safe_name(name)
    parts = found.split("/")
    assert all(part not in ("", ".", "..") and not part.startswith(".") for part in parts)
    assert not set('<>:"|?*\\\0\n') & set(found)
    assert all(len(part.encode()) <= 200 for part in parts)
    assert safe_name(found) == found


@pytest.mark.parametrize("name", ["nested/dog 1.jpg", "naïve 猫.jpg", "000000391895", "a.b.c/d-e_f(1)'.png"])
def test_plain_names_stay(name: str) -> None:
    assert safe_name(name) == name


def test_encoding_turns_upright_and_scales_down_only() -> None:
    exif = Image.Exif()
    exif[274] = 6  # turn by 90 degrees
    file = BytesIO()
    Image.new("RGB", (400, 200), "red").save(file, "JPEG", exif=exif)
    small = Image.open(BytesIO(encode(file.getvalue(), 100, 90, 1_000_000).read()))
    assert (small.size, small.getexif().get(274), small.format) == ((50, 100), None, "JPEG")
    same = Image.open(BytesIO(encode(file.getvalue(), 1000, 90, 1_000_000).read()))
    assert same.size == (200, 400)


def test_cells_that_a_spreadsheet_would_run_are_quoted_where_asked(tmp_path: Path) -> None:
    from captrain.data.convert import convert
    from captrain.data.readers import csv_table
    from captrain.records import Rejects

    captions = ["=1+1", "+a", "-a", "@a", "'=a", "'quoted'", "a dog", "＝1"]
    rows = [{"file_name": "a.png", "text": caption} for caption in captions]
    tiny_photos(tmp_path / "made", count=1, size=16)
    next((tmp_path / "made").glob("*.png")).rename(tmp_path / "a.png")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    convert(str(tmp_path / "t.jsonl"), tmp_path / "out", "csv", quote_formulas=True)
    with (tmp_path / "out/metadata.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "＝"))]
    (sample,) = csv_table.read(str(tmp_path / "out/metadata.csv"), Rejects())["all"]
    assert sample.captions == tuple(captions)
