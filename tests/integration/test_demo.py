"""The demo from end to end, with few scenes and one epoch: what it learns in full is measured by running it, not here."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from captrain.cli import main
from captrain.demo import run as demo


@pytest.mark.usefixtures("charts")
def test_the_demo_draws_trains_checks_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "SCENES", {"train": 24, "validation": 4, "test": 6, "held_out": 6})
    assert main(["demo", str(tmp_path / "demo"), "-q"]) == 0
    report = (tmp_path / "demo" / "run" / "report.html").read_text(encoding="utf-8")
    assert "right on new scenes" in report
    assert "right on combinations never seen in training" in report
    assert report.count("data:image/") >= 12
    assert "<svg" in report and "<svg></svg>" not in report
    said = capsys.readouterr()
    assert "every attribute right" in said.out
    assert "scenes" not in said.err, "a first look must not begin with warnings about its own data"


def test_what_counts_as_right_is_decided_by_the_rule_not_by_a_score(tmp_path: Path) -> None:
    from captrain.demo.scenes import describe_scene, is_right, make_scenes

    scenes = make_scenes(20, seed=1)
    assert all(is_right(caption, scene) for scene in scenes for caption in describe_scene(scene))
    others = [is_right(describe_scene(one)[0], other) for one, other in pairwise(scenes)]
    assert not all(others)
