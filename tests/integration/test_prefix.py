"""ClipCap's ways through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from run_tools import QUICK, Cli, losses_of

JOINED = "--join prefix --decoder-layers 1 --decoder-width 32 --decoder-heads 4 --prefix-length 3 --epochs 2"


def test_only_prefix_trains_the_mapper_alone(tmp_path: Path, cli: Cli, photos: Path, encoder: Path) -> None:
    result = cli("train", photos, tmp_path / "run", f"--encoder {encoder} {JOINED} --only-prefix {QUICK}")
    assert result.code == 0, result.err
    parts = yaml.safe_load((tmp_path / "run/settings.yaml").read_text())["parameters"]
    assert {part: count["trainable"] > 0 for part, count in parts.items()} == {
        "vision": False,
        "bridge": True,
        "language": False,
    }
    losses = losses_of(tmp_path / "run")
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("words", ["--freeze vision", "--method lora", "--join cross-attention"])
def test_only_prefix_contradicts(words: str, tmp_path: Path, cli: Cli, photos: Path, encoder: Path) -> None:
    joined = JOINED.replace("--join prefix", "") if "join" in words else JOINED
    result = cli("train", photos, tmp_path / "run", f"--encoder {encoder} {joined} --only-prefix {words}")
    assert result.code == 2
    assert "only_prefix" in result.last_line


def test_blip2_learns_its_bridge_alone(tmp_path: Path, cli: Cli, photos: Path) -> None:
    from captrain.testing import tiny_blip2

    model = tiny_blip2(tmp_path / "blip2")
    words = f"--model {model} --method full --freeze vision language --epochs 1 {QUICK}"
    result = cli("train", photos, tmp_path / "run", words)
    assert result.code == 0, result.err
    parts = yaml.safe_load((tmp_path / "run/settings.yaml").read_text())["parameters"]
    assert parts["language"]["trainable"] == parts["vision"]["trainable"] == 0 < parts["bridge"]["trainable"]
