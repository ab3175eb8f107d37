"""Names with dots in tars: every image finds its caption by the longest stem, and WebDataset's own names stay what they are."""

from __future__ import annotations

import io
import json
import random
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.options import ReadOptions
from captrain.data.readers import webdataset
from captrain.data.shards.stream import stream_samples
from captrain.records import Rejects, Sample


def write_tar(path: Path, content: dict[str, str]) -> str:
    with tarfile.open(path, "w") as tar:
        for name, text in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return str(path)


def read(source: str, captioned: bool = True, **options: str) -> tuple[dict[str, Sample], dict[str, str]]:
    rejects = Rejects()
    splits = webdataset.read(source, rejects, ReadOptions(**options), captioned=captioned)  # type: ignore[arg-type]
    samples = {sample.id: sample for samples in splits.values() for sample in samples}
    return samples, {line["id"]: line["reason"] for line in rejects.lines}


def captions(source: str, **options: str) -> dict[str, tuple[str, ...]]:
    return {id: sample.captions for id, sample in read(source, **options)[0].items()}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("22.05.jpg", "22.05.txt"), {"22.05.jpg": "22.05.txt"}),
        (("22.05.jpg", "22.05.txt", "22.10.jpg", "22.10.txt"), {"22.05.jpg": "22.05.txt", "22.10.jpg": "22.10.txt"}),
        (("22.05.txt", "22.10.txt", "22.05.jpg", "22.10.jpg"), {"22.05.jpg": "22.05.txt", "22.10.jpg": "22.10.txt"}),
        (("22.05.jpg", "22.05.txt", "22.jpg", "22.txt"), {"22.05.jpg": "22.05.txt", "22.jpg": "22.txt"}),
        (("a.b.c.jpg", "a.b.c.txt", "a.b.d.PNG", "a.b.d.txt"), {"a.b.c.jpg": "a.b.c.txt", "a.b.d.PNG": "a.b.d.txt"}),
        (("1.1.a.jpg", "1.1.txt", "1.2.a.jpg", "1.2.txt"), {"1.1.a.jpg": "1.1.txt", "1.2.a.jpg": "1.2.txt"}),
        (("0001.cls.txt", "0001.left.jpg", "0001.txt"), {"0001.left.jpg": "0001.txt"}),
        (("0001.jpg", "0001.thumb.jpg", "0001.thumb.json", "0001.txt"), {"0001.jpg": "0001.txt"}),
        (("0001.left.jpg", "0001.left.png", "0001.txt"), {"0001.left.jpg": "0001.txt"}),
        (("photo.v2.jpg", "photo.txt"), {"photo.v2.jpg": "photo.txt"}),
        (("v.1.jpg", "v.1.jpg.txt", "v.2.jpg", "v.2.jpg.txt"), {"v.1.jpg": "v.1.jpg.txt", "v.2.jpg": "v.2.jpg.txt"}),
        (("w.jpg", "w.jpg.txt", "x.png.txt", "x.png"), {"w.jpg": "w.jpg.txt", "x.png": "x.png.txt"}),
        (("1.jpg", "1.a.jpg", "z.jpg", "z.txt", "1.txt", "1.a.txt"),
         {"1.jpg": "1.txt", "1.a.jpg": "1.a.txt", "z.jpg": "z.txt"}),
        (("22.05.jpg", "23.05.jpg", "22.10.jpg", "22.05.txt", "23.05.txt", "22.10.txt"),
         {"22.05.jpg": "22.05.txt", "23.05.jpg": "23.05.txt", "22.10.jpg": "22.10.txt"}),
    ],
)  # fmt: skip
def test_pairs(tmp_path: Path, names: tuple[str, ...], expected: dict[str, str]) -> None:
    content = {name: "{}" if name.endswith("json") else name for name in names}
    found, rejected = read(write_tar(tmp_path / "s.tar", content))
    assert {id: sample.captions for id, sample in found.items()} == {id: (text,) for id, text in expected.items()}
    assert not rejected
    assert all(sample.read() == id.encode() for id, sample in found.items())


def test_json_and_given_keys(tmp_path: Path) -> None:
    content = {f"a.{name}.{kind}": name for name in ("x", "y") for kind in ("jpg", "txt")}
    content |= {f"a.{name}.json": json.dumps({"title": f"title {name}"}) for name in ("x", "y")}
    source = write_tar(tmp_path / "s.tar", dict(sorted(content.items())))
    assert captions(source) == {"a.x.jpg": ("x",), "a.y.jpg": ("y",)}
    titles = {"a.x.jpg": ("title x",), "a.y.jpg": ("title y",)}
    assert captions(source, caption_key="json/title", image_key="jpg") == titles
    assert captions(source, image_key="x.jpg", caption_key="x.txt") == {"a.x.jpg": ("x",)}


def test_what_stays_open_is_said(tmp_path: Path) -> None:
    content = {
        "0.jpg": "i",
        "0.en.txt": "a dog",
        "1.left.jpg": "i",
        "1.right.jpg": "i",
        "1.txt": "x",
        "2.jpg": "i",
        "2.txt": "y",
    }
    found, rejected = read(write_tar(tmp_path / "s.tar", content))
    assert list(found) == ["2.jpg"]
    assert rejected["0.jpg"] == "has no caption beside it; --caption-key says whether en.txt is one"
    assert "several images (left.jpg, right.jpg); --image-key" in rejected["1.left.jpg"]


def test_a_pair_is_not_lost_with_an_image_that_has_no_caption(tmp_path: Path) -> None:
    found, rejected = read(write_tar(tmp_path / "s.tar", {"22.05.jpg": "i", "22.05.txt": "x", "22.jpg": "i"}))
    assert list(found) == ["22.05.jpg"] and rejected == {"22.jpg": "has no caption beside it"}


def test_an_image_key_takes_no_other_variant(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "s.tar", {"1.jpg": "i", "1.txt": "x", "2.thumb.jpg": "i", "2.txt": "y"})
    assert list(captions(source, image_key="jpg")) == ["1.jpg"]


def test_dated_pictures_without_captions_are_pictures(tmp_path: Path) -> None:
    names = [f"2023.05.{day:02d}.jpg" for day in range(1, 250)]
    samples, rejected = read(write_tar(tmp_path / "s.tar", dict.fromkeys(names, "i")), captioned=False)
    assert list(samples) == names
    assert not rejected


STEMS = st.lists(st.sampled_from(["1", "2", "05", "a"]), min_size=2, max_size=4).map(".".join)


@settings(max_examples=60, deadline=None)
@given(stems=st.sets(STEMS, min_size=1, max_size=6), many=st.booleans(), seed=st.none() | st.integers(0, 99))
def test_every_image_has_its_own_caption_in_any_order(stems: set[str], many: bool, seed: int | None) -> None:
    """Sorted or not, few or hundreds under one first part; a stream, which reads forward only, gives the same where sorted."""
    if many:
        stems |= {f"{stem}.{number}" for stem in stems for number in range(60)}
    names = [f"{stem}.{kind}" for stem in sorted(stems) for kind in ("jpg", "txt")]
    if seed is not None:
        random.Random(seed).shuffle(names)
    with tempfile.TemporaryDirectory() as folder:
        source = write_tar(Path(folder) / "s.tar", {name: name for name in names})
        found, rejected = read(source)
        assert {id: sample.captions for id, sample in found.items()} == {
            f"{stem}.jpg": (f"{stem}.txt",) for stem in stems
        }
        assert not rejected
        if seed is None:
            rejects = Rejects()
            streamed = list(stream_samples(source, shuffle_buffer=0, rejects=rejects))
            assert {sample.id: sample.captions for sample in streamed} == captions(source)
            assert not rejects
