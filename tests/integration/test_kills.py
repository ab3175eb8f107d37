"""Runs that SIGKILL ends at thirty-four random moments in all, and that go on each time, end as if nobody had killed them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_tools import QUICK, Cli, lines_of

from captrain.data.convert import FormOptions, convert
from captrain.testing import tiny_photos

NURSERY = Path(__file__).with_name("nursery.py")
STEPS = QUICK.replace("--log-every 1", "--log-every 3")
COMMON = (
    f"--validation-share 0.25 --epochs 2 --checkpoint-every 2 --keep-checkpoints 3 {STEPS} --sample --temperature 2"
)
JOINED = "--decoder-layers 1 --decoder-width 16 --decoder-heads 2"
KINDS = {
    "two sources, each epoch its own views": (
        "--recipe {recipe} --model {blip} --dropout 0.2 --accumulate 2 --crop-scale 0.5 1 --flip 0.5 --captions-per-image 2",
        12,
    ),
    "kept views of a learning encoder": (
        "--model {blip} --method full --keep disk --views 3 --randaugment 2 5 --captions-per-image one --checkpoint-prefix mine",
        10,
    ),
    "an int8 cache": ("--model {blip} --dropout 0.2 --cache-features disk --cache-dtype int8", 4),
    "a feature store": ("--encoder {encoder} " + JOINED + " --checkpoint-every-epochs 2 --patience 1", 8),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
@pytest.mark.parametrize("kind", KINDS)
def test_many_kills(kind: str, tmp_path: Path, cli: Cli, photos: Path, blip: Path, encoder: Path) -> None:
    """Weights, best model, scores, logs (but for their seconds) and the last checkpoint are the same to the last byte."""
    words, kills = KINDS[kind]
    stored = feature_store(cli, photos, encoder, tmp_path) if "{encoder}" in words else photos
    data = None if "{recipe}" in words else str(stored)
    words = f"{COMMON} {words.format(recipe=two_sources(tmp_path), blip=blip, encoder=encoder)}"
    task = {"words": words.split(), "data": data, "folder": str(tmp_path), "kills": kills, "seed": 0}
    done = subprocess.run(
        [sys.executable, NURSERY], input=json.dumps(task), capture_output=True, text=True, check=False, timeout=300
    )
    logs = "".join(log.read_text()[-2000:] for log in sorted(tmp_path.glob("run-*.log"))[-1:])
    assert done.returncode == 0, done.stderr[-2000:] + logs
    found = json.loads(done.stdout)
    assert found["kills"] == kills
    whole = state_of(tmp_path / "whole")
    for run in found["runs"]:
        for name, content in state_of(tmp_path / run).items():
            assert content == whole[name], f"{name} of {run} differs"


def state_of(run: Path) -> dict[str, Any]:
    """All that must be alike; what a killed run left half done is gone."""
    [last] = (path for path in (run / "checkpoints").iterdir() if path.name.endswith("-" + last_step(run)))
    weights = [*(run / "model").glob("*.safetensors"), *last.glob("*.safetensors"), last / "running.json"]
    files = [*weights, run / "predictions.jsonl", run / "scores.json"]
    logs = {name: lines_of(run / name) for name in ("metrics.jsonl", "samples.jsonl")}
    names = sorted(path.name for path in run.iterdir() if path.name != "tensorboard")
    assert len(weights) >= 3
    return {str(path.relative_to(run)): path.read_bytes() for path in files} | logs | {"names": names}


def last_step(run: Path) -> str:
    """The step at which a run ended."""
    return str(max(line["step"] for line in lines_of(run / "metrics.jsonl")))


def two_sources(folder: Path) -> Path:
    """A recipe that mixes two data sets, the second shown twice as often."""
    sources = [
        {"path": str(tiny_photos(folder / "a/photos", count=6)), "ratio": 1},
        {"path": str(tiny_photos(folder / "b/photos", count=6, seed=1)), "ratio": 2},
    ]
    recipe = folder / "mixture.yaml"
    recipe.write_text(yaml.safe_dump({"data": {"sources": sources}}))
    return recipe


def feature_store(cli: Cli, photos: Path, encoder: Path, folder: Path) -> Path:
    """The features of tar shards."""
    convert(str(photos), folder / "shards", "webdataset", form=FormOptions(shard_size=4))
    store = folder / "store"
    assert cli("encode", folder / "shards", store, "--encoder", encoder, "--device cpu --precision fp32").code == 0
    return store
