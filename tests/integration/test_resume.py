"""Killed at any moment and started again by the same command, a run ends as if nothing had happened, to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, Cli, lines_of

import captrain.training.run_folder as run_folder
from captrain.features.keep import Keeper
from captrain.training.callbacks import Rhythm
from captrain.training.checkpoints import Checkpoints
from captrain.training.run_folder import RunFolder
from captrain.training.trainer import CaptionTrainer

COMMON = f"--validation-share 0.25 --epochs 2 --checkpoint-every 2 --max-tokens 8 {QUICK}"
KINDS = {
    "lora": "--model {blip} --dropout 0.2 --keep disk",
    "encoder": "--model {blip} --method full --captions-per-image one --log-every 3",
    "joined": "--encoder {encoder} --decoder-layers 1 --decoder-width 16 --decoder-heads 2 --accumulate 2 --sample",
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
    "encoding": (Keeper, "_flush", lambda keeper, pending: bool(pending), True),
    "before any checkpoint": (Rhythm, "on_step_end", at_step(1), False),
    "in mid-epoch": (Rhythm, "on_step_end", at_step(4), False),
    "writing a checkpoint": (Checkpoints, "publish", lambda checkpoints, step: step >= 3, False),
    "evaluating": (CaptionTrainer, "evaluate", lambda trainer: True, True),
    "replacing the model": (run_folder.os, "replace", lambda old, new: str(new).endswith("model.old"), True),
    "in the second epoch": (Rhythm, "on_step_end", at_step(6), False),
    "writing the report": (RunFolder, "best_scores", lambda run: True, False),
}
SKIPPED = {
    ("lora", "writing the untrained model"): "only a joined captioner has one",
    ("encoder", "writing the untrained model"): "only a joined captioner has one",
    ("joined", "in the second epoch"): "accumulation leaves it too few steps",
}


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


def words_of(kind: str, blip: Path, encoder: Path) -> str:
    return f"{COMMON} {KINDS[kind].format(blip=blip, encoder=encoder)}".replace(
        "--log-every 1", "" if "--log-every" in KINDS[kind] else "--log-every 1"
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By kind, what a run left that was never killed."""
    return {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", POINTS)
def test_continues_as_if_never_stopped(
    kind: str, point: str, whole: dict[str, Any], tmp_path: Path, cli: Cli, photos: Path,
    blip: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if (kind, point) in SKIPPED:
        pytest.skip(SKIPPED[kind, point])
    words = words_of(kind, blip, encoder)
    if kind not in whole:
        with monkeypatch.context() as patch:
            patch.setenv("CAPTRAIN_CACHE", str(tmp_path / "another-cache"))
            assert cli("train", photos, tmp_path / "whole", words).code == 0
        whole[kind] = state_of(tmp_path / "whole")
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


def leave_halves(run: Path) -> None:
    """What a kill may leave besides: half a log line, half a checkpoint."""
    if (run / "metrics.jsonl").exists():
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "train", "step": 9')
        half = run / "checkpoints" / ".writing" / "checkpoint-99"
        half.mkdir(parents=True, exist_ok=True)
        (half / "learned.safetensors").write_bytes(b"half")


PROGRAM = """
import os, signal, sys, torch
import captrain.training.callbacks as callbacks, captrain.training.checkpoints as checkpoints
from captrain.cli import main
torch.set_num_threads(1)
def kill(*args, **kwargs):
    if sys.argv[1] == "checkpoint" or args[2].global_step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
{"checkpoint": (checkpoints.Checkpoints, "publish"), "step": (callbacks.Rhythm, "on_step_end"), "none": (checkpoints, "_")}
owner, name = {"checkpoint": (checkpoints.Checkpoints, "publish"), "step": (callbacks.Rhythm, "on_step_end")}.get(sys.argv[1], (None, ""))
if owner:
    setattr(owner, name, kill)
sys.exit(main(sys.argv[2:]))
"""
