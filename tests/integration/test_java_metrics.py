"""METEOR as the score that chooses the best checkpoint, through the command line; and what there is to say without Java."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from run_tools import QUICK, Cli, lines_of

from captrain.features.cache import FeatureCache
from captrain.metrics import java, judging
from captrain.metrics.java import JavaError, MetricScores

COMMON = f"--validation-share 0.25 --epochs 2 --metric meteor {QUICK}"
needs_java = pytest.mark.skipif(
    shutil.which("java") is None or find_spec("pycocoevalcap") is None, reason="needs java and pycocoevalcap"
)


@needs_java
def test_meteor_chooses_and_is_shown(cli: Cli, blip: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Java starts for the test of the best model; the validations before it are told numbers, as each start takes long."""
    told = iter([0.1, 0.2])

    def score(name: str, candidates: Any, references: Any) -> MetricScores:
        value = next(told, None)
        if value is None:
            return java.score_java(name, candidates, references)
        return {name: value}, {id: {name: value} for id in candidates}

    monkeypatch.setattr(judging, "score_java", score)
    result = cli("train", photos, "run", "--model", blip, COMMON, "--test-data", photos)
    assert result.code == 0, result.err
    lines = lines_of(Path("run/metrics.jsonl"))
    best = max(line["meteor"] for line in lines if line["kind"] == "validation")
    assert best == 0.2
    assert json.loads(Path("run/scores.json").read_text())["scores"]["meteor"] == best
    tested = json.loads(Path("run/test/scores.json").read_text())["scores"]
    assert lines[-1]["kind"] == "test"
    assert lines[-1]["meteor"] == tested["meteor"] > 0
    assert ["test", "METEOR", f"{tested['meteor']:.4f}"] in [line.split() for line in result.out.splitlines()]
    assert "meteor 0." in result.err
    assert "METEOR" in Path("run/report.html").read_text()
    assert all("meteor" in line["measured"] for line in lines_of(Path("run/test/predictions.jsonl")))


@pytest.mark.parametrize("mode", ["", "--dry-run"])
def test_without_java_nothing_begins(
    mode: str, cli: Cli, blip: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    monkeypatch.setattr(FeatureCache, "__init__", lambda *_: pytest.fail("encodes"))
    result = cli("train", photos, "run", "--model", blip, COMMON, mode)
    assert result.code == 2
    assert result.err.strip() == (
        "error: meteor needs Java 8 or later, and there is no 'java'; install a Java runtime, or leave it out"
    )
    assert not Path("run").exists()


def test_java_that_fails_on_the_way(cli: Cli, blip: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluation is saved before it, and done again by the same command."""
    calls: list[str] = []

    def score(name: str, candidates: Any, references: Any) -> MetricScores:
        calls.append(name)
        if len(calls) == 2:
            raise JavaError("meteor failed with exit code 1: no memory")
        return {name: 0.1 * len(calls)}, {id: {name: 0.5} for id in candidates}

    monkeypatch.setattr(judging, "score_java", score)
    monkeypatch.setattr("captrain.training.run.check_java", lambda metrics: None)
    result = cli("train", photos, "run", "--model", blip, COMMON)
    assert result.code == 1
    assert result.last_line == (
        "error: training stopped at step 10: meteor failed with exit code 1: no memory; "
        "the last good checkpoint is run/checkpoints/checkpoint-10; run the same command again"
    )
    again = cli("train", photos, "run", "--model", blip, COMMON)
    assert again.code == 0, again.err
    lines = lines_of(Path("run/metrics.jsonl"))
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 11))
    assert [line["meteor"] for line in lines if line["kind"] == "validation"] == pytest.approx([0.1, 0.3])


@needs_java
def test_meteor_alone_and_beside_others(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same captions each time: Java scores them once."""
    found: dict[str, MetricScores] = {}

    def once(name: str, candidates: Any, references: Any) -> MetricScores:
        key = json.dumps([name, candidates, references])
        if key not in found:
            found[key] = java.score_java(name, candidates, references)
        return found[key]

    monkeypatch.setattr("captrain.inference.score.score_java", once)
    Path("p.json").write_text('{"1": "a dog runs on grass", "2": "two cats sleep"}')
    Path("r.json").write_text('{"1": ["a dog runs on the grass"], "2": ["two cats sleep on a sofa"]}')
    for metrics in ("meteor", "meteor,cider", "bleu_4,meteor"):
        result = cli("score", "p.json", "r.json", "--metrics", metrics, "--json")
        assert result.code == 0, result.err
        scores = json.loads(result.out)["scores"]
        assert scores["meteor"] == pytest.approx(0.39496710478818103)
        assert set(metrics.split(",")) <= scores.keys()
    assert len(found) == 1
