"""`captrain data check` and `captrain data preview` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from captrain.cli import main
from captrain.testing import tiny_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tiny_photos(tmp_path / "photos", count=4, size=80)


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def test_a_good_data_set(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("data", "check", photos) == 0
    shown = capsys.readouterr().out
    assert "20, 5 an image" in shown
    assert "nothing wrong" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_what_is_wrong_is_listed_here(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (photos / "photo-001.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert run("data", "check", photos, "--json") == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["wrong"]) == (4, 1)
    assert found["problems"]["unreadable"]["examples"][0]["id"] == "photo-001.png"
    lines = (tmp_path / found["rejects"]).read_text().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == ["is empty (0 bytes)"]


def test_nothing_is_written_into_the_data_set_unasked(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (photos / "photo-001.png").write_bytes(b"")
    before = sorted(photos.iterdir())
    monkeypatch.chdir(photos)
    assert run("data", "check", ".") == 3
    assert sorted(photos.iterdir()) == before
    assert "--rejects FILE lists them" in capsys.readouterr().out


def test_a_rejects_file_that_can_not_be_is_refused(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("data", "check", photos, "--rejects", tmp_path / "no" / "list.jsonl") == 2
    assert "does not exist" in capsys.readouterr().err


def test_tokens_are_counted_as_training_counts_them(
    photos: Path, tiny_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from captrain.models.checkpoint.folder import load_captioner

    model = tiny_folders["blip"]
    rejects = tmp_path / "list.jsonl"
    assert run("data", "check", photos, "--model", model, "--max-tokens", "8", "--json", "--rejects", rejects) == 3
    found = json.loads(capsys.readouterr().out)
    lines = [json.loads(line) for line in (photos / "metadata.jsonl").read_text().splitlines()]
    captions = [caption for line in lines for caption in line["captions"]]
    _, cut = load_captioner(str(model)).tokenize(captions, 8)
    assert found["problems"]["cut"]["count"] == cut > 0
    assert found["tokens"]["longest"] == 10  # nine words and the end token


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("data", "check", tmp_path / "nowhere") == 2
    assert run("data", "preview", tmp_path / "nowhere", tmp_path / "page.html") == 2
    assert capsys.readouterr().err.count("error:") == 2


def test_preview(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("data", "preview", photos, tmp_path / "page.html", "--limit", "2") == 0
    assert "2 of 4 pictures" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("<article") == 2


def test_preview_writes_pages_only(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for place in (photos / "metadata.jsonl", tmp_path / "no" / "page.html"):
        assert run("data", "preview", photos, place) == 2
    assert "ends in .html" in capsys.readouterr().err
