"""Training that can't go on: one clear line, exit code 1, and the last good checkpoint is there for the next start."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from run_tools import QUICK, Cli, Result, lines_of, losses_of
from safetensors.torch import load_file

import captrain.training.run_folder.checkpoints as checkpoints
from captrain.models.contract import CaptionerModel
from captrain.training.loop.trainer import CaptionTrainer
from captrain.training.run_folder.folder import RunFolder

WORDS = f"--validation-share 0.25 --epochs 2 --checkpoint-every 2 {QUICK}"


def assert_failed(result: Result, *parts: str) -> None:
    """Exit code 1 and one line that holds all parts."""
    assert result.code == 1, result.err
    assert "Traceback" not in result.err
    assert result.last_line.startswith("error: ")
    for part in parts:
        assert part in result.last_line


def assert_good(checkpoint: Path) -> None:
    """All weights of a checkpoint are numbers."""
    weights = load_file(checkpoint / checkpoints.WEIGHTS)
    assert weights
    assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())


def test_a_learning_rate_far_too_high(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    words = f"--model {blip} --validation-share 0.25 --epochs 9 --schedule constant --warmup 0 --learning-rate 1e30"
    run = tmp_path / "run"
    result = cli("train", photos, run, words, QUICK.replace("--learning-rate 0.01", ""))
    assert_failed(result, "training stopped at step", "lower --learning-rate")
    for checkpoint in (run / "checkpoints").glob("checkpoint-*"):
        assert_good(checkpoint)


@pytest.mark.parametrize("where", ["the loss", "the gradient's norm", "the weight"])
def test_numbers_that_are_none(
    where: str, tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Poisoned in step 4 (the checkpoint of step 2 is good): the run stops there, and without poison goes on from 2."""
    words, run = f"--model {blip} {WORDS} --max-bad-steps 1", tmp_path / "run"
    with monkeypatch.context() as patch:
        POISONS[where](patch)
        result = cli("train", photos, run, words)
    said = where if where == "the weight" else "in 1 steps in a row the gradient's norm"
    assert_failed(result, said, "checkpoint-2", "lower --learning-rate")
    assert [path.name for path in (run / "checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]
    assert_good(run / "checkpoints" / "checkpoint-2")
    assert cli("train", photos, run, words).code == 0
    assert [line["step"] for line in lines_of(run / "metrics.jsonl") if line["kind"] == "train"] == list(range(1, 11))


def poison_loss(patch: pytest.MonkeyPatch) -> None:
    forward, calls = CaptionerModel.forward, []

    def poisoned(self: CaptionerModel, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        calls.append(output)
        output.loss = output.loss * float("nan") if len(calls) == 4 else output.loss
        return output

    patch.setattr(CaptionerModel, "forward", poisoned)


def poison_gradient(patch: pytest.MonkeyPatch) -> None:
    original = CaptionTrainer.training_step

    def poisoned(self: CaptionTrainer, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, *args, **kwargs)
        if self.state.global_step == 3:
            next(weight for weight in self.model.parameters() if weight.grad is not None).grad.fill_(float("inf"))
        return loss

    patch.setattr(CaptionTrainer, "training_step", poisoned)


def poison_weight(patch: pytest.MonkeyPatch) -> None:
    original = CaptionTrainer._save_checkpoint

    def poisoned(self: CaptionTrainer, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step == 4:
            next(weight for weight in self.model.parameters() if weight.requires_grad).data.fill_(float("nan"))
        original(self, *args, **kwargs)

    patch.setattr(CaptionTrainer, "_save_checkpoint", poisoned)


POISONS = {
    "the loss": poison_loss,
    "the gradient's norm": poison_gradient,
    "the weight": poison_weight,
}


def poison_losses(patch: pytest.MonkeyPatch, *numbers: int) -> list[Any]:
    """Losses of some calls of `forward` while training, counted from 1, become no numbers. Returns the weights at each call."""
    forward, seen = CaptionerModel.forward, []

    def poisoned(self: CaptionerModel, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        if self.training:
            seen.append([weight.detach().clone() for weight in self.parameters() if weight.requires_grad])
            output.loss = output.loss * float("inf" if len(seen) in numbers else 1)
        return output

    patch.setattr(CaptionerModel, "forward", poisoned)
    return seen


def test_a_bad_step_is_left_out_whole(
    tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two accumulated batches is bad: weights stay, the step is counted, and the mean loss is that of the others."""
    words = f"--model {blip} {WORDS} --warmup 0 --accumulate 2".replace("--log-every 1", "--log-every 2")
    with monkeypatch.context() as patch:
        seen = poison_losses(patch, 3)
        result = cli("train", photos, tmp_path / "run", words)
    assert result.code == 0, result.err
    assert "step 2 left out" in result.err
    assert all(bool((old == new).all()) for old, new in zip(seen[2], seen[4], strict=True)), "step 2 had no effect"
    assert any(bool((old != new).any()) for old, new in zip(seen[0], seen[2], strict=True))
    assert any(bool((old != new).any()) for old, new in zip(seen[4], seen[5], strict=True))
    lines = [line for line in lines_of(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert [line.get("bad_steps") for line in lines if line["step"] in (1, 2)] == [None, 1]
    second = next(line for line in lines if line["step"] == 2)
    assert (second["loss"], second["gradient_norm"]) == (None, None), "the line of step 2 alone, after that of step 1"
    assert lines[-1]["bad_steps"] == 1
    assert lines[-1]["loss"] > 0


def test_too_many_bad_steps_in_a_row(
    tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two, a good one, three: the third in a row ends the run; no checkpoint comes from between them."""
    words, run = f"--model {blip} {WORDS} --checkpoint-every 1 --keep-checkpoints 9 --max-bad-steps 3", tmp_path / "run"
    with monkeypatch.context() as patch:
        poison_losses(patch, 2, 3, 5, 6, 7)
        result = cli("train", photos, run, words.replace("--checkpoint-every 2", ""))
    assert_failed(result, "training stopped at step 6", "in 3 steps in a row", "checkpoint-4", "add --force")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["checkpoint-1", "checkpoint-4"]
    assert_good(run / "checkpoints" / "checkpoint-4")


def test_the_count_outlasts_a_stop(
    tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, run = f"--model {blip} {WORDS}", tmp_path / "run"
    with monkeypatch.context() as patch:
        poison_losses(patch, 3)
        patch.setattr(RunFolder, "save_model", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        assert cli("train", photos, run, words).code == 1
    assert cli("train", photos, run, words).code == 0
    counts = [line.get("bad_steps") for line in lines_of(run / "metrics.jsonl") if line["kind"] == "train"]
    assert counts == [None, None, *[1] * 8]


@pytest.mark.parametrize("what", ["checkpoint", "best model"])
def test_a_full_disk_while_saving(
    what: str, tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was saved before is whole, and the same command goes on once there is space."""
    words, run = f"--model {blip} {WORDS}", tmp_path / "run"

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(run))

    with monkeypatch.context() as patch:
        if what == "checkpoint":
            original = checkpoints.Checkpoints.publish
            patch.setattr(
                checkpoints.Checkpoints, "publish", lambda self, step: full() if step == 4 else original(self, step)
            )
        else:
            patch.setattr(RunFolder, "save_model", full)
        result = cli("train", photos, run, words)
    assert_failed(
        result, f"the {what} could not be written", "No space left on device", "checkpoint-", "free some space"
    )
    assert cli("train", photos, run, words).code == 0
    assert len(losses_of(run)) == 10


def test_a_full_disk_while_keeping_features(
    tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, run = f"--model {blip} {WORDS} --keep disk", tmp_path / "run"

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("captrain.data.feature_store.layout.os.replace", full)
        assert_failed(cli("train", photos, run, words), "the disk is full")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert cli("train", photos, run, words).code == 0


def test_a_real_limit_on_the_size_of_files(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    """The system itself refuses to write more: no half model, no half checkpoint, and the next start goes on."""
    pytest.importorskip("resource", reason="this system has no limits on the size of files")
    run = tmp_path / "run"
    words = f"--model {blip} --method full {WORDS} --keep memory"
    program = (
        "import resource, sys; from captrain.cli import main; import captrain.training.run;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "train", str(photos), str(run), *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert_failed(
        Result(done.returncode, done.stdout, done.stderr), "could not be written", "there is no checkpoint yet"
    )
    assert not (run / "model").exists()
    assert not list((run / "checkpoints").glob("checkpoint-*"))
    assert cli("train", photos, run, words).code == 0
