"""The best epoch where the score can't choose it, scores of other scripts, and lengths that do not fit: as users meet them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_tools import QUICK, Cli, lines_of

from captrain.features.cache import FeatureCache
from captrain.models.contract import CaptionerModel
from captrain.testing import tiny_photos
from captrain.training.loop.trainer import CaptionTrainer

CHINESE = ("一只狗在草地上奔跑", "两只猫睡在沙发上", "红色的公共汽车停在车站", "一个人正在吃苹果")


class Killed(BaseException):
    """Stands for a SIGKILL: nothing of captrain catches it."""


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """Ten pictures, of which one is held out."""
    return tiny_photos(tmp_path / "ten", count=10)


@pytest.fixture
def chinese(tmp_path: Path) -> Path:
    """Pictures with Chinese captions."""
    folder = tiny_photos(tmp_path / "chinese", count=12)
    table = folder / "metadata.jsonl"
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    for number, line in enumerate(lines):
        line["captions"] = [CHINESE[number % 4], CHINESE[(number + 1) % 4]]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def validations(run: Path) -> list[dict[str, Any]]:
    return [line for line in lines_of(run / "metrics.jsonl") if line["kind"] == "validation"]


def test_one_held_out_picture_leaves_the_choice_to_the_loss(
    ten: Path, cli: Cli, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--model", blip, QUICK, "--epochs 4 --patience 1")
    result = cli("train", ten, "run", *words)
    assert result.code == 0, result.err
    assert result.err.count("cannot tell epochs apart") == 1
    assert "cider is always 0 with one picture to validate on" in result.err
    assert "--patience counts by it" in result.err
    found = validations(Path("run"))
    assert {line["cider"] for line in found} == {0.0}
    losses = [line["validation_loss"] for line in found]
    assert len(losses) > 2, "patience stopped at a score that can't move"
    assert "by validation loss (all had the same CIDEr) on 1 held-out picture\n" in result.out.replace(" \n", "\n")
    assert json.loads(Path("run/scores.json").read_text())["scores"]["validation_loss"] == min(losses)

    original, calls = CaptionTrainer.evaluate, []

    def evaluate(trainer: CaptionTrainer, *args: Any, **kwargs: Any) -> dict[str, float]:
        calls.append(original(trainer, *args, **kwargs))
        if len(calls) == 2:
            raise Killed
        return calls[-1]

    with monkeypatch.context() as patch:
        patch.setattr(CaptionTrainer, "evaluate", evaluate)
        with pytest.raises(Killed):
            cli("train", ten, "again", *words)
    assert cli("train", ten, "again", *words).code == 0
    assert validations(Path("again")) == found
    for name in ("model/adapter_model.safetensors", "scores.json"):
        assert Path("again", name).read_bytes() == Path("run", name).read_bytes()


def test_a_run_that_chooses_by_the_loss_says_so(ten: Path, cli: Cli, blip: Path) -> None:
    result = cli("train", ten, "run", "--model", blip, QUICK, "--epochs 2 --metric validation_loss")
    assert result.code == 0, result.err
    assert "of 2, by validation loss on 1 held-out picture" in result.out


def test_scores_of_another_script(chinese: Path, cli: Cli, blip: Path, encoder: Path) -> None:
    common = f"{QUICK} --epochs 1 --validation-share 0.3"
    joined = "--tokenizer words --decoder-layers 1 --decoder-width 16 --decoder-heads 2"
    result = cli("train", chinese, "run", "--encoder", encoder, joined, common, "--test-data", chinese)
    assert result.code == 0, result.err
    assert "scores count the words of the tokenizer characters (--tokenize auto): 100 % of their letters" in result.err
    settings = yaml.safe_load(Path("run/settings.yaml").read_text())
    assert settings["settings"]["evaluation"]["tokenize"] == "characters"
    for scores in ("run/scores.json", "run/test/scores.json"):
        assert "|tokenizer:characters|" in json.loads(Path(scores).read_text())["signature"]
    assert "tokenizer:characters" in Path("run/report.html").read_text()
    for words, tokenizer in (("", "characters"), ("--tokenize ptb", "ptb"), ("--tokenize unicode", "unicode")):
        evaluated = cli("evaluate", "run", chinese, "--device cpu --json --limit 3 --output", Path("out"), words)
        assert f"|tokenizer:{tokenizer}|" in json.loads(evaluated.out)["signature"]
        assert ("can't find the words" in evaluated.out) == (tokenizer == "ptb")


def test_a_tokenizer_that_was_asked_for_stays(chinese: Path, cli: Cli, encoder: Path) -> None:
    joined = "--tokenizer words --decoder-layers 1 --decoder-width 16 --decoder-heads 2"
    words = f"{joined} {QUICK} --epochs 1 --validation-share 0.3 --tokenize ptb --metric bleu_4"
    result = cli("train", chinese, "run", "--encoder", encoder, words)
    assert result.code == 0, result.err
    assert "warning: tokenizer ptb can't find the words of these references" in result.err
    assert "warning: bleu_4 of captions copied from the references themselves is 0.0000: it cannot tell" in result.err
    recipe = Path("recipe.yaml")
    recipe.write_text("evaluation: {tokenize: unicode}\n")
    evaluated = cli("evaluate", "run", chinese, "--device cpu --json --limit 3 --recipe", recipe)
    assert "|tokenizer:unicode|" in json.loads(evaluated.out)["signature"]
    assert "|tokenizer:ptb|" in json.loads(cli("evaluate", "run", "--device cpu --json --limit 3").out)["signature"]


@pytest.mark.parametrize(
    "words",
    [
        "train {photos} run --model {blip} --max-new-tokens 64",
        "train {photos} run --model {blip} --max-new-tokens 64 --dry-run",
        "train {photos} run --model {blip} --max-new-tokens 70 --min-new-tokens 70",
        "train {photos} run --model {blip} --max-new-tokens 60 --prompt a_dog_and_a_cat",
        "caption {blip} {photos} --output o.jsonl --max-new-tokens 64",
        "caption {blip} {photos} --output o.jsonl --max-new-tokens 64 --engine local",
        "evaluate {blip} {photos} --max-new-tokens 64",
        "evaluate {blip} {photos} --max-new-tokens 64 --beams 1,2",
    ],
)
def test_lengths_are_held_against_the_positions_before_any_work(
    words: str, cli: Cli, photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FeatureCache, "__init__", lambda *_: pytest.fail("encodes"))
    monkeypatch.setattr(CaptionerModel, "encode", lambda *_, **__: pytest.fail("encodes"))
    result = cli(*words.format(photos=photos, blip=blip).split())
    assert result.code == 2
    assert (
        "but the decoder of this blip captioner holds 64 positions, of which start and prompt take" in result.last_line
    )
    assert not Path("o.jsonl").exists()


def test_captions_that_the_positions_cut_are_said_to_be(ten: Path, cli: Cli, blip: Path) -> None:
    (ten / "metadata.jsonl").write_text(
        "".join(
            json.dumps({"file_name": f"photo-{number:03}.png", "captions": ["dog " * 63]}) + "\n"
            for number in range(10)
        )
    )
    common = f"{QUICK} --epochs 1"
    result = cli("train", ten, "run", "--model", blip, common)
    assert result.code == 0, result.err
    assert "10 captions were cut: the decoder of this blip captioner holds 64 positions" in result.err
    assert "--max-tokens" not in result.err
    result = cli("train", ten, "short", "--model", blip, common, "--max-tokens 8")
    assert "10 captions were cut: they are longer than --max-tokens (now 8)" in result.err


def write_captions(folder: Path, captions: tuple[str, ...]) -> Path:
    names = sorted(path.name for path in folder.glob("*.png"))
    lines = [{"file_name": name, "captions": [captions[number % len(captions)]]} for number, name in enumerate(names)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize("mode", ["", "--dry-run"])
def test_captions_that_the_tokenizer_cannot_hold(
    mode: str, ten: Path, cli: Cli, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_captions(ten, ("ein Hund läuft", "le chien court vite"))
    words = ("--model", blip, QUICK, "--epochs 1", mode)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureCache, "__init__", lambda *_: pytest.fail("encodes"))
        result = cli("train", ten, "run", *words)
    assert result.code == 2
    assert "error: the tokenizer does not keep" in result.last_line
    assert '"Hund" ' in result.last_line
    assert result.last_line.endswith("or go on with --accept-lost-words")
    result = cli("train", ten, "run", *words, "--accept-lost-words")
    assert result.code == 0, result.err
    assert "warning: the tokenizer does not keep" in result.err


def test_some_lost_words_are_told_and_capitals_are_no_loss(ten: Path, cli: Cli, blip: Path) -> None:
    write_captions(ten, (*["A Dog Runs on a green field with a small cat"] * 9, "a dog runs on a chien"))
    result = cli("train", ten, "run", "--model", blip, QUICK, "--epochs 1 --dry-run")
    assert result.code == 0, result.err
    assert '"chien" 1' in result.err
    assert "captions lose their capitals" in result.err


def test_check_counts_what_a_tokenizer_loses(ten: Path, cli: Cli, blip: Path) -> None:
    plain = cli("data", "check", ten, "--model", blip)
    assert "words kept" in plain.out
    lost = write_captions(ten, ("chien", "le garçon"))
    result = cli("data", "check", lost, "--model", blip)
    assert result.code == 3
    assert "words kept" in result.out
    assert "are unknown to it" in result.out
    assert "keeps too few of the words" in result.out
    found = json.loads(cli("data", "check", lost, "--model", blip, "--json").out)
    assert found["round_trip"]["unknown"] > 0
