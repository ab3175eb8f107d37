"""Evaluation through the command line: several ways of decoding, going on after an interruption, files for others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_tools import Cli, lines_of

from captrain.inference.captioner import Captioner

FAST = "--split all --precision fp32 --device cpu --batch-size 4"


def test_several_beams_are_compared(tmp_path: Path, cli: Cli, trained: Path, photos: Path) -> None:
    """Each number of beams gets the scores it gets alone."""
    several = cli("evaluate", trained, photos, FAST, "--beams 1,3 --json --output", tmp_path / "several")
    assert several.code == 0, several.err
    found = json.loads(several.out)
    assert [system["name"] for system in found["systems"]] == ["beams 1", "beams 3"]
    assert {compared["metric"] for compared in found["comparisons"]} >= {"bleu_4", "cider"}
    for beams, system in zip((1, 3), found["systems"], strict=True):
        alone = cli("evaluate", trained, photos, FAST, f"--beams {beams} --json --output", tmp_path / f"{beams}")
        assert json.loads(alone.out)["scores"] == system["scores"]
        here, there = (
            tmp_path / "several" / f"predictions-beams-{beams}.jsonl",
            tmp_path / f"{beams}/predictions.jsonl",
        )
        assert [line["text"] for line in lines_of(here)] == [line["text"] for line in lines_of(there)]


def test_a_table_of_several(tmp_path: Path, cli: Cli, trained: Path, photos: Path) -> None:
    result = cli("evaluate", trained, photos, FAST, "--beams 1,2 --output", tmp_path / "out")
    assert result.code == 0
    assert "beams 1" in result.out
    assert "CIDEr" in result.out


def test_an_interrupted_evaluation_goes_on(
    tmp_path: Path, cli: Cli, trained: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the second of three batches: the same command captions the last one only, and all ends alike."""
    undisturbed = cli("evaluate", trained, photos, FAST, "--output", tmp_path / "undisturbed")
    assert undisturbed.code == 0
    encode, calls = Captioner.encode, []

    def dies(self: Captioner, pixels, mirror=False):  # type: ignore[no-untyped-def]
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(self, pixels)

    monkeypatch.setattr(Captioner, "encode", dies)
    assert cli("evaluate", trained, photos, FAST, "--output", tmp_path / "killed").code != 0
    assert not (tmp_path / "killed/predictions.jsonl").exists()
    again = cli("evaluate", trained, photos, FAST, "--output", tmp_path / "killed")
    assert again.code == 0, again.err
    assert calls == [4, 4, 4, 4]
    assert "8 pictures were captioned before" in again.err
    for name in ("predictions.jsonl", "scores.json", "coco-results.json"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "undisturbed" / name).read_text()
    assert not list((tmp_path / "killed").glob("*.partial"))


def test_results_for_the_official_server(tmp_path: Path, cli: Cli, trained: Path, photos: Path) -> None:
    cli("evaluate", trained, photos, FAST, "--output", tmp_path / "out")
    results = json.loads((tmp_path / "out/coco-results.json").read_text())
    assert len(results) == 12
    assert set(results[0]) == {"image_id", "caption"}
    scored = cli("score", tmp_path / "out/predictions.jsonl", tmp_path / "out/predictions.jsonl", "--json")
    assert json.loads(scored.out)["scores"] == json.loads((tmp_path / "out/scores.json").read_text())["scores"]
