"""Values are held to the same rules in Python as on the command line and in recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import captrain
from captrain.cli import main
from captrain.errors import ModelError, SettingsError, UserError
from captrain.features.encode import StoreContent
from captrain.features.pipeline import SourceReader
from captrain.features.stream import Batching, Computing
from captrain.inference.captioner import Captioner
from captrain.inference.evaluate import evaluate
from captrain.inference.evaluation_data import EvaluationData
from captrain.models.checkpoint.folder import load_captioner, save_captioner
from captrain.models.decoding import Decoding
from captrain.testing import clear_pictures

WRONG = [
    ({"beams": 0}, "beams: found 0, expected at least 1"),
    ({"beams": 65}, "beams: found 65, expected at most 64"),
    ({"beams": 1.5}, "beams: found 1.5, expected a whole number"),
    ({"beams": None}, "beams: found None, expected a whole number"),
    ({"max_new_tokens": 0}, "max_new_tokens: found 0, expected at least 1"),
    ({"max_new_tokens": -5}, "max_new_tokens: found -5, expected at least 1"),
    ({"max_new_tokens": "many"}, "max_new_tokens: found 'many', expected a whole number"),
    ({"min_new_tokens": -1}, "min_new_tokens: found -1, expected at least 0"),
    ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens 9 is more than max_new_tokens 8"),
    ({"min_new_tokens": 31}, "min_new_tokens 31 is more than max_new_tokens 30"),
    ({"sample": True, "temperature": 0}, "temperature: found 0, expected more than 0"),
    ({"sample": True, "temperature": -1.0}, "temperature: found -1.0, expected more than 0"),
    ({"sample": True, "temperature": float("inf")}, "temperature: found inf, expected a finite number"),
    ({"sample": True, "top_p": 0}, "top_p: found 0, expected more than 0"),
    ({"sample": True, "top_p": 1.5}, "top_p: found 1.5, expected at most 1"),
    ({"length_penalty": float("nan")}, "length_penalty: found nan, expected a finite number"),
    ({"repetition_penalty": 0.5}, "repetition_penalty: found 0.5, expected at least 1"),
]
PICTURE = Image.fromarray(clear_pictures(1)[0])


@pytest.fixture(scope="module")
def writer(tiny_folders: dict[str, Path]) -> Captioner:
    return captrain.load(tiny_folders["blip"], device="cpu")


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_ways_of_writing(writer: Captioner, changes: dict[str, Any], message: str) -> None:
    for write in (lambda: writer(PICTURE, **changes), lambda: Decoding(**changes)):
        with pytest.raises(SettingsError) as caught:
            write()
        assert str(caught.value).startswith(f"generation: {message}")


def test_what_is_right_becomes_what_it_means() -> None:
    assert Decoding(beams="5", temperature=1).beams == 5  # type: ignore[arg-type]
    assert Decoding.from_dict(Decoding(beams=5).to_dict()) == Decoding(beams=5)


def test_a_saved_model_with_a_wrong_value_names_it(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    save_captioner(load_captioner(str(tiny_folders["blip"])), tmp_path)
    extras = json.loads((tmp_path / "captrain.json").read_text())
    extras["decoding"]["beams"] = 0
    (tmp_path / "captrain.json").write_text(json.dumps(extras))
    with pytest.raises(ModelError, match="generation: beams: found 0, expected at least 1"):
        captrain.load(tmp_path)


COMPUTING = [
    ({"batch_size": 0}, "batch_size: found 0, expected at least 1"),
    ({"batch_size": -3}, "batch_size: found -3, expected at least 1"),
    ({"batch_size": 2.5}, "batch_size: found 2.5, expected a whole number"),
    ({"workers": -1}, "workers: found -1, expected at least 0"),
    ({"max_pixels": 0}, "max_pixels: found 0, expected at least 1"),
]


@pytest.mark.parametrize(("changes", "message"), COMPUTING)
def test_how_to_compute(changes: dict[str, Any], message: str) -> None:
    """Refused where it is said, so that nothing is read, loaded or written before."""
    every: dict[str, Any] = {"batch_size": 4, "max_pixels": 10**6, **changes}
    calls = (
        lambda: Computing(**every),
        lambda: Batching(**every),
        lambda: SourceReader(**every),
    )
    for call in calls:
        with pytest.raises(SettingsError) as caught:
            call()
        assert str(caught.value) == f"settings: {message}"


def test_one_of_something_needs_no_list(writer: Captioner, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.png")
    alone = writer(PICTURE)
    for picture in (PICTURE, str(tmp_path / "a.png"), tmp_path / "a.png", (tmp_path / "a.png").read_bytes()):
        assert [caption.text for caption in writer.caption(picture)] == [alone]
    one, several = (captrain.score({"1": "a dog"}, {"1": "a dog"}, metrics=names) for names in ("rouge_l", ["rouge_l"]))
    assert one.scores == several.scores == {"rouge_l": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bootstrap": -1}, "bootstrap: found -1, expected at least 0"),
        ({"bootstrap": 10**6}, "bootstrap: found 1000000, expected at most 100000"),
        ({"seed": -1}, "seed: found -1, expected at least 0"),
        ({"tokenizer": "spacy"}, "unknown tokenizer 'spacy'"),
        ({"metrics": "cidr"}, "unknown metric 'cidr'. Did you mean 'cider'?"),
    ],
)
def test_how_to_score(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        captrain.score({"1": "a dog"}, {"1": "a dog"}, **options)
    assert message in str(caught.value)


def test_batches_of_nothing(writer: Captioner) -> None:
    with pytest.raises(SettingsError, match="batch_size: found 0, expected at least 1"):
        writer.caption([PICTURE], batch_size=0)
    with pytest.raises(SettingsError, match="limit: found 0, expected at least 1"):
        evaluate("no-model", EvaluationData("no-data", limit=0))
    with pytest.raises(SettingsError, match="shard_images: found 0, expected at least 1"):
        StoreContent(shard_images=0)


OUTPUTS = [
    ("o.csv", "--output o.csv: JSON lines are written, expected a name that ends in .jsonl: --output o.jsonl"),
    ("o.JSON", "--output o.JSON: JSON lines are written, expected a name that ends in .jsonl: --output o.jsonl"),
    ("o", "--output o: JSON lines are written, expected a name that ends in .jsonl: --output o.jsonl"),
    ("v1.2", "--output v1.2: JSON lines are written, expected a name that ends in .jsonl: --output v1.2.jsonl"),
    ("there", "--output there: is a folder, expected the name of a file: --output there/captions.jsonl"),
]


@pytest.mark.parametrize("engine", ["", "--engine local"])
@pytest.mark.parametrize(("name", "message"), OUTPUTS)
def test_a_file_of_captions_is_named_as_what_it_is(
    name: str,
    message: str,
    engine: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    assert main(["caption", "no-model", "no-pictures", "--output", name, *engine.split()]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_an_evaluation_is_a_folder_and_a_report_is_html(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    Path("run").mkdir()
    Path("run/metrics.jsonl").touch()
    expected = {
        "evaluate m d --output o.csv": "--output o.csv: a folder of predictions.jsonl and scores.json is written, "
        "expected its name: --output o",
        "evaluate m d --output taken": "--output taken: is a file, expected the name of a folder, "
        "for predictions.jsonl and scores.json",
        "report run --output o.csv": "--output o.csv: HTML is written, expected a name that ends in .html: --output o.html",
    }
    for command, message in expected.items():
        assert main(command.split()) == 2
        assert capsys.readouterr().err == f"error: {message}\n"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["metrics.jsonl", "run", "taken"]
