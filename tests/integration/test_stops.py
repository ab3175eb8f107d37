"""Asked to stop by SIGTERM or SIGINT: the step is finished and saved, one line says how to go on, and nothing is lost by it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_tools import QUICK, Cli, lines_of

from captrain.features.cache import FeatureCache
from captrain.training.loop.trainer import CaptionTrainer
from captrain.training.loop.validation import Validator
from captrain.training.run_folder.checkpoints import Checkpoints
from captrain.training.run_folder.folder import RunFolder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="this system has no such signals")

WORDS = f"--validation-share 0.25 --epochs 2 --accumulate 2 --dropout 0.2 --sample {QUICK}".replace(
    "--log-every 1", "--log-every 4"
)


def send_at(
    patch: pytest.MonkeyPatch, owner: Any, name: str, call: int, number: int = signal.SIGTERM, times: int = 1
) -> None:
    """Let the process get a signal at the n-th call of `owner.name`."""
    original, calls = getattr(owner, name), []

    def signalled(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == call:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    patch.setattr(owner, name, signalled)


def steps_of(run: Path) -> list[int]:
    """The steps that there are checkpoints of."""
    return Checkpoints(run / "checkpoints", keep=9).steps()


def state_of(run: Path) -> dict[str, Any]:
    """What must not depend on stops."""
    logs = {name: lines_of(run / name) for name in ("metrics.jsonl", "samples.jsonl")}
    weights = {path.name: path.read_bytes() for path in (run / "model").glob("*.safetensors")}
    return logs | weights | {"scores": (run / "scores.json").read_bytes()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, photos: Path, blip: Path) -> Callable[[Cli], dict[str, Any]]:
    """What a run leaves that nobody stopped; made once."""
    folder, made = tmp_path_factory.mktemp("whole") / "run", []

    def state(cli: Cli) -> dict[str, Any]:
        if not made:
            assert cli("train", photos, folder, f"--model {blip} {WORDS}").code == 0
            made.append(state_of(folder))
        return made[0]

    return state


POINTS: dict[str, tuple[Any, str, int, str, list[int]]] = {
    "in mid-epoch": (CaptionTrainer, "compute_loss", 1, "at step 1, which a checkpoint holds", [1]),
    "in the last step of an epoch": (CaptionTrainer, "compute_loss", 5, "at step 3, which a checkpoint holds", [3]),
    "in an evaluation": (Validator, "_write", 1, "at step 3, which a checkpoint holds", [3]),
    "while a checkpoint is written": (Checkpoints, "publish", 1, "at step 3, which a checkpoint holds", [3]),
    "in the last step": (CaptionTrainer, "compute_loss", 10, "at step 6, which a checkpoint holds", [3, 6]),
    "in the last evaluation": (Validator, "_write", 2, "at step 6, which a checkpoint holds", [3, 6]),
}  # an epoch has 5 batches in 3 steps


@pytest.mark.parametrize("point", POINTS)
def test_a_stop_costs_nothing(
    point: str, whole: Any, tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on as if it had not been stopped: also its lines of metrics, which come every fourth step."""
    owner, name, call, place, steps = POINTS[point]
    words, run = f"--model {blip} {WORDS}", tmp_path / "run"
    with monkeypatch.context() as patch:
        send_at(patch, owner, name, call)
        result = cli("train", photos, run, words)
    assert result.code == 128 + signal.SIGTERM
    assert result.last_line == f"error: SIGTERM stopped the training {place}; the same command goes on with it"
    assert "Traceback" not in result.err
    assert steps_of(run) == steps
    result = cli("train", photos, run, words)
    assert result.code == 0, result.err
    assert state_of(run) == whole(cli)


def test_before_the_first_step(
    tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, run = f"--model {blip} {WORDS}", tmp_path / "run"
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        send_at(patch, FeatureCache, "_keep", 1, signal.SIGINT)
        result = cli("train", photos, run, words, "--overwrite")
    assert result.code == 128 + signal.SIGINT
    line = "SIGINT stopped the training before the first step; the same command, without --overwrite, goes on with it"
    assert result.last_line == f"error: {line}"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_after_the_last_step(
    whole: Any, tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, run = f"--model {blip} {WORDS}", tmp_path / "run"
    with monkeypatch.context() as patch:
        send_at(patch, RunFolder, "finish", 1)
        result = cli("train", photos, run, words)
    assert result.code == 128 + signal.SIGTERM
    assert result.last_line == (
        "error: SIGTERM stopped the training after the last step; the same command goes on with it"
    )
    assert cli("train", photos, run, words).code == 0
    assert state_of(run) == whole(cli)


def test_a_second_signal_does_not_wait(
    tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is not finished, the last checkpoint counts."""
    words, run = f"--model {blip} {WORDS} --checkpoint-every 1", tmp_path / "run"
    with monkeypatch.context() as patch:
        send_at(patch, CaptionTrainer, "compute_loss", 3, signal.SIGINT, times=2)
        result = cli("train", photos, run, words)
    assert result.code == 128 + signal.SIGINT
    assert "at step 1, which a checkpoint holds" in result.last_line
    assert steps_of(run) == [1]
