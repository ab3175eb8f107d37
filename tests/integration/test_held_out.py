"""What a run held out stays held out: through the steps of the docs, moves, mixtures, resumption, and runs of before."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from run_tools import QUICK, Cli, lines_of

from captrain.cli import main
from captrain.data.splits import FILE, read_kept_splits, read_trained

FAST = "--device cpu --precision fp32 --batch-size 4 --json"


def with_captions_beside(photos: Path, folder: Path, captioned: int) -> Path:
    """The photos with a .txt beside each of the first few."""
    folder.mkdir(parents=True)
    for number, line in enumerate(lines_of(photos / "metadata.jsonl")):
        name, captions = line["file_name"], next(value for key, value in line.items() if key != "file_name")
        shutil.copy(photos / name, folder / name)
        if number < captioned:
            (folder / name).with_suffix(".txt").write_text("\n".join(captions))
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, blip: Path, photos: Path) -> tuple[Path, Path]:
    """An album of 12 pictures, 9 with captions, and a run on it that held out 3; do not write into either."""
    folder = tmp_path_factory.mktemp("held-out")
    album = with_captions_beside(photos, folder / "album", 9)
    words = ["--validation-share", "0.34", "--epochs", "1", "--keep", "memory", *QUICK.split()]
    assert main(["-q", "train", str(album), str(folder / "run"), "--model", str(blip), *words]) == 0
    return album, folder / "run"


@pytest.fixture
def album_and_run(begun: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Copies of them, at relative paths that a run remembers its data by."""
    album, run = shutil.copytree(begun[0], tmp_path / "album"), shutil.copytree(begun[1], tmp_path / "run")
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    settings["requested"]["source"] = str(album)
    (run / "settings.yaml").write_text(yaml.safe_dump(settings))
    return album, run


def evaluated(cli: Cli, *words: str | Path, code: int = 0) -> dict[str, object]:
    result = cli("evaluate", *words, FAST)
    assert result.code == code, result.err
    return json.loads(result.out)


def test_the_steps_of_the_docs_score_the_same_pictures_twice(cli: Cli, album_and_run: tuple[Path, Path]) -> None:
    """Train, evaluate, caption the rest, evaluate again: the same pictures with the same references."""
    album, run = album_and_run
    first = evaluated(cli, run, album)
    assert (first["images"], first["pictures"]) == (3, {"split": "validation", "scored": 3, "held_out": 3})
    before = lines_of(run / "evaluation/predictions.jsonl")
    assert cli("caption", run, album, "--device cpu").code == 0
    assert len(list(album.glob("*.txt"))) == 12
    again = evaluated(cli, run, album)
    assert lines_of(run / "evaluation/predictions.jsonl") == before
    assert again["scores"] == first["scores"]
    assert again["pictures"] == first["pictures"]  # what the model wrote is no reference, so nothing is new to score
    assert json.loads((run / "evaluation/scores.json").read_text())["pictures"] == again["pictures"]
    assert [line["id"] for line in before] == [line["id"] for line in lines_of(run / "predictions.jsonl")]


def test_whatever_the_data_is_called_and_wherever_it_lies(
    cli: Cli, album_and_run: tuple[Path, Path], tmp_path: Path
) -> None:
    album, run = album_and_run
    held = {line["id"] for line in lines_of(run / "predictions.jsonl")}
    for place in (run, run / "model"):
        assert evaluated(cli, place, album)["images"] == 3
    moved = shutil.copytree(album, tmp_path / "elsewhere")
    for path in sorted(moved.iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    output = tmp_path / "out"
    assert evaluated(cli, run, moved, "--output", output)["images"] == 3
    assert {line["id"] for line in lines_of(output / "predictions.jsonl")} == {f"x{name}" for name in held}


def test_a_named_split_is_scored_and_what_was_trained_on_is_told(cli: Cli, album_and_run: tuple[Path, Path]) -> None:
    album, run = album_and_run
    result = cli("evaluate", run, album, "--split train", FAST)
    assert json.loads(result.out)["pictures"]["trained_on"] == 6
    assert "6 of 6 pictures scored were trained on" in result.err
    result = cli("evaluate", run, album, "--split all", FAST)
    assert json.loads(result.out)["images"] == 9
    assert "6 of 9 pictures scored were trained on" in result.err
    result = cli("evaluate", run, album, "--split test", FAST)
    assert result.code == 2
    assert "no split 'test'" in result.err
    assert "it was trained with 'train', 'validation'" in result.err


def test_names_exchanged_and_pictures_gone(cli: Cli, album_and_run: tuple[Path, Path]) -> None:
    album, run = album_and_run
    held = [line["id"] for line in lines_of(run / "predictions.jsonl")]
    trained = [id for id, _ in read_trained(run)]
    (album / held[0]).rename(album / "other.png")
    (album / held[0]).with_suffix(".txt").rename(album / "other.txt")
    (album / held[1]).unlink()
    shutil.copy(album / trained[0], album / "copy.png")
    (album / "copy.txt").write_text("a copy")
    result = cli("evaluate", run, album, FAST)
    told = {"split": "validation", "scored": 2, "held_out": 3, "gone": 1, "renamed": 1, "copies": 1}
    assert json.loads(result.out)["pictures"] == told
    assert (
        f"1 of 3 validation pictures of the run are not there any more, or have no caption (first: {held[1]})"
        in result.err
    )
    assert [line["id"] for line in lines_of(run / "evaluation/predictions.jsonl")] == ["other.png", held[2]]


def test_other_data_that_was_trained_on_says_so(cli: Cli, album_and_run: tuple[Path, Path], tmp_path: Path) -> None:
    album, run = album_and_run
    seen = tmp_path / "seen"
    seen.mkdir()
    for id, _ in read_trained(run):
        shutil.copy(album / id, seen / id)
        (seen / id).with_suffix(".txt").write_text("a caption")
    for words in ("", "--split all", "--split train"):
        result = cli("evaluate", run, seen, FAST, words)
        assert f"{json.loads(result.out)['images']} of {json.loads(result.out)['images']} pictures scored" in result.err
        assert "were trained on: scores on them say little about new pictures" in result.err


def test_a_run_of_before_says_so(cli: Cli, album_and_run: tuple[Path, Path], photos: Path) -> None:
    album, run = album_and_run
    (run / FILE).unlink()
    result = cli("evaluate", run, album, FAST)
    assert json.loads(result.out)["images"] == 3
    assert "has no list of the pictures that it held out (it was made by an earlier version)" in result.err
    assert "whether these are among them is not known" in cli("evaluate", run, photos, FAST).err


def test_a_run_that_begins_with_a_run_knows_what_that_was_trained_on(
    cli: Cli, album_and_run: tuple[Path, Path], photos: Path, blip: Path, tmp_path: Path
) -> None:
    """Another seed holds out other pictures: those that the first run learned from are named."""
    album, run = album_and_run
    shutil.rmtree(run / "model")
    shutil.copytree(blip, run / "model")
    words = f"--validation-share 0.34 --seed 5 --epochs 1 --keep off {QUICK}"
    result = cli("train", album, tmp_path / "second", "--model", run / "model", words)
    assert result.code == 0, result.err
    first, second = read_kept_splits(run), read_kept_splits(tmp_path / "second")
    assert first is not None
    assert second is not None
    shared = {*second.part("validation").ids} - {*first.part("validation").ids}
    assert shared, "another seed for this test"
    assert f"{len(shared)} of 3 validation pictures were trained on earlier (by {run})" in result.err
    assert evaluated(cli, tmp_path / "second", album)["pictures"]["trained_on"] == len(shared)  # type: ignore[index]


def test_a_mixture_and_one_of_its_sources(cli: Cli, photos: Path, blip: Path, tmp_path: Path) -> None:
    one, two = (with_captions_beside(photos, tmp_path / name / "photos", 12) for name in ("a", "b"))
    for path in two.glob("*.png"):
        path.write_bytes(path.read_bytes() + b"\0")  # other pictures, of the same names
    recipe = tmp_path / "two.yaml"
    recipe.write_text(yaml.safe_dump({"data": {"sources": [{"path": str(one)}, {"path": str(two)}]}}))
    run = tmp_path / "run"
    assert cli("train", run, "--recipe", recipe, "--model", blip, "--validation-share 0.25 --epochs 1", QUICK).code == 0
    (two / "new.png").write_bytes((two / "photo-000.png").read_bytes() + b"1")
    (two / "new.txt").write_text("a new one")
    both = evaluated(cli, run)
    assert both["pictures"] == {"split": "validation", "scored": 6, "held_out": 6, "new": 1}
    alone = evaluated(cli, run, two)
    assert alone["images"] == 3
    ids = {line["id"] for line in lines_of(run / "evaluation/predictions.jsonl")}
    assert all(id.startswith("photos-2/") for id in ids)


def test_pixels_keep_the_same_list(cli: Cli, album_and_run: tuple[Path, Path], blip: Path, tmp_path: Path) -> None:
    album, run = album_and_run
    words = f"--validation-share 0.34 --epochs 1 {QUICK} --method full --freeze language --keep off"
    result = cli("train", album, tmp_path / "pixels", "--model", blip, words)
    assert result.code == 0, result.err
    assert (tmp_path / "pixels" / FILE).read_bytes() == (run / FILE).read_bytes()


def test_what_was_trained_on_before_a_forced_change_is_not_forgotten(
    cli: Cli, album_and_run: tuple[Path, Path], blip: Path, tmp_path: Path
) -> None:
    album, _ = album_and_run
    words = f"--validation-share 0.34 --epochs 1 {QUICK}"
    run = tmp_path / "forced"
    result = cli("train", album, run, "--model", blip, words)
    assert result.code == 0, result.err
    assert "3 without a caption, left for `captrain caption`" in result.err
    assert not (run / "rejected.jsonl").exists()
    for told in (result, cli("train", album, run, "--model", blip, words)):
        rows = dict(re.split("  +", line.strip(), maxsplit=1) for line in told.out.splitlines() if "  " in line)
        assert rows["best epoch"] == "1 of 1, by CIDEr on 3 held-out pictures"
        assert rows["without a caption"] == "3, left for `captrain caption`"
        assert "note: 3 images only: scores are largely chance" in told.out
    trained = [id for id, _ in read_trained(run)]
    (album / trained[0]).with_suffix(".txt").unlink()
    result = cli("train", album, run, "--model", blip, words.replace("--epochs 1", "--epochs 2"), "--force")
    assert result.code == 0, result.err
    assert f"going on from step 3 ({run / 'checkpoints/checkpoint-3'})" in result.err
    kept = read_kept_splits(run)
    assert kept is not None
    assert len(kept.part("earlier")) == 1
    assert sorted(id for id, _ in read_trained(run)) == sorted(trained)
