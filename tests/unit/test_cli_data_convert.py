"""`captrain data convert`, `compile` and `formats` on real files, by the words that people type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

import captrain
from captrain.api.data_sets import WRITTEN_AS, WrittenForm
from captrain.cli import main
from captrain.data.readers import READERS
from captrain.data.writers import WRITERS


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (32, 16), "red").save(folder / f"{name}.jpg")
        (folder / f"{name}.caption").write_text(f"{name} one\n{name} two\n")
    return folder


def test_convert(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = f"data convert {photos} {out} --to metadata-jsonl --max-side 16 --caption-extension caption"
    assert main([*words.split(), "--caption-lines", "whole"]) == 0
    lines = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert lines == [{"file_name": f"{name}.jpg", "text": f"{name} one {name} two"} for name in ("a", "b")]
    assert Image.open(out / "a.jpg").size == (16, 8)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["images", "2"], ["folder", str(out)]]


def test_convert_with_rejects_returns_3(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "b.caption").unlink()
    assert main(["data", "convert", str(photos), str(tmp_path / "out"), "--to", "sidecar", "--images", "link"]) == 3
    assert f"1 (listed in {tmp_path / 'out' / 'rejected.jsonl'})" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--to sidecars", "sidecar"),
        ("", "--to"),
        ("--to coco --quality 200", "quality"),
        ("--to parquet --images link", "leave it out"),
        ("--to csv --format coc", "Did you mean 'coco'"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, expected: str
) -> None:
    assert main(["data", "convert", str(photos), str(tmp_path / "out"), *words.split()]) == 2
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_compile_says_what_loads_it(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("datasets")
    assert main(["data", "compile", str(photos)]) == 0
    shown = capsys.readouterr().out
    assert f"load_dataset('imagefolder', data_dir='{photos}')" in shown
    assert main(["data", "compile", str(photos)]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err


def test_formats_lists_all_forms(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(form.name, form.about, form.written_as, form.recognised_by) for form in captrain.formats()]
    assert [row[0] for row in rows] == list(READERS)
    assert {row[2] for row in rows if row[2]} == set(WRITERS)
    assert all(row[1] and row[3] and "\n" not in row[1] for row in rows)
    assert main(["data", "formats"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*READERS, *WRITTEN_AS.values()])


def test_the_flag_offers_all_forms() -> None:
    assert set(get_args(WrittenForm)) == set(WRITERS)
