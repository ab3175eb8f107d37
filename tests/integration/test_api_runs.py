"""The Python API on tiny checkpoints: what the commands leave, functions leave too; what is stopped goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from run_tools import QUICK, Cli, lines_of
from transformers import TrainerCallback

import captrain
from captrain.errors import CaptrainError, StoppedError, TrainingError
from captrain.testing import tiny_photos
from captrain.training.loop.trainer import CaptionTrainer

WORDS = f"--validation-share 0.25 --epochs 2 --dropout 0.2 --sample {QUICK}"
HOW: dict[str, Any] = {
    "validation_share": 0.25, "epochs": 2, "dropout": 0.2, "sample": True, "device": "cpu", "precision": "fp32",
    "batch_size": 2, "beams": 1, "max_new_tokens": 6, "log_every": 1, "learning_rate": 0.01,
}  # fmt: skip


def words(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean words of a caption."""
    assert len(captions) == len(references) and all(isinstance(known, list) for known in references)
    return sum(len(caption.split()) for caption in captions) / len(captions)


class Noted(captrain.Callback):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def on_start(self, run: Path) -> None:
        self.events.append(("start", run))

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        self.events.append(("log", step))

    def on_epoch(self, epoch: float, scores: Mapping[str, float], captions: Sequence[captrain.Caption]) -> None:
        self.events.append(("epoch", (epoch, len(captions), "cider" in scores)))

    def on_end(self, scores: Mapping[str, float]) -> None:
        self.events.append(("end", "cider" in scores))


class Steps(TrainerCallback):
    """Counts steps, as callbacks of transformers do."""

    count = 0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        Steps.count += 1


def state_of(run: Path) -> dict[str, Any]:
    """What a run holds beside times and its own place."""
    logs = {name: lines_of(run / name) for name in ("metrics.jsonl", "samples.jsonl")}
    weights = {path.name: path.read_bytes() for path in (run / "model").glob("*.safetensors")}
    return (
        logs
        | weights
        | {"scores": (run / "scores.json").read_bytes(), "files": sorted(path.name for path in run.iterdir())}
    )


def test_python_trains_as_the_command_does_and_goes_on_after_a_stop(
    tmp_path: Path, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the program drew before; Ctrl-C in the middle and the same call again lead to the same bytes."""
    assert cli("train", photos, tmp_path / "command", f"--model {blip} {WORDS}").code == 0
    torch.manual_seed(7)
    signals, random = signal.getsignal(signal.SIGINT), torch.get_rng_state()
    environment = dict(os.environ)
    original, calls = CaptionTrainer.compute_loss, []

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(CaptionTrainer, "compute_loss", interrupted)
    with pytest.raises(StoppedError, match="SIGINT stopped the training at step 3, which a checkpoint holds"):
        captrain.train(photos, tmp_path / "python", model=blip, **HOW)
    assert not captrain.Run(tmp_path / "python").is_finished
    run = captrain.train(photos, tmp_path / "python", model=blip, **HOW)
    assert run.is_finished and state_of(run.path) == state_of(tmp_path / "command")
    assert signal.getsignal(signal.SIGINT) is signals and torch.equal(torch.get_rng_state(), random)
    assert dict(os.environ) == environment
    assert run.scores == captrain.Run(tmp_path / "command").scores
    assert len(run.history.of("validation")) == 2 and run.settings["model"]["rank"] == 16
    assert run.report().is_file()
    page = run._repr_html_()
    assert "<svg" in page and "data:image/png;base64," in page and len(page) < 400_000
    again = captrain.train(photos, tmp_path / "python", model=blip, **HOW)
    assert repr(again) == repr(run) and "finished" in repr(run)


def test_callbacks_and_metrics_of_ones_own(tmp_path: Path, photos: Path, blip: Path) -> None:
    noted, ends = Noted(), []
    out = tmp_path / "run"

    def stop(epoch: float, scores: Mapping[str, float], captions: Sequence[captrain.Caption]) -> bool:
        ends.append((epoch, scores["words"]))
        return True

    how = HOW | {"epochs": 3, "metric": "words"}
    run = captrain.train(photos, out, model=blip, callbacks=[noted, Steps, stop], metrics={"words": words}, **how)
    assert run.scores["words"] == ends[0][1] > 0 and len(ends) == 1, "one epoch, then it was told to stop"
    assert noted.events[0] == ("start", out) and noted.events[-2:] == [("epoch", (1.0, 3, True)), ("end", True)]
    assert [event for event in noted.events if event[0] == "log"] and Steps.count == 5
    assert run.settings["evaluation"]["metric"] == "words"
    assert all("words" in row for row in run.history.of("validation"))
    found = captrain.evaluate(run, metrics={"words": words}, device="cpu", beams=[1, 2])
    assert found.images == 3 and {"words", "cider"} <= set(found.scores)
    assert [system.name for system in found.comparison.systems] == ["beams 1", "beams 2"]


def test_a_metric_that_fails_costs_nothing(tmp_path: Path, photos: Path, blip: Path) -> None:
    def broken(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        return 1 / 0

    how = HOW | {"epochs": 1}
    with pytest.raises(TrainingError, match=r"the metric 'mine' failed \(ZeroDivisionError: division by zero\)"):
        captrain.train(photos, tmp_path / "run", model=blip, metrics={"mine": broken}, **how)
    run = captrain.train(photos, tmp_path / "run", model=blip, metrics={"mine": words}, **how)
    assert run.scores["mine"] > 0 and len(run.history.of("train")) == 5


def test_a_captioner_is_used_as_by_commands(tmp_path: Path, cli: Cli, trained: Path, photos: Path) -> None:
    how: dict[str, Any] = {"device": "cpu", "precision": "fp32", "beams": 1}
    captions = captrain.caption(trained, photos, **how)
    assert (
        cli(
            "caption", trained, photos, "--output", tmp_path / "a.jsonl", "--device cpu --precision fp32 --beams 1"
        ).code
        == 0
    )
    assert [(line["id"], line["text"]) for line in lines_of(tmp_path / "a.jsonl")] == [
        (one.id, one.text) for one in captions
    ]
    assert captrain.caption(trained, photos, tmp_path / "b.jsonl", **how).written == 12
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    album = tiny_photos(tmp_path / "album", count=2)
    (album / "metadata.jsonl").unlink()
    (album / "photo-001.png").write_bytes(b"broken")
    assert captrain.caption(trained, album, beside=True, extension=".caption", **how).written == 1
    assert (album / "photo-000.caption").is_file()
    found = captrain.caption(trained, album, **how)
    assert [one.id for one in found] == ["photo-000.png"] and found.rejected[0]["id"] == "photo-001.png"
    evaluated = captrain.evaluate(trained, out=tmp_path / "scores", **how)
    scores = captrain.score(
        {one.id: one.text for one in evaluated.captions}, {one.id: one.references for one in evaluated.captions}
    )
    assert scores.scores["cider"] == pytest.approx(evaluated.scores["cider"])
    assert (tmp_path / "scores" / "scores.json").is_file() and evaluated.captions[0].measured


def test_features_are_encoded_read_and_trained_on(tmp_path: Path, photos: Path, encoder: Path) -> None:
    store = captrain.encode(encoder, photos, tmp_path / "store", device="cpu")
    assert store.counts["images"] == 12 and len(captrain.read(store)) == 12
    run = captrain.train(
        store, tmp_path / "run", encoder=encoder, decoder_layers=1, decoder_width=32, decoder_heads=4,
        epochs=1, device="cpu", beams=1, max_new_tokens=4,
    )  # fmt: skip
    assert run.is_finished and "dry" not in captrain.describe(photos, encoder=encoder, device="cpu")


@pytest.mark.skipif(os.name == "nt", reason="processes are told to stop by signals")
def test_several_processes_have_callbacks_and_metrics(tmp_path: Path, photos: Path, blip: Path) -> None:
    with pytest.raises(CaptrainError, match="callbacks: can't be sent to the processes of several devices"):
        captrain.train(photos, tmp_path / "run", model=blip, devices="cpu:2", callbacks=[lambda *about: None], **HOW)
    how = HOW | {"epochs": 1}
    run = captrain.train(photos, tmp_path / "run", model=blip, devices="cpu:2", metrics={"words": words}, **how)
    assert run.scores["words"] > 0
