"""AVIF, which Pillow reads, and HEIC, which an extra brings: found, turned upright, converted; without the extra, said."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captrain.data import decode, picture_files
from captrain.data.convert import convert
from captrain.data.decode import MAX_PIXELS
from captrain.data.readers import detect, reader
from captrain.disk.reading import POINTER
from captrain.errors import PictureError
from captrain.records import Rejects


def scene(width: int = 48, height: int = 32) -> Image.Image:
    """Red above, blue below."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, :, 0] = pixels[height // 2 :, :, 2] = 200
    return Image.fromarray(pixels)


def encoded(kind: str, orientation: int = 1) -> bytes:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene().save(file, kind, exif=exif.tobytes(), quality=90)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_pictures_come_out_upright(kind: str) -> None:
    data = encoded(kind)
    assert decode.decode(data, MAX_PIXELS).size == (48, 32)
    red, blue = (decode.decode(data, MAX_PIXELS).getpixel((24, row)) for row in (4, 28))
    assert red[0] > 150 > red[2] and blue[2] > 150 > blue[0]  # type: ignore[index]
    assert decode.decode(encoded(kind, orientation=6), MAX_PIXELS).size == (32, 48)
    with pytest.raises(PictureError, match="over the limit of 100"):
        decode.decode(data, 100)
    with pytest.raises(PictureError, match=r"^is (broken|truncated)"):
        decode.decode(data[: len(data) // 2], MAX_PIXELS)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_pictures_without_any_notes_are_read(kind: str) -> None:
    encoded(kind)  # makes Pillow know HEIF
    file = BytesIO()
    scene().save(file, kind)
    assert decode.decode(file.getvalue(), MAX_PIXELS).size == (48, 32)


@pytest.mark.parametrize(("kind", "suffix"), [("AVIF", ".avif"), ("HEIF", ".HEIC")])
@pytest.mark.parametrize("to", ["metadata-jsonl", "coco"])
def test_a_folder_of_them_is_a_data_set(tmp_path: Path, kind: str, suffix: str, to: str) -> None:
    data = encoded(kind)
    (tmp_path / "in").mkdir()
    (tmp_path / f"in/a{suffix}").write_bytes(data)
    (tmp_path / "in/a.txt").write_text("red above blue")
    done = convert(str(tmp_path / "in"), tmp_path / "out", to)
    assert done.rejected == 0 and sum(done.written.values()) == 1
    assert [path.read_bytes() for path in (tmp_path / "out").rglob(f"a{suffix}")] == [data]


def test_without_the_extra_the_next_step_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "HAS_HEIF", False)
    with pytest.raises(PictureError, match=r"is a HEIC picture; pip install 'captrain\[heif\]'"):
        decode.decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", MAX_PIXELS)
    assert "pip install 'captrain[heif]'" in picture_files.unread(".HEIC")
    assert picture_files.unread(".psd") == "is a .psd file, which is not read; convert it to JPEG"


def test_a_pointer_in_place_of_a_picture_is_called_that(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    with pytest.raises(PictureError, match="git lfs pull"):
        decode.decode(pointer, MAX_PIXELS)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(pointer)
    Image.new("L", (8, 8)).save(tmp_path / "in/b.png")
    rows = [{"file_name": name, "text": "x"} for name in ("a.jpg", "b.png")]
    (tmp_path / "in/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = convert(str(tmp_path / "in"), tmp_path / "out", "metadata-jsonl")
    assert (done.rejected, sum(done.written.values())) == (1, 1)
    assert POINTER in (tmp_path / "out/rejected.jsonl").read_text()


@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.jsonl", "t.parquet", "t.tar", "t.txt", "metadata.csv"])
def test_a_pointer_in_place_of_a_table_or_tar_is_called_that(tmp_path: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (tmp_path / name).write_text(pointer)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    sources = [tmp_path / name] if name == "t.txt" else [tmp_path / name, tmp_path]
    for source in sources:
        with pytest.raises(Exception, match=rf"{name}.*git lfs pull"):
            reader(detect(str(source))).read(str(source), Rejects())
