"""The test at the end of a training, evaluation without training, and splits by name, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_tools import QUICK, Cli, lines_of

from captrain.inference.captioner import Captioner
from captrain.testing import tiny_photos
from captrain.training import run as training_run


@pytest.fixture(scope="module")
def split_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos to train on, four to validate, six to test; do not write into it."""
    folder = tiny_photos(tmp_path_factory.mktemp("split") / "photos", count=18)
    lines = (folder / "metadata.jsonl").read_text().splitlines(keepends=True)
    (folder / "metadata.jsonl").unlink()
    for name, part in (("train", lines[:8]), ("dev", lines[8:12]), ("test", lines[12:])):
        (folder / f"{name}.jsonl").write_text("".join(part))
    return folder


def words_for(blip: Path) -> str:
    return f"--model {blip} --epochs 2 {QUICK}"


def test_the_best_model_is_tested_once(
    tmp_path: Path, cli: Cli, split_photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    result = cli("train", split_photos, run, words_for(blip))
    assert result.code == 0, result.err
    assert "test CIDEr" in result.out
    scores = json.loads((run / "test/scores.json").read_text())
    assert scores["images"] == 6
    predictions = lines_of(run / "test/predictions.jsonl")
    assert [line["id"] for line in predictions] == [f"photo-{number:03d}.png" for number in range(12, 18)]
    last = lines_of(run / "metrics.jsonl")[-1]
    assert last["kind"] == "test"
    assert last["step"] == 8
    assert {name: last[name] for name in scores["scores"]} == scores["scores"]
    page = (run / "report.html").read_text()
    assert "Scores on the test pictures" in page
    assert "on 6 test pictures" in page

    alone = cli("evaluate", run, split_photos, "--split test --device cpu --precision fp32 --json")
    assert json.loads(alone.out)["scores"] == scores["scores"], "as `captrain evaluate` scores it"
    own = cli("evaluate", run, "--device cpu --precision fp32 --json --output", tmp_path / "own")
    assert json.loads(own.out)["scores"] == scores["scores"], "the run knows its data"

    monkeypatch.setattr(Captioner, "load", lambda *words: pytest.fail("tested again"))
    again = cli("train", split_photos, run, words_for(blip))
    assert again.code == 0
    assert "test CIDEr" in again.out


def test_an_interrupted_test_goes_on(
    tmp_path: Path, cli: Cli, split_photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the second of its batches, and again before the run is marked as done: in the end all is as undisturbed."""
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    assert cli("train", split_photos, undisturbed, words_for(blip)).code == 0
    encode, calls = Captioner.encode, []

    def dies(self: Captioner, pixels, mirror=False):  # type: ignore[no-untyped-def]
        calls.append(len(pixels))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, pixels)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Captioner, "encode", dies)
    assert cli("train", split_photos, run, words_for(blip)).code != 0
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "write_report", killed)
        assert cli("train", split_photos, run, words_for(blip)).code != 0
    assert calls == [4, 2, 2]
    assert cli("train", split_photos, run, words_for(blip)).code == 0
    for name in ("scores.json", "predictions.jsonl"):
        assert (run / "test" / name).read_text() == (undisturbed / "test" / name).read_text()
    assert lines_of(run / "metrics.jsonl") == lines_of(undisturbed / "metrics.jsonl")
    assert not list((run / "test").glob("*.partial"))


def test_without_a_test_split_there_is_no_test(tmp_path: Path, cli: Cli, split_photos: Path, blip: Path) -> None:
    result = cli("train", split_photos, tmp_path / "run", words_for(blip), "--no-test-split")
    assert result.code == 0, result.err
    assert not (tmp_path / "run/test").exists()
    assert "test CIDEr" not in result.out


def test_evaluation_only_by_a_recipe(tmp_path: Path, cli: Cli, split_photos: Path, blip: Path) -> None:
    """Data, splits and generation are the recipe's; nothing is trained."""
    recipe = tmp_path / "test.yaml"
    recipe.write_text(
        f"data: {{test_data: {split_photos}, test_split: [test, val]}}\n"
        "model: {device: cpu, precision: fp32}\ngeneration: {beams: 2, max_new_tokens: 5}\n"
    )
    result = cli("evaluate", blip, "--recipe", recipe, "--json --output", tmp_path / "out")
    assert result.code == 0, result.err
    assert json.loads(result.out)["images"] == 10
    decoding = json.loads((tmp_path / "out/scores.json").read_text())["decoding"]
    assert (decoding["beams"], decoding["max_new_tokens"]) == (2, 5)
    flagged = cli("evaluate", blip, "--recipe", recipe, "--beams 1 --json --output", tmp_path / "flagged")
    assert json.loads(flagged.out)["scores"] != json.loads(result.out)["scores"]
    again = json.loads((tmp_path / "flagged/scores.json").read_text())["decoding"]
    assert (again["beams"], again["max_new_tokens"]) == (1, 5)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("evaluate {blip}", "it is no run folder; give DATA, or a recipe that names data"),
        ("evaluate {blip} {photos} --split tst", "no split 'tst'; it has 'validation', 'test', 'train'. Did you mean"),
        ("train {photos} run --model {blip} --test-split tst", "no split 'tst'; it has 'validation', 'test', 'train'."),
        (
            "train {photos}/train.jsonl run --model {blip} --validation-share 0 --patience 2",
            "patience: there is nothing to validate on",
        ),
    ],
)
def test_wrong_splits_are_one_line(words: str, expected: str, cli: Cli, split_photos: Path, blip: Path) -> None:
    result = cli(words.format(blip=blip, photos=split_photos))
    assert result.code == 2
    assert expected in result.last_line
    assert not Path("run/metrics.jsonl").exists()
