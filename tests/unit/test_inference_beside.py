"""Captions into the files beside pictures: which file is changed, how it is written, what an interruption leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from captrain.data.machine import Ledger
from captrain.data.options import ReadOptions
from captrain.data.readers.sidecar import read
from captrain.inference.caption_files import CaptionOutcome, caption_files
from captrain.inference.captioner import Captioner
from captrain.records import Rejects
from captrain.testing import LESSONS, clear_pictures

FIRST, SECOND = LESSONS[:2]


@pytest.fixture(scope="module")
def model(taught_folders: dict[str, Path]) -> str:
    return str(taught_folders["blip"])


@pytest.fixture(scope="module")
def writer(model: str) -> Captioner:
    return Captioner.load(model, "cpu", "fp32")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Captioner) -> Path:
    """Two pictures that the model has a sentence for; the working folder is elsewhere, and the model is loaded once."""
    monkeypatch.setattr(Captioner, "load", lambda *_: writer)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, picture in enumerate(clear_pictures(8)[:2]):
        Image.fromarray(picture).save(folder / f"{number}.png")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def caption(model: str, photos: Path, existing: str = "skip", **options: object) -> CaptionOutcome:
    settings = {"device": "cpu", "precision": "fp32", "max_pixels": 1_000_000, "decoding": {}, **options}
    return caption_files(model, [str(photos)], existing=existing, **settings)  # type: ignore[arg-type]


def texts(photos: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(photos.iterdir()) if path.suffix not in (".png", "")}


@pytest.mark.parametrize("name", ["0.caption", "0.TXT", "0.png.txt", "0.Caption"])
def test_a_caption_of_any_ending_is_a_caption(model: str, photos: Path, name: str) -> None:
    (photos / name).write_text("mine\n")
    assert caption(model, photos) == CaptionOutcome(1, 1, 0, None)
    assert texts(photos) == {name: b"mine\n", "1.txt": f"{SECOND}\n".encode()}
    caption(model, photos, "append")
    assert texts(photos) == {name: f"mine\n{FIRST}\n".encode(), "1.txt": f"{SECOND}\n".encode()}
    caption(model, photos, "overwrite")
    assert texts(photos) == {name: f"{FIRST}\n".encode(), "1.txt": f"{SECOND}\n".encode()}


@pytest.mark.parametrize("content", [b"", b" \n", b"\xef\xbb\xbf\n"])
def test_an_empty_file_is_filled(model: str, photos: Path, content: bytes) -> None:
    (photos / "0.caption").write_bytes(content)
    assert caption(model, photos).written == 2
    assert list(texts(photos)) == ["0.caption", "1.txt"]
    (samples,) = read(str(photos), Rejects()).values()
    assert [sample.captions for sample in samples] == [(FIRST,), (SECOND,)]


def test_the_caption_extension_is_written_too(model: str, photos: Path) -> None:
    (photos / "0.tags").write_text("mine\n")
    caption(model, photos, options=ReadOptions(caption_extension="tags"))
    assert texts(photos) == {"0.tags": b"mine\n", "1.tags": f"{SECOND}\n".encode()}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("existing", ["append", "prepend"])
def test_a_file_keeps_its_encoding_and_line_breaks(model: str, photos: Path, encoding: str, existing: str) -> None:
    (photos / "0.txt").write_bytes("größer\r\n".encode(encoding))
    caption(model, photos, existing)
    lines = ["größer", FIRST] if existing == "append" else [FIRST, "größer"]
    assert (photos / "0.txt").read_bytes() == "".join(f"{line}\r\n" for line in lines).encode(encoding)


def test_a_set_in_another_encoding_is_read_and_written_in_it(model: str, photos: Path) -> None:
    (photos / "0.txt").write_bytes("猫\n".encode("cp932"))
    caption(model, photos, "append", options=ReadOptions(encoding="cp932"))
    assert (photos / "0.txt").read_bytes() == f"猫\n{FIRST}\n".encode("cp932")


@pytest.mark.parametrize("existing", ["skip", "append", "prepend"])
def test_a_file_that_cannot_be_read_is_left_and_listed_and_the_rest_goes_on(
    model: str, photos: Path, existing: str
) -> None:
    (photos / "0.txt").write_bytes(b"caf\xe9\n")
    outcome = caption(model, photos, existing)
    assert (outcome.written, outcome.skipped, outcome.rejected) == (1, 0, 1)
    assert texts(photos) == {"0.txt": b"caf\xe9\n", "1.txt": f"{SECOND}\n".encode()}
    (line,) = [json.loads(line) for line in Path("captrain-rejected.jsonl").read_text().splitlines()]
    assert line["where"].endswith("0.txt")
    assert line["reason"] == "is not UTF-8 (byte 3)"
    assert caption(model, photos, "overwrite").written == 2


@pytest.mark.parametrize("existing", ["append", "prepend"])
def test_a_repeated_command_adds_nothing_twice(model: str, photos: Path, existing: str) -> None:
    (photos / "0.txt").write_text("mine\n")
    assert caption(model, photos, existing) == CaptionOutcome(2, 0, 0, None)
    after = texts(photos)
    assert caption(model, photos, existing) == CaptionOutcome(0, 2, 0, None)
    assert texts(photos) == after
    other_way = caption(model, photos, existing, decoding={"max_new_tokens": 1})
    assert other_way.written == 2
    (photos / "0.txt").write_text("mine, and edited\n")
    assert caption(model, photos, existing) == CaptionOutcome(1, 1, 0, None)


class Killed(BaseException):
    """In place of a signal: nothing in the product catches it."""


def killed_at(step: int) -> Iterator[None]:
    for _ in range(step):
        yield
    raise Killed


@pytest.mark.parametrize("existing", ["append", "prepend", "overwrite", "skip"])
def test_interrupted_anywhere_and_repeated_it_ends_as_if_it_was_not(
    model: str, photos: Path, existing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before a change is noted, between that and the change, and after it."""
    from captrain.inference import beside

    def prepare() -> None:
        for name in texts(photos):
            (photos / name).unlink()
        if (ledger := photos / ".captrain" / "captions.jsonl").exists():
            ledger.unlink()
        (photos / "0.txt").write_text("mine\n")

    prepare()
    caption(model, photos, existing)
    wanted = texts(photos)
    add, write = Ledger.add, beside.write_bytes
    for step in range(4 if existing != "skip" else 2):
        prepare()
        steps = killed_at(step)
        monkeypatch.setattr(Ledger, "add", lambda ledger, change, steps=steps: (next(steps), add(ledger, change)))
        monkeypatch.setattr(
            beside, "write_bytes", lambda path, content, steps=steps, **how: (next(steps), write(path, content, **how))
        )
        with pytest.raises(Killed):
            caption(model, photos, existing)
        monkeypatch.setattr(Ledger, "add", add)
        monkeypatch.setattr(beside, "write_bytes", write)
        caption(model, photos, existing)
        assert texts(photos) == wanted, step


def test_a_file_that_was_written_for_one_of_two_pictures_is_not_the_others(model: str, photos: Path) -> None:
    Image.fromarray(clear_pictures(8)[4]).save(photos / "0.bmp")
    assert caption(model, photos).rejected == 1
    outcome = caption(model, photos)
    assert (outcome.written, outcome.skipped, outcome.rejected) == (0, 2, 1)
    assert "would share 0.txt with 0.bmp; use --output" in Path("captrain-rejected.jsonl").read_text()


def test_what_was_written_is_known_as_a_machines(model: str, photos: Path) -> None:
    (photos / "0.txt").write_text("mine\n")
    caption(model, photos, "append")
    (samples,) = read(str(photos), Rejects()).values()
    assert [[maker.split(" ")[0] for maker in sample.machine] for sample in samples] == [["", model], [model]]
    (photos / "1.txt").write_text("better\n")
    (samples,) = read(str(photos), Rejects(), ReadOptions(machine_captions=False)).values()
    assert [sample.captions for sample in samples] == [("mine",), ("better",)]


def test_lines_of_one_file_say_what_wrote_them(model: str, photos: Path, tmp_path: Path) -> None:
    caption(model, photos)
    (photos / "0.txt").write_text("mine\n")
    caption(model, photos, output=tmp_path / "captions.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert all(line["written_by"].startswith(f"captrain {model} ") for line in lines)
    assert [line.get("references") for line in lines] == [["mine"], None], "a machine's caption is no reference"
