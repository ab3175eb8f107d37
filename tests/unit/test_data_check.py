"""`captrain.data.check`: a data set with something of everything."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captrain.data.check.check import CheckLimits, check_data
from captrain.data.check.problems import KINDS


def photo(path: Path, seed: int, size: tuple[int, int] = (120, 90), **options: object) -> Path:
    """A picture unlike those of other seeds."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def bomb() -> bytes:
    """A PNG of a few bytes whose header promises ten thousand million pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(path, 3, exif=exif)


def moving(path: Path) -> None:
    frames = [Image.new("RGB", (80, 80), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


PICTURES: dict[str, tuple[str, Callable[[Path], object]]] = {  # file → the kind of problem, and what makes it
    "cut.jpg": ("truncated", lambda path: path.write_bytes(photo(path, 1).read_bytes()[:900])),
    "empty.jpg": ("unreadable", lambda path: path.write_bytes(b"")),
    "text.jpg": ("unreadable", lambda path: path.write_text("not a picture")),
    "bomb.png": ("too-large", lambda path: path.write_bytes(bomb())),
    "one.png": ("tiny", lambda path: Image.new("RGB", (1, 1)).save(path)),
    "turned.jpg": ("turned", turned),
    "moving.gif": ("animated", moving),
}


@pytest.mark.parametrize("name", PICTURES)
def test_each_fault_of_a_picture_is_found(tmp_path: Path, name: str) -> None:
    kind, make = PICTURES[name]
    make(tmp_path / name)
    (tmp_path / name).with_suffix(".txt").write_text("a caption")
    photo(tmp_path / "good.jpg", 9)
    (tmp_path / "good.txt").write_text("another caption")
    found = check_data(str(tmp_path))
    assert found.findings.counts() == {kind: 1}
    assert found.wrong == (KINDS[kind].grade == "wrong")
    assert [line["id"] for line in found.lines()] == [name]


def test_orphans_and_foreign_letters_come_from_the_reader(tmp_path: Path) -> None:
    for name in ("good", "latin", "blank", "bare"):
        photo(tmp_path / f"{name}.jpg", len(name))
    (tmp_path / "good.txt").write_text("a good caption")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "blank.txt").write_text("  \n")
    (tmp_path / "orphan.txt").write_text("a caption of nothing")
    found = check_data(str(tmp_path))
    counts = found.findings.counts()
    assert counts == {"no-caption": 1, "no-picture": 1, "not-utf-8": 1, "empty-caption": 1}
    assert {(line["problem"], line["id"]) for line in found.lines()} == {
        ("no-caption", "bare.jpg"),
        ("no-picture", "orphan.txt"),
        ("not-utf-8", "latin.txt"),
        ("empty-caption", "blank.txt"),
    }


def tables(folder: Path, **splits: list[str]) -> Path:
    for split, names in splits.items():
        lines = [json.dumps({"file_name": name, "text": f"caption of {name} in {split}"}) for name in names]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_picture_in_two_splits_is_wrong_and_within_one_a_remark(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg", 1, (320, 240))
    for copy in ("same.jpg", "leak.jpg"):
        shutil.copy(tmp_path / "a.jpg", tmp_path / copy)
    photo(tmp_path / "small.jpg", 1, (160, 120))
    photo(tmp_path / "b.jpg", 2, (320, 240))
    photo(tmp_path / "small-b.webp", 2, (160, 120))
    found = check_data(
        str(tables(tmp_path, dev=["leak.jpg", "small.jpg"], train=["a.jpg", "same.jpg", "b.jpg", "small-b.webp"]))
    )
    about = {(line["problem"], line["id"], line["reason"]) for line in found.lines()}
    assert about == {
        ("same-across-splits", "a.jpg", "is the same file as leak.jpg (validation)"),
        ("same-across-splits", "same.jpg", "is the same file as leak.jpg (validation)"),
        ("near", "small.jpg", "looks like leak.jpg"),
        ("near", "small-b.webp", "looks like b.jpg"),
    }
    assert found.wrong == 2


def test_a_scaled_copy_in_another_split_is_wrong(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg", 1, (320, 240))
    photo(tmp_path / "small.jpg", 1, (160, 120))
    found = check_data(str(tables(tmp_path, train=["a.jpg"], test=["small.jpg"])))
    assert found.findings.counts() == {"near-across-splits": 1}


def test_counts_and_lengths(tmp_path: Path) -> None:
    for number in range(3):
        photo(tmp_path / f"{number}.png", number)
        (tmp_path / f"{number}.txt").write_text("\n".join(f"a dog and cat {line}" for line in range(number + 1)))
    found = check_data(str(tmp_path), workers=1)
    assert (found.images, found.captions, found.splits) == (3, 6, {"all": 3})
    assert found.captions_per_image == (1, 2.0, 3)
    assert found.size == (120, 90)
    assert found.words is not None
    assert found.words.bins == ((1, 5, 6),)
    assert found.vocabulary == 7
    assert dict(found.common_words)["dog"] == 6
    assert json.loads(json.dumps(found.to_dict()))["problems"] == {}


def test_limits_are_the_callers(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 1)
    (tmp_path / "a.txt").write_text("one two three")
    assert not check_data(str(tmp_path)).findings
    strict = check_data(str(tmp_path), limits=CheckLimits(min_edge=91, max_words=2))
    assert strict.findings.counts() == {"tiny": 1, "long-caption": 1}
    assert check_data(str(tmp_path), limits=CheckLimits(max_pixels=10_000)).findings.counts() == {"too-large": 1}


def test_the_same_is_found_with_any_number_of_threads(tmp_path: Path) -> None:
    for number in range(150):
        photo(tmp_path / f"{number:03}.jpg", number // 2, (64 + number, 64))
        (tmp_path / f"{number:03}.txt").write_text(f"caption {number}")
    one, three = (check_data(str(tmp_path), workers=workers).to_dict() for workers in (1, 3))
    assert one == three
    assert one["images"] == 150


def test_rejects_file_lists_everything(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name, (_, make) in PICTURES.items():
        make(data / name)
        (data / name).with_suffix(".txt").write_text(f"a caption of {name}")
    found = check_data(str(data))
    found.write_rejects(tmp_path / "list.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "list.jsonl").read_text().splitlines()]
    assert {line["id"]: line["problem"] for line in lines} == {name: kind for name, (kind, _) in PICTURES.items()}
    assert all(set(line) == {"id", "where", "reason", "problem", "grade"} for line in lines)


def test_real_photos(shared_data: Path) -> None:
    found = check_data(str(shared_data / "data" / "coco-mini"))
    assert (found.images, found.captions) == (239, 1195)
    assert found.findings.counts() == {}
