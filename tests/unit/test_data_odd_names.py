"""Whatever a picture is called: it gets its caption, in every form and back, or it is rejected by name."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import unicodedata
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from captrain.data.convert import convert
from captrain.data.dataset import list_images, read_splits
from captrain.data.machine import Maker
from captrain.data.options import ReadOptions
from captrain.data.writers import WRITERS
from captrain.inference.beside import Beside
from captrain.records import Caption, Rejects, Sample, json_line

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems take fewer names")

MAKER = Maker("runs/album", "3f9a", "2026-12-01")
TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
LONGEST = 255  # bytes of a name


def encoded(shade: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, 0)).save(file, "PNG")
    return file.getvalue()


PICTURES = [encoded(shade) for shade in range(12)]

stems = st.one_of(
    st.binary(min_size=1, max_size=LONGEST),
    st.text(min_size=1, max_size=80).map(
        lambda text: text.encode("utf-8", "surrogateescape" if text < "\ud800" else "replace")
    ),
    st.sampled_from(
        [
            b"-rf",
            b"--help",
            b"CON",
            b"nul.tar",
            b"com1",
            b"dog.",
            b"dog ",
            b" dog",
            b"Dog",
            b"dog",
            b"dog.jpg",
            b"dog.txt",
        ]
        + [
            b"a\nb",
            b"a\r\nb",
            b"\x1b[31mred",
            b"x\t,\"'",
            b"metadata",
            b"10_dog",
            b"\xff\xfe",
            b"*",
            b"..dog",
            b"a\\b",
            b"C:",
        ]
        + [
            text.encode()
            for text in ("caf\u00e9", "cafe\u0301", "r\u202egnp", "\U0001f600", "\u2028", "\x85", "\ufeff")
        ]
        + [b"a" * 251, "\u00e9".encode() * 125, b"a" * 247]
    ),
)
names = st.builds(lambda stem, suffix: stem.translate(bytes.maketrans(b"/\0", b"__"))[: LONGEST - len(suffix)] + suffix,
                  stems, st.sampled_from([b".png", b".PNG", b".jpg"]))  # fmt: skip


def captioned_by_us(folder: Path) -> tuple[dict[bytes, str], Rejects]:
    """The captions that were put beside pictures, by their bytes, and what was rejected."""
    rejects, put = Rejects(), {}
    samples = list_images([str(folder)], rejects)
    beside = Beside(".txt", "skip", ReadOptions())
    wanted = [sample for sample in samples if beside.wants(sample, rejects)]
    beside.begin(MAKER)
    for number, sample in enumerate(wanted):
        beside.put(sample, Caption(sample.id, f"caption {number}"))
        put[sample.read()] = f"caption {number}"
    return put, rejects


def read_back(folder: Path) -> dict[bytes, tuple[str, ...]]:
    splits = read_splits(str(folder), Rejects()).values()
    return {sample.read(): sample.captions for split in splits for sample in split}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(names, min_size=1, max_size=8, unique=True))
def test_any_name_goes_everywhere_and_back_or_is_rejected(files: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "photos")
        folder.mkdir()
        for name, content in zip([b"plain.png", *files], PICTURES, strict=False):
            Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(content)
        seen = [name for name in os.listdir(folder) if not name.startswith(".")]
        put, rejects = captioned_by_us(folder)
        assert len(put) + len(rejects) == len(seen)
        assert all(json.loads(json_line(line)) == line for line in rejects.lines)
        captions = read_back(folder)  # of twins that share a file, too
        assert {content: captions[content] for content in put} == {content: (text,) for content, text in put.items()}
        assert all(found in map(captions.get, put) for found in captions.values())
        for form in WRITERS:
            convert(str(folder), Path(place, form), form)
            assert read_back(Path(place, form)) == captions, form
            for path in Path(place, form).rglob("*"):
                path.name.encode("utf-8")
                assert not any(
                    unicodedata.category(letter) in ("Cc", "Zl", "Zp") or letter in TURNING for letter in path.name
                )
                assert len({each.name.casefold() for each in path.parent.iterdir()}) == len(list(path.parent.iterdir()))


def test_a_caption_file_whose_name_would_be_too_long_is_told(tmp_path: Path) -> None:
    (tmp_path / ("a" * 251 + ".png")).write_bytes(PICTURES[0])
    rejects = Rejects()
    (sample,) = list_images([str(tmp_path)], rejects)
    assert Beside(".txt", "skip", ReadOptions()).wants(sample, rejects)
    assert not Beside(".caption", "skip", ReadOptions()).wants(sample, rejects)
    assert rejects.lines[0]["reason"] == "would have a name that is too long for a file; use --output"


def test_lines_of_json_keep_bytes_that_are_no_text() -> None:
    line = {"id": os.fsdecode(b"caf\xe9.png"), "text": "caf\u00e9\n\u2028\x1b"}
    assert json.loads(json_line(line)) == line
    assert json_line(line).count(b"\n") == 1
    rejects = Rejects()
    rejects.add(line["id"], f"photos/{line['id']}", "is half \ud800")
    assert rejects.lines[0] == {"id": "caf\\xe9.png", "where": "photos/caf\\xe9.png", "reason": "is half \\ud800"}


def test_twins_in_every_form_have_captions_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    twins = ["dog.jpg", "Dog.jpg", "dog.png", "DOG.PNG", "caf\u00e9.png", "cafe\u0301.png", "CON.png", "con.jpg"]
    rows = []
    for name, content in zip(twins, PICTURES, strict=False):
        (folder / name).write_bytes(content)
        rows.append({"file_name": name, "text": f"this is {name}"})
    (folder / "metadata.jsonl").write_text("".join(map(json.dumps, rows)).replace("}{", "}\n{"))
    before = read_back(folder)
    assert len(before) == len(twins)
    for form in WRITERS:
        convert(str(folder), tmp_path / form, form)
        assert read_back(tmp_path / form) == before, form


def test_many_twins_cost_no_more_than_as_many_others(tmp_path: Path) -> None:
    """Twenty times as many pictures may cost twenty times as much, not four hundred times."""
    taken = []
    for count in (200, 4000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count // 2):
            for ending in (".jpg", ".jpg.png"):
                (folder / f"{number}{ending}").touch()
        rejects = Rejects()
        samples = list_images([str(folder)], rejects)
        beside = Beside(".txt", "skip", ReadOptions())
        start = time.perf_counter()
        assert sum(beside.wants(sample, rejects) for sample in samples) == count
        taken.append(time.perf_counter() - start)
    assert taken[1] < 100 * taken[0] + 0.5


def test_pictures_that_vanish_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(PICTURES[number])
        (folder / f"{number}.txt").write_text("a dog\n")
    from captrain.data.writers import pictures

    made = pictures.Picture.of

    def vanishing(sample: Sample) -> pictures.Picture:
        found = made(sample)
        if sample.id == "1.png":
            (folder / "1.png").unlink()
        return found

    monkeypatch.setattr(pictures.Picture, "of", vanishing)
    for form in WRITERS:
        (folder / "1.png").write_bytes(PICTURES[1])
        found = convert(str(folder), tmp_path / form, form)
        assert (sum(found.written.values()), found.rejected) == (2, 1), form
        assert sorted(captions for captions in read_back(tmp_path / form).values()) == [("a dog",)] * 2
