"""Killed at any moment and started again by the same command, a run ends as if nothing had happened, to the last bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_tools import QUICK, Cli, lines_of

import captrain.training.run_folder.folder as run_folder
from captrain.data.convert import FormOptions, convert
from captrain.features.cache import FeatureCache
from captrain.testing import tiny_blip, tiny_photos
from captrain.training.loop.callbacks import CheckpointSchedule
from captrain.training.loop.trainer import CaptionTrainer
from captrain.training.run_folder.checkpoints import Checkpoints
from captrain.training.run_folder.folder import RunFolder

COMMON = f"--validation-share 0.25 --epochs 2 --checkpoint-every 2 {QUICK}"
KINDS = {
    "lora": "--model {blip} --dropout 0.2 --keep disk",
    "encoder": "--model {blip} --method full --captions-per-image one",
    "joined": "--encoder {encoder} --decoder-layers 1 --decoder-width 16 --decoder-heads 2 --accumulate 2 --sample --ema 0.9 "
    "--word-dropout 0.2 --patch-dropout 0.2",
    "int8": "--model {blip} --dropout 0.2 --cache-features disk --cache-dtype int8",
    "merged": "--model {adapter} --dropout 0.2",
    "merged whole": "--model {adapter} --method full",
    "continued": "--model {adapter} --continue-adapter",
}


class Killed(BaseException):
    """Stands for a SIGKILL: nothing of captrain catches it."""


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: Callable[..., bool], after: bool) -> None:
    """End the process's work at a call of `owner.name`, before or after it, the first time that `when(*its arguments)`."""
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        stops = when(*args)
        if stops and not after:
            raise Killed
        result = original(*args, **kwargs)
        if stops:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, call)


def at_step(step: int) -> Callable[..., bool]:
    """When a trainer callback is called at a step."""
    return lambda callback, args, state, *rest: state.global_step == step


POINTS: dict[str, tuple[Any, str, Callable[..., bool], bool]] = {
    "writing the untrained model": (RunFolder, "save_base", lambda *_: True, True),
    "encoding": (FeatureCache, "_keep", lambda *_: True, True),
    "before any checkpoint": (CheckpointSchedule, "on_step_end", at_step(1), False),
    "in mid-epoch": (CheckpointSchedule, "on_step_end", at_step(4), False),
    "writing a checkpoint": (Checkpoints, "publish", lambda checkpoints, step: step >= 3, False),
    "evaluating": (CaptionTrainer, "evaluate", lambda trainer: True, True),
    "replacing the model": (run_folder.os, "replace", lambda old, new: str(new).endswith("model.old"), True),
    "in the second epoch": (CheckpointSchedule, "on_step_end", at_step(6), False),
    "writing the report": (RunFolder, "best_scores", lambda run: True, False),
}
CASES = [
    *(("lora", point) for point in POINTS if point != "writing the untrained model"),
    *(("encoder", point) for point in ("encoding", "in mid-epoch", "evaluating", "in the second epoch")),
    *(("joined", point) for point in ("writing the untrained model", "before any checkpoint", "in mid-epoch")),
    *(("int8", point) for point in ("encoding", "in mid-epoch", "in the second epoch")),
    *(("merged", point) for point in ("writing the untrained model", "in mid-epoch")),
    *((kind, "in mid-epoch") for kind in ("merged whole", "continued")),
]


def state_of(run: Path) -> dict[str, Any]:
    """What must be alike: weights and captions byte for byte, logs without their seconds."""
    weights = {str(path.relative_to(run)): path.read_bytes() for path in (run / "model").glob("*.safetensors")}
    assert weights
    logs = {name: lines_of(run / name) for name in ("metrics.jsonl", "samples.jsonl")}
    return {**weights, **logs, "predictions": (run / "predictions.jsonl").read_bytes()}


def assert_alike(run: Path, whole: dict[str, Any]) -> None:
    """Compare a run with what the never killed one left; steps are there once."""
    found = state_of(run)
    steps = [line["step"] for line in found["metrics.jsonl"] if line["kind"] == "train"]
    assert len(set(steps)) == len(steps)
    for name, content in whole.items():
        assert found[name] == content, f"{name} differs"


def never_killed(cli: Cli, photos: Path, words: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a run leaves that nobody stops; its cached features lie apart, so that others have to compute theirs."""
    with monkeypatch.context() as patch:
        patch.setenv("CAPTRAIN_CACHE", str(folder / "another-cache"))
        assert cli("train", photos, folder / "whole", words).code == 0
    return state_of(folder / "whole")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By kind, what a run left that was never killed."""
    return {}


@pytest.mark.parametrize(("kind", "point"), CASES)
def test_continues_as_if_never_stopped(
    kind: str, point: str, whole: dict[str, Any], tmp_path: Path, cli: Cli, photos: Path,
    blip: Path, encoder: Path, trained: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    words = f"{COMMON} {KINDS[kind].format(blip=blip, encoder=encoder, adapter=trained)}"
    if kind not in whole:
        whole[kind] = never_killed(cli, photos, words, tmp_path, monkeypatch)
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, *POINTS[point])
        with pytest.raises(Killed):
            cli("train", photos, run, words)
    leave_halves(run)
    result = cli("train", photos, run, words)
    assert result.code == 0, result.err
    assert_alike(run, whole[kind])
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("reading", ["--keep off --flip 0.5", "--keep disk"])
def test_tar_shards_continue_as_if_never_stopped(
    reading: str, tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three shards, killed in the middle of both epochs: members are read again where the epoch stopped, or were kept."""
    convert(str(photos), tmp_path / "shards", "webdataset", form=FormOptions(shard_size=5))
    words = f"{COMMON} --model {blip} --method full --captions-per-image one {reading}"
    shards = tmp_path / "shards"
    whole = never_killed(cli, shards, words, tmp_path, monkeypatch)
    for point in ("in mid-epoch", "in the second epoch"):
        with monkeypatch.context() as patch:
            stop_at(patch, *POINTS[point])
            with pytest.raises(Killed):
                cli("train", shards, tmp_path / "run", words)
    assert cli("train", shards, tmp_path / "run", words).code == 0
    assert_alike(tmp_path / "run", whole)


def leave_halves(run: Path) -> None:
    """What a kill may leave besides: half a log line, half a checkpoint."""
    if (run / "metrics.jsonl").exists():
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "train", "step": 9')
        half = run / "checkpoints" / ".writing" / "checkpoint-99"
        half.mkdir(parents=True, exist_ok=True)
        (half / "learned.safetensors").write_bytes(b"half")


PROGRAM = """
import json, os, signal, sys, torch
import captrain.training.run
from captrain.cli import main
from captrain.features.cache import FeatureCache
from captrain.training.run_folder.checkpoints import Checkpoints

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def start(death):
    if death == "encoding":
        FeatureCache._keep = die
    if death == "writing":
        Checkpoints.publish = lambda self, step, publish=Checkpoints.publish: die() if step == 4 else publish(self, step)
    torch.set_num_threads(1)
    return main(sys.argv[1:])

codes = []
for death in ("encoding", "writing", "never"):
    if child := os.fork():
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    else:
        os._exit(start(death))
    if death == "writing":
        codes.append(os.listdir("run/checkpoints/.writing"))
print(json.dumps(codes))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_real_kills(tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes, killed by SIGKILL: while pictures are encoded, then while the second checkpoint is written."""
    words = f"{COMMON} {KINDS['lora'].format(blip=blip)}"
    whole = never_killed(cli, photos, words, tmp_path, monkeypatch)
    command = [sys.executable, "-c", PROGRAM, "train", str(photos), "run", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    encoding, writing, half_written, never = json.loads(done.stdout.splitlines()[-1])
    assert (encoding, writing, never) == (-signal.SIGKILL, -signal.SIGKILL, 0)
    assert "checkpoint-4" in half_written
    assert_alike(tmp_path / "run", whole)


def test_an_early_stop_stays_a_stop(
    tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after it had stopped early, a run does not train on; with more patience it does."""
    words = f"--model {blip} --validation-share 0.25 --epochs 4 --patience 1 {QUICK} --learning-rate 1e-12"
    words = words.replace("--learning-rate 0.01 ", "")
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, *POINTS["writing the report"])
        with pytest.raises(Killed):
            cli("train", photos, run, words)
    before = lines_of(run / "metrics.jsonl")
    assert [line["epoch"] for line in before if line["kind"] == "validation"] == [1.0, 2.0]
    assert cli("train", photos, run, words).code == 0
    assert lines_of(run / "metrics.jsonl") == before
    assert cli("train", photos, run, words.replace("--patience 1", "--patience 2"), "--force").code == 0
    assert [line["epoch"] for line in lines_of(run / "metrics.jsonl") if line["kind"] == "validation"] == [
        1.0,
        2.0,
        3.0,
    ]


def test_without_validation(
    tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No evaluation, the last model is the model; killed before it was saved, too."""
    words = f"--model {blip} --validation-share 0 --epochs 1 {QUICK}"
    assert cli("train", photos, tmp_path / "whole", words).code == 0
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, RunFolder, "save_model", lambda *_: True, after=False)
        with pytest.raises(Killed):
            cli("train", photos, run, words)
    assert cli("train", photos, run, words).code == 0
    name = "model/adapter_model.safetensors"
    assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (run / "predictions.jsonl").exists()


def test_a_finished_run_is_left_alone(trained: Path, photos: Path, blip: Path, cli: Cli) -> None:
    words = f"--model {blip} --validation-share 0.25 --epochs 2 --keep memory {QUICK}"
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    result = cli("train", photos, trained, words)
    assert result.code == 0
    assert "finished" in result.err
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_more_epochs_on_resume(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    """A finished run goes on when it is asked for more epochs, from where it ended, and only when that is meant."""
    words = f"--model {blip} --validation-share 0.25 --schedule constant {QUICK}"
    assert cli("train", photos, tmp_path / "run", words, "--epochs 1").code == 0
    refused = cli("train", photos, tmp_path / "run", words, "--epochs 2", "--resume")
    assert refused.code == 2
    assert "training.epochs was 1 and is 2: its steps would differ" in refused.last_line
    assert cli("train", photos, tmp_path / "run", words, "--epochs 2", "--resume", "--force").code == 0
    steps = [line["step"] for line in lines_of(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert steps == list(range(1, 11))


def test_resume_with_other_weights_is_refused(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    """A checkpoint of rank 4 does not fit a captioner of rank 8; the run stays as it was."""
    words = f"--model {blip} --epochs 1 {QUICK}"
    run = tmp_path / "run"
    assert cli("train", photos, run, words, "--rank 4").code == 0
    before = (run / "settings.yaml").read_bytes()
    result = cli("train", photos, run, words, "--rank 8", "--force")
    assert result.code == 2
    assert "learns other weights" in result.last_line
    assert (run / "settings.yaml").read_bytes() == before
    assert cli("train", photos, run, words, "--rank 4").code == 0


def test_data_that_changed_meanwhile(tmp_path: Path, cli: Cli, blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More pictures than the run began with are refused, because its epochs would differ, unless that is meant."""
    folder = tiny_photos(tmp_path / "photos", count=8)
    words = f"--model {blip} --validation-share 0.25 --epochs 2 {QUICK}"
    with monkeypatch.context() as patch:
        stop_at(patch, *POINTS["in mid-epoch"])
        with pytest.raises(Killed):
            cli("train", folder, tmp_path / "run", words)
    tiny_photos(folder, count=12)
    result = cli("train", folder, tmp_path / "run", words)
    assert result.code == 2
    assert "train_images was 6 and is 9" in result.last_line
    assert cli("train", folder, tmp_path / "run", words, "--force").code == 0


def test_other_content_under_the_same_names(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions, pictures and frozen weights that were exchanged: as many as before, and told apart all the same."""
    folder, model = tiny_photos(tmp_path / "photos", count=8), tiny_blip(tmp_path / "blip")
    words = f"--model {model} --validation-share 0.25 --epochs 2 --keep memory {QUICK}"
    with monkeypatch.context() as patch:
        stop_at(patch, *POINTS["in the second epoch"])
        with pytest.raises(Killed):
            cli("train", folder, tmp_path / "run", words)
    table = folder / "metadata.jsonl"
    captions, picture = table.read_text(), (folder / "photo-000.png").read_bytes()

    def refused(what: str) -> None:
        result = cli("train", folder, tmp_path / "run", words)
        assert result.code == 2
        assert what in result.last_line

    table.write_text(captions.replace("dog", "cat", 1))
    refused("the data has changed since this run began")
    table.write_text(captions)
    (folder / "photo-000.png").write_bytes((folder / "photo-001.png").read_bytes())
    refused("the data has changed since this run began")
    (folder / "photo-000.png").write_bytes(picture)
    tiny_blip(model, seed=1)
    refused("the model has changed since this run began (model: other content)")
    tiny_blip(model)
    assert cli("train", folder, tmp_path / "run", words).code == 0


def test_nothing_to_resume(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    for flag in ("--resume", "--resume-from 5"):
        result = cli("train", photos, tmp_path / "run", f"--model {blip} {flag}")
        assert result.code == 2
        assert "holds no run to go on with" in result.last_line


def test_going_back_to_any_checkpoint(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    """Metrics, samples, later checkpoints and the best model are those of that time; then the run repeats itself."""
    words = f"--model {blip} {COMMON} --dropout 0.2 --keep-checkpoints 9 --checkpoint-prefix mine".split()
    words[words.index("--epochs") + 1] = "3"
    run = tmp_path / "run"
    assert cli("train", photos, run, *words).code == 0
    whole = state_of(run)
    steps = Checkpoints(run / "checkpoints", keep=9).steps()
    assert steps == [2, 4, 5, 6, 8, 10, 12, 14, 15]
    wrong = cli("train", photos, run, *words, "--resume-from 7")
    assert wrong.code == 2
    assert "holds no checkpoint '7'; there are those of steps: 2, 4, 5" in wrong.last_line
    for wanted in ("12", "mine-4", run / "checkpoints/mine-5"):
        result = cli("train", photos, run, *words, "--resume-from", wanted)
        assert result.code == 0, result.err
        assert_alike(run, whole)
        assert Checkpoints(run / "checkpoints", keep=9).steps() == steps


def test_a_best_model_that_came_later_is_forgotten(
    tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back in the first epoch there is none; in the second it is the first epoch's."""
    words, run = f"--model {blip} {COMMON} --metric validation_loss --keep-checkpoints 9", tmp_path / "run"
    assert cli("train", photos, run, words).code == 0
    losses = [line["validation_loss"] for line in lines_of(run / "metrics.jsonl") if line["kind"] == "validation"]
    assert losses[1] < losses[0]
    for step, found in ((6, losses[0]), (4, None)):
        with monkeypatch.context() as patch:
            stop_at(patch, CaptionTrainer, "train", lambda *_: True, after=False)
            with pytest.raises(Killed):
                cli("train", photos, run, words, f"--resume-from {step}")
        assert (run / "model").is_dir() == (found is not None)
        assert RunFolder(run).best_scores().get("validation_loss") == found
        assert (run / "predictions.jsonl").is_file() == (found is not None)
        assert max(line["step"] for line in lines_of(run / "metrics.jsonl")) == step
        assert not (run / "finished.json").exists()


def test_checkpoints_every_so_many_epochs(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    """At the second epoch and at the last; changed when the run goes on, because it changes nothing else."""
    words = f"--model {blip} --validation-share 0.25 --epochs 3 --keep-checkpoints 9 {QUICK}"
    run = tmp_path / "run"
    assert cli("train", photos, run, words, "--checkpoint-every-epochs 2").code == 0
    assert Checkpoints(run / "checkpoints", keep=9).steps() == [10, 15]
    changed = words.replace("--keep-checkpoints 9", "--keep-checkpoints 1 --checkpoint-prefix other --samples 2")
    assert cli("train", photos, run, changed).code == 0
