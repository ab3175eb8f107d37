"""Every optimizer trains, and goes on after a kill to the same weights; what does not fit is refused before anything is begun."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from run_tools import Cli, lines_of, losses_of
from safetensors.torch import load_file

from captrain.training.loop.callbacks import CheckpointSchedule
from captrain.training.optimization import optimizers

LIBRARIES = {name: kind.library for name, kind in optimizers.KINDS.items()}
WORDS = (
    "--method full --validation-share 0.25 --epochs 2 --checkpoint-every 2 --captions-per-image one --seed 3 --keep memory "
    "--device cpu --precision fp32 --batch-size 2 --beams 1 --max-new-tokens 4 --log-every 1 --warmup-steps 2 "
    "--metric validation_loss"
)
RATES = {"adafactor": "0.003", "lion": "0.003"}
MORE = {
    "muon": "--ema 0.5",
    "adamw": "--vision-layer-decay 0.7 --schedule step --min-learning-rate 1e-4 --warmup-learning-rate 1e-4",
}


class Killed(BaseException):
    """Stands for a SIGKILL."""


@pytest.fixture(params=list(LIBRARIES))
def optimizer(request: pytest.FixtureRequest) -> str:
    """The name of an optimizer that is installed."""
    library = LIBRARIES[request.param]
    if library is not None and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install 'captrain[optim]'")
    return str(request.param)


def words_of(optimizer: str) -> str:
    rate = "" if optimizer == "prodigy" else f"--learning-rate {RATES.get(optimizer, '0.005')}"
    return f"{WORDS} --optimizer {optimizer} {rate} {MORE.get(optimizer, '')}"


def test_each_learns_and_resumes_to_the_last_bit(
    optimizer: str, cli: Cli, blip: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = words_of(optimizer)
    assert cli("train", photos, tmp_path / "whole", "--model", blip, words).code == 0
    losses = losses_of(tmp_path / "whole")
    if optimizer != "prodigy":  # its rate grows from 1e-6, for longer than this
        assert sum(losses[-3:]) < sum(losses[:3]) - 0.1

    original = CheckpointSchedule.on_step_end

    def killed(self: CheckpointSchedule, args, state, control, **kwargs: object) -> None:
        if state.global_step == 7:
            raise Killed
        original(self, args, state, control, **kwargs)

    monkeypatch.setattr(CheckpointSchedule, "on_step_end", killed)
    with pytest.raises(Killed):
        cli("train", photos, tmp_path / "resumed", "--model", blip, words)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert cli("train", photos, tmp_path / "resumed", "--model", blip, words).code == 0
    whole, resumed = (weights_of(tmp_path / name) for name in ("whole", "resumed"))
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())
    assert lines_of(tmp_path / "whole" / "metrics.jsonl") == lines_of(tmp_path / "resumed" / "metrics.jsonl")


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """The learned weights of the last checkpoint: what goes on, whichever model is the best."""
    last = max((run / "checkpoints").glob("*-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return load_file(last / "learned.safetensors")


def test_schedule_free_validates_and_keeps_the_mean_of_the_weights(
    cli: Cli, blip: Path, photos: Path, tmp_path: Path
) -> None:
    """What is kept is what the last checkpoint has, written while the optimizer had the mean (`eval`) in place."""
    pytest.importorskip("schedulefree")
    words = f"{words_of('schedule-free')} --no-validation-split"
    words = words.replace("--metric validation_loss", "").replace("--validation-share 0.25", "")
    assert cli("train", photos, tmp_path / "run", "--model", blip, words).code == 0
    kept = load_file(tmp_path / "run" / "model" / "model.safetensors")
    last = weights_of(tmp_path / "run")
    name = next(name for name in last if name.endswith("patch_embedding.weight"))
    assert torch.equal(kept[name.removeprefix("model.")], last[name])
    checkpoint = next((tmp_path / "run" / "checkpoints").glob("*-12"))
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    assert not any(group["train_mode"] for group in state["param_groups"])


def test_prodigy_begins_at_its_own_rate(cli: Cli, blip: Path, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("prodigyopt")
    shown = cli("train", photos, tmp_path / "run", "--model", blip, words_of("prodigy"))
    assert shown.code == 0
    rates = [line["learning_rate"] for line in lines_of(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert max(rates) == 1.0


def test_a_library_that_is_missing_is_named_with_the_line_that_installs_it(
    cli: Cli, blip: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        optimizers.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "lion_pytorch" else find(name, *rest),
    )
    result = cli("train", photos, tmp_path / "run", "--model", blip, "--optimizer lion")
    assert result.code == 2
    assert "lion_pytorch, which is missing; pip install 'captrain[optim]'" in result.last_line
    assert len(result.err.strip().splitlines()) == 1


def test_a_warmup_longer_than_the_run_leaves_the_folder_free(
    cli: Cli, blip: Path, photos: Path, tmp_path: Path
) -> None:
    result = cli("train", photos, tmp_path / "run", "--model", blip, "--warmup-steps 1000 --beams 1 --batch-size 4")
    assert result.code == 2
    assert "warmup_steps 1000: longer than the run, which has 15 steps in 5 epochs" in result.last_line
    assert not (tmp_path / "run" / "settings.yaml").exists()
