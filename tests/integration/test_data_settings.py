"""Settings of the data section that change what is learned: mixtures, views, words; through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from run_tools import QUICK, Cli, lines_of, losses_of

from captrain.testing import tiny_photos

WORDS = f"--validation-share 0.25 --epochs 2 --dropout 0 {QUICK}"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Two data sets of 8 pictures each, the second shown three times as often."""
    sources = [
        {"path": str(tiny_photos(tmp_path / "a/photos", count=8)), "ratio": 1},
        {"path": str(tiny_photos(tmp_path / "b/photos", count=8, seed=1)), "ratio": 3},
    ]
    file = tmp_path / "mixture.yaml"
    file.write_text(yaml.safe_dump({"data": {"sources": sources}}))
    return file


def test_several_data_sets_by_ratio(tmp_path: Path, cli: Cli, blip: Path, recipe: Path) -> None:
    result = cli("train", tmp_path / "run", "--recipe", recipe, f"--model {blip} {WORDS}")
    assert result.code == 0, result.err
    counts = yaml.safe_load((tmp_path / "run/settings.yaml").read_text())["data"]
    assert (counts["train_images"], counts["validation_images"]) == (12, 4)
    ids = {line["id"].split("/")[0] for line in lines_of(tmp_path / "run/predictions.jsonl")}
    assert ids == {"photos", "photos-2"}
    assert len(losses_of(tmp_path / "run")) == 12


def test_a_list_is_enough(tmp_path: Path, cli: Cli, blip: Path) -> None:
    photos = tiny_photos(tmp_path / "photos", count=6)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"data": [{"path": str(photos)}]}))
    assert cli("train", tmp_path / "run", "--recipe", recipe, f"--model {blip} --epochs 1 {QUICK}").code == 0


def test_no_data_anywhere(tmp_path: Path, cli: Cli, blip: Path) -> None:
    result = cli("train", tmp_path / "run", f"--model {blip}")
    assert result.code == 2
    assert "OUT is missing" in result.last_line


@pytest.fixture(scope="module")
def unchanged() -> list[float]:
    """Losses of a run without augmentation, once there is one."""
    return []


@pytest.mark.parametrize("views", ["--views 3 --keep memory", "--views 3 --keep disk", "--views 1"])
def test_augmented_runs_repeat_themselves(
    views: str, tmp_path: Path, cli: Cli, photos: Path, blip: Path, unchanged: list[float]
) -> None:
    """The same losses whatever the number of threads, and other ones than without augmentation."""
    words = f"--model {blip} {WORDS} --crop-scale 0.4 0.8 --flip 0.5 --randaugment 2 5 {views}"
    assert cli("train", photos, tmp_path / "one", words, "--workers 1").code == 0
    assert cli("train", photos, tmp_path / "two", words, "--workers 5").code == 0
    if not unchanged:
        assert cli("train", photos, tmp_path / "plain", f"--model {blip} {WORDS}").code == 0
        unchanged += losses_of(tmp_path / "plain")
    assert losses_of(tmp_path / "one") == losses_of(tmp_path / "two")
    assert losses_of(tmp_path / "one") != unchanged


def test_words_are_changed_in_training(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    words = f"--model {blip} {WORDS} --prefix snow --max-words 2"
    result = cli("train", photos, tmp_path / "run", words, "--dry-run")
    assert result.code == 0, result.err
    learned = next(line.split()[1:] for line in result.out.splitlines() if line.startswith("  learns"))
    assert learned[0] == "snow"
    assert len(learned) == 4


def test_dropped_captions_teach_the_end_at_once(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    words = f"--model {blip} {WORDS} --epochs 1".replace("--epochs 2", "")
    assert cli("train", photos, tmp_path / "all", words).code == 0
    assert cli("train", photos, tmp_path / "few", words, "--drop-captions 0.9").code == 0
    assert losses_of(tmp_path / "all") != losses_of(tmp_path / "few")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("--views 3", "nothing makes them differ"),
        ("--crop-scale 0.9 0.5", "the smaller share first"),
        ("--replace dog", "expected old=new"),
        ("--flip 2", "at most 1"),
    ],
)
def test_contradictions_are_one_line(
    words: str, found: str, tmp_path: Path, cli: Cli, photos: Path, blip: Path
) -> None:
    result = cli("train", photos, tmp_path / "run", f"--model {blip}", words)
    assert result.code == 2
    assert found in result.last_line
