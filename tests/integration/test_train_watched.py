"""A training that is followed, that runs out of memory, or that finds its own batch size; all through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from run_tools import QUICK, Cli, lines_of

from captrain.models.contract import CaptionerModel
from captrain.training.trackers import TRACKERS, TrackerPlace

COMMON = f"--validation-share 0.25 --epochs 2 --checkpoint-every 2 {QUICK}"


class Broken:
    """A tracker whose server is gone."""

    def __init__(self, run: Any) -> None:
        raise ConnectionError("no route to host")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B is installed, and can't be reached."""
    monkeypatch.setitem(TRACKERS, "wandb", TrackerPlace(f"{__name__}:Broken", "captrain", "wandb"))


def test_a_dead_tracker_does_not_end_or_change_a_training(cli: Cli, blip: Path, photos: Path, broken: None) -> None:
    followed = cli("train", photos, "followed", "--model", blip, COMMON, "--trackers", "wandb")
    alone = cli("train", photos, "alone", "--model", blip, COMMON, "--trackers")
    assert (followed.code, alone.code) == (0, 0), followed.err
    assert followed.err.count("wandb: no longer followed there (no route to host)") == 1
    assert lines_of(Path("followed/metrics.jsonl")) == lines_of(Path("alone/metrics.jsonl"))
    assert not Path("alone/tensorboard").exists()


class Kept:
    """A tracker that keeps all that it is given and can't take it back, by the names of its runs."""

    runs: ClassVar[dict[str, list[tuple[int, str, float]]]] = {}
    rewinds = False

    def __init__(self, run: Any) -> None:
        self.id = run.id or run.name
        self.points = self.runs.setdefault(self.id, [])

    def scalars(self, step: int, values: Any) -> None:
        self.points += [(step, name, value) for name, value in values.items()]

    def samples(self, step: int, captions: Any) -> None:
        pass

    def close(self, *, whole: bool) -> None:
        pass


def test_what_is_followed_is_the_run_as_it_is_now(
    cli: Cli, blip: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after it went back and took other steps, and with the scores of the final test."""
    monkeypatch.setitem(TRACKERS, "wandb", TrackerPlace(f"{__name__}:Kept", "captrain", "wandb"))
    words = f"{COMMON} --keep-checkpoints 9 --trackers wandb"
    assert cli("train", photos, "run", "--model", blip, words, "--test-data", photos).code == 0
    assert_followed("run")
    other = words.replace("--learning-rate 0.01", "--learning-rate 0.02 --force --resume-from 4")
    assert cli("train", photos, "run", "--model", blip, other, "--test-data", photos).code == 0
    assert_followed("run from step 4")
    assert list(Kept.runs) == ["run", "run from step 4"]


def assert_followed(name: str) -> None:
    """All lines of metrics.jsonl were given, each once, and nothing else."""
    expected = [
        (line["step"], f"{line['kind']}/{key}", value)
        for line in lines_of(Path("run/metrics.jsonl"))
        for key, value in line.items()
        if key not in ("kind", "step", "epoch")
    ]
    found = [point for point in Kept.runs[name] if point[1] != "epoch"]
    assert sorted(found) == sorted(expected)
    assert {point[1].split("/")[0] for point in found} == {"train", "validation", "test"}


def test_a_missing_package_ends_it_before_anything_begins(
    cli: Cli, blip: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "mlflow", TrackerPlace("nowhere:Nothing", "no_such_package", "mlflow"))
    result = cli("train", photos, "run", "--model", blip, COMMON, "--trackers", "mlflow")
    assert result.code == 2
    assert "pip install 'captrain[mlflow]'" in result.last_line
    assert not Path("run").exists()


def test_out_of_memory_names_three_settings_and_the_last_checkpoint(
    cli: Cli, blip: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = CaptionerModel.forward, iter(range(100))

    def forward(self: CaptionerModel, *args: Any, **kwargs: Any) -> Any:
        if self.training and next(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines follow")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(CaptionerModel, "forward", forward)
    result = cli("train", photos, "run", "--model", blip, COMMON)
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "training stopped at step 3: out of memory; the last good checkpoint is run/checkpoints/" in result.last_line
    for setting in (
        "--batch-size 1 --accumulate 2 (now 2 and 1",
        "--checkpoint-activations",
        "--captions-per-image one",
    ):
        assert setting in result.last_line
    monkeypatch.setattr(CaptionerModel, "forward", original)
    smaller = COMMON.replace("--batch-size 2", "--batch-size 1 --accumulate 2")
    assert cli("train", photos, "run", "--model", blip, smaller, "--force").code == 0


def test_out_of_memory_while_validating_names_what_writing_takes(
    cli: Cli, blip: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(self: CaptionerModel, *args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(CaptionerModel, "generate", generate)
    result = cli("train", photos, "run", "--model", blip, COMMON.replace("--beams 1", "--beams 3"))
    assert result.code == 1
    assert "out of memory while writing validation captions" in result.last_line
    assert "--beams 1 (now 3); --max-new-tokens (now 6)" in result.last_line


def test_a_batch_size_that_was_found_stays_the_run_s_own(cli: Cli, blip: Path, photos: Path) -> None:
    words = COMMON.replace("--batch-size 2", "--batch-size auto")
    result = cli("train", photos, "run", "--model", blip, words)
    assert result.code == 0, result.err
    assert "batch size auto: 8 (" in result.err
    saved = yaml.safe_load(Path("run/settings.yaml").read_text())
    assert saved["settings"]["training"]["batch_size"] == 8
    assert saved["requested"]["training"]["batch_size"] == "auto"

    Path("run/finished.json").unlink()
    saved["settings"]["training"]["batch_size"] = 4  # as if it had been found on a smaller machine
    Path("run/settings.yaml").write_text(yaml.safe_dump(saved))
    again = cli("train", photos, "run", "--model", blip, words)
    assert again.code == 0, again.err
    assert "batch size auto" not in again.err
    assert yaml.safe_load(Path("run/settings.yaml").read_text())["settings"]["training"]["batch_size"] == 4


def test_captions_that_never_end_ring_an_alarm_once(cli: Cli, blip: Path, tmp_path: Path) -> None:
    from captrain.testing import tiny_photos

    many = tiny_photos(tmp_path / "many", count=48)
    result = cli("train", many, "run", "--model", blip, COMMON)
    assert result.code == 0
    assert result.err.count("captions do not end") + result.err.count("captions collapse") == 1
